"""Bets on what comes again at a distance that nobody knows: each is a mixture whose weights follow the tokens.

Each distance weighs as much as a bet on it alone has won so far. So a mixture is fixed before its token is drawn, as a
bet has to be, and its likelihood is the mean of those of its distances: it costs at most the logarithm of their number.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.memory import Array, Step
from sampler.checks.scoring.named import Named

Places = NDArray[np.int64]

STEPS_BACK = (1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128)
RUNS_BACK = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
"""Distances at which noise may come again: within a run, and from run to run in the order of the log."""

FIRST_ROWS = np.cumsum(RUNS_BACK) - np.array(RUNS_BACK)

PERIODS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 25, 32, 50, 64)
"""Every so many steps the likeliest token may be taken, beginning anywhere; or in the first step of a run alone."""

LIFT, MOST = 2.0, 3.0
"""Nats by which a token is lifted for each time that it came more often than expected, of which so many count."""

SURE = 0.8
"""How much of a bet is on the same uniform number, or on the likeliest token; the rest is on a right draw."""

ECHOES = (
    Named("draw", "the noise of the steps before, at a fixed distance"),
    Named("seed", "the noise of other requests, at a fixed distance"),
    Named("draw", "the likeliest token at regular steps"),
)
"""In the order of `Echoes.follow`."""


class _Numbers:
    """Where the uniform number of each drawn token of a run lay, tokens in two orders: (2, S, 2); 0 to 0 if unknown."""

    def __init__(self) -> None:
        self._found = np.zeros((2, 0, 2))

    def note(self, places: Places, step: Step, drawn: Places) -> None:
        """Those of T steps at these places."""
        more = max(int(places.max()) + 1 - self._found.shape[1], 0)
        self._found = np.pad(self._found, ((0, 0), (0, more), (0, 0)))
        both = (step.rank_edges, step.id_edges)
        self._found[:, places] = np.array([[_at(edge, drawn) for edge in edges] for edges in both]).transpose(0, 2, 1)

    def at(self, places: Places) -> Array:
        """(2, ..., 2) at places (...), of which some may be outside."""
        size = self._found.shape[1]
        if not size:
            return np.zeros((2, *places.shape, 2))
        inside = (places >= 0) & (places < size)
        return np.where(inside[..., None], self._found[:, np.clip(places, 0, size - 1)], 0.0)


def _as_numbered(numbers: Array, step: Step) -> Array:
    """Bets that the uniform numbers of T steps lie in given intervals (2, E, T, 2): (2 E, T, K)."""
    found = []
    for (begin, end), own in zip((step.rank_edges, step.id_edges), numbers, strict=True):
        inside = np.minimum(end, own[..., 1:]) - np.maximum(begin, own[..., :1])
        inside = np.where((step.p > 0) & (inside > 0), inside, 0.0)
        total = inside.sum(axis=-1, keepdims=True)
        known = SURE * (total > 0)
        found.append(known * inside / np.where(total > 0, total, 1.0) + (1 - known) * step.p)
    return np.concatenate(found)


class _Mixture:
    """Bets with the logarithms of what each has won so far."""

    def __init__(self, count: int) -> None:
        self._logs = np.zeros(count)

    def follow(self, bets: Array, p: Array, drawn: Places) -> Array:
        """From bets (E, T, K) and p (T, K) the mixture (T, K) as it is before each step. All are added."""
        with np.errstate(divide="ignore"):
            gains = np.log(_at(bets, drawn) / _at(p, drawn))
        return np.asarray(np.einsum("et,etk->tk", self.shares(gains), bets))

    def shares(self, gains: Array) -> Array:
        """The shares (E, T) of the bets before each of T steps with these gains (E, T), which are added."""
        logs = np.cumsum(np.concatenate([self._logs[:, None], gains], axis=-1), axis=-1)
        logs -= logs.max(axis=0)
        self._logs = logs[:, -1]
        shares = np.exp(logs[:, :-1])
        return np.asarray(shares / shares.sum(axis=0))


class _Sums:
    """Of the tokens of one place: how much more often each came than expected, a row for each turn of RUNS_BACK."""

    def __init__(self) -> None:
        self._columns: dict[int, int] = {}
        self.sums = np.zeros((sum(RUNS_BACK), 16))

    def columns(self, tokens: Sequence[int]) -> list[int]:
        """Where the sums of tokens stand; those that are new get a place."""
        known = self._columns
        found = [known.setdefault(token, len(known)) for token in tokens]
        lacking = len(known) - self.sums.shape[1]
        if lacking > 0:
            self.sums = np.pad(self.sums, ((0, 0), (0, max(lacking, self.sums.shape[1]))))
        return found


@dataclass
class Echoes:
    """Of the runs of one config; `begin` comes before each of them."""

    _runs: int = 0
    _run: _Numbers = field(default_factory=_Numbers)
    _earlier: deque[_Numbers] = field(default_factory=lambda: deque(maxlen=max(RUNS_BACK)))
    _surplus: dict[int, _Sums] = field(default_factory=lambda: defaultdict(_Sums))
    _within: _Mixture = field(default_factory=lambda: _Mixture(2 * len(STEPS_BACK)))
    _across: _Mixture = field(default_factory=lambda: _Mixture(3 * len(RUNS_BACK)))
    _regular: _Mixture = field(default_factory=lambda: _Mixture(sum(PERIODS) + 1))

    def begin(self) -> None:
        """A further run."""
        self._earlier.appendleft(self._run)
        self._run, self._runs = _Numbers(), self._runs + 1

    def follow(self, places: Places, step: Step, drawn: Places) -> Array:
        """What the bets of ECHOES are on at T steps of the run with these places, (3, T, K). The steps are added."""
        self._run.note(places, step, drawn)
        within = _as_numbered(self._run.at(places - np.array(STEPS_BACK)[:, None]), step)
        earlier = [self._earlier[back - 1] if back <= len(self._earlier) else _Numbers() for back in RUNS_BACK]
        numbered = _as_numbered(np.stack([run.at(places) for run in earlier], axis=1), step)
        across = np.concatenate([numbered, self._lifted(places, step, drawn)])
        return np.stack(
            [
                self._within.follow(within, step.p, drawn),
                self._across.follow(across, step.p, drawn),
                self._at_regular_steps(places, step, drawn),
            ]
        )

    def _lifted(self, places: Places, step: Step, drawn: Places) -> Array:
        """Where every so many runs have the same noise: tokens lifted as they came too often in those, (E, T, K)."""
        surplus = np.zeros((len(RUNS_BACK), *step.p.shape))
        own = FIRST_ROWS + self._runs % np.array(RUNS_BACK)
        counts = (step.p > 0).sum(axis=-1).tolist()
        for row, (place, count) in enumerate(zip(places.tolist(), counts, strict=True)):
            known = self._surplus[place]
            at = own[:, None], known.columns(step.ids[row, :count].tolist())
            surplus[:, row, :count] = sums = known.sums[at]
            sums -= step.p[row, :count]
            sums[:, drawn[row]] += 1
            known.sums[at] = sums
        lifted = step.p * np.exp(LIFT * np.clip(surplus, -MOST, MOST))
        return np.asarray(lifted / lifted.sum(axis=-1, keepdims=True))

    def _at_regular_steps(self, places: Places, step: Step, drawn: Places) -> Array:
        wrong = SURE * step.is_best + (1 - SURE) * step.p
        taken = np.concatenate([places % period == np.arange(period)[:, None] for period in PERIODS])
        taken = np.concatenate([taken, [places == 0]])
        gain = np.log(_at(wrong, drawn) / _at(step.p, drawn))
        share = (self._regular.shares(taken * gain) * taken).sum(axis=0)[:, None]
        return np.asarray(share * wrong + (1 - share) * step.p)


def _at(values: Array, drawn: Places) -> Array:
    """The values (..., T) of the drawn tokens, from (..., T, K)."""
    return np.asarray(values[..., np.arange(len(drawn)), drawn])
