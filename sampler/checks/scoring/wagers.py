"""Whether drawn tokens follow the distribution that the chain makes of given logits: bets on other ways to draw."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from sampler.checks.scoring.alternatives import TILTS, looser_configs, other_configs
from sampler.checks.scoring.calibration import Calibration
from sampler.checks.scoring.echoes import ECHOES, Echoes
from sampler.checks.scoring.excluded import Alternative, in_words, sizes_excluded
from sampler.checks.scoring.memory import Memories, Memory, Step
from sampler.checks.scoring.named import TEMPERATURE, Named
from sampler.checks.scoring.other_chains import OtherChains, among, shares
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.checks.verdict import Finding
from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps
from sampler.statistics.bets import LEAST_ERROR, Bets, Shares
from sampler.statistics.chi import distance_by

Mask = NDArray[np.bool_]

REQUIRED = 0.5
"""The relative change of the temperature that `passed` has to detect: half of it, or twice."""

UNIT = "relative change of the temperature"


class Block(NamedTuple):
    """Steps of one run, and which tokens each of them must and may keep, bool (T, V).

    rare: how many drawn tokens lie beyond each edge of the tolerance that has a rate. networks: the same steps with the
    logits of other networks, those that are bet on.
    """

    steps: Steps
    must: Mask
    may: Mask
    rare: Sequence[int] = ()
    networks: Mapping[Named, Steps] = MappingProxyType({})


class _Sure(NamedTuple):
    """Steps that are bet on: their rows in the block, and the places in `step` of the drawn tokens, (T,) each.

    others: the probabilities that other chains give, then other networks, (A, T, K). shares: of what those draw.
    """

    rows: NDArray[np.int64]
    step: Step
    drawn: NDArray[np.int64]
    others: NDArray[np.float64]
    shares: Shares


@dataclass
class Wagers:
    """Bets on other temperatures, penalties, filters, EOS and reused noise: right draws make none of them rich.

    config: of all runs. networks: those that blocks may have logits of. rounding: relative error of the logits beyond
    float32, which widens what a right engine may draw (Bets.place). tolerance: the precision class; if it has a slack,
    the errors of `reference` are typical ones. said: how the tokens were drawn, for messages. required: what `passed`
    has to detect; None: anything at all. runs, tokens: numbers of those so far. outside: of the tokens that no reading
    of the chain keeps. calibration: of the tokens that are bet on.

    Each bet is on the token given that it is one that the chain keeps for sure; others are not for bets to judge.
    """

    config: SamplingConfig
    alpha: float
    reference: Explains
    rounding: float = 0.0
    tolerance: Tolerance = SINGLE
    said: str = "it draws with noise of its own"
    networks: Sequence[Named] = ()
    required: float | None = REQUIRED
    runs: int = 0
    outside: int = 0
    tokens: int = 0
    names: list[Named] = field(init=False)
    bets: Bets = field(init=False)
    calibration: Calibration = field(default_factory=Calibration)
    _configs: list[SamplingConfig] = field(init=False)
    _places: list[int] = field(default_factory=list)
    _steps: dict[int, Memory] = field(default_factory=lambda: defaultdict(Memory))
    _cell: Memory = field(default_factory=Memory)
    _echoes: Echoes = field(default_factory=Echoes)

    def __post_init__(self) -> None:
        others = list(other_configs(self.config))
        self._configs = [config for _, config in others]
        self.names = [*(named for named, _ in others), *self.networks, *(named for named, _ in TILTS), *ECHOES]
        rates = tuple(each.rate for each in self.tolerance.beyond)
        self.bets = Bets(len(self.names), self.tolerance.slack, rates)
        self.names += [each.named for each in self.tolerance.beyond]

    def add(self, run: Iterable[Block]) -> None:
        """A further run, with the same config."""
        memories = Memories(cell=self._cell)
        self._echoes.begin()
        for block in run:
            steps, may = block.steps, block.may
            self.outside += int((~may[np.arange(len(steps.tokens)), steps.tokens]).sum())
            sure = self._sure(block)
            if sure is not None:
                places = np.array([len(steps.history[row]) for row in sure.rows.tolist()])
                memories.runs = [self._steps[place] for place in places.tolist()]
                pasts = memories.follow(sure.step, sure.drawn)
                self.calibration.add(sure.step, sure.drawn)
                tilted = [tilt(sure.step, pasts) for _, tilt in TILTS]
                q = np.concatenate([sure.others, tilted, self._echoes.follow(places, sure.step, sure.drawn)])
                kappa = distance_by(sure.step.p, np.asarray(sure.step.error)) if self.tolerance.slack else None
                some = self.names[: self.bets.count]
                bets = [at for at, named in enumerate(some) if named in block.networks or named not in self.networks]
                self.bets.place(sure.step.p, q, sure.drawn, sure.step.error, kappa, shares=sure.shares, bets=bets)
                self._places += (self.tokens + sure.rows).tolist()
            self.tokens += len(steps.tokens)
            if block.rare:
                self.bets.happened(block.rare, len(steps.tokens))
        self.runs += 1

    def _sure(self, block: Block) -> "_Sure | None":
        """The steps at which the drawn token is surely kept, and so is another one; None if there are none."""
        steps, final = block.steps, self.reference.last(block.steps)
        chains = OtherChains.of(steps, block.must, final.scores, self.reference)
        sure = np.take_along_axis(block.must, chains.ids, axis=-1)
        counts, is_drawn = sure.sum(axis=-1), sure & (chains.ids == steps.tokens[:, None])
        rows = np.flatnonzero((counts > 1) & is_drawn.any(axis=-1))
        if not len(rows):
            return None
        at = rows[:, None], np.argsort(~sure[rows], axis=-1, kind="stable")[:, : counts[rows].max()]
        real = np.arange(at[1].shape[-1]) < counts[rows, None]
        ids, is_drawn = chains.ids[at], is_drawn[at]
        scores, error = (values[at[0], ids] for values in (final.scores, final.error))
        p = softmax(np.where(real, scores, -np.inf), axis=-1)
        ends = steps.context.eos_ids if steps.context else ()
        error = error + max(LEAST_ERROR, self.rounding)
        step = Step(ids, p, np.isin(ids, ends) & real, error)
        found = [chains.scores(config) for config in self._configs]
        asked = (block.networks[named] for named in self.networks if named in block.networks)
        found += [chains.under(network).scores(self.config) for network in asked]
        others = np.array([of[at] for of in found])
        may = np.take_along_axis(block.may[rows], chains.ids[rows], axis=-1)
        drawn = shares(np.array([of[rows] for of in found]), sure[rows], may, len(TILTS) + len(ECHOES))
        return _Sure(rows, step, is_drawn.argmax(axis=-1), among(others, p), drawn)

    @property
    def rejected(self) -> bool:
        return self.bets.judge(self.alpha).rejected

    @property
    def enough(self) -> int | None:
        """How many of the tokens had been enough to reject; None if all are not. Those without a bet count too."""
        steps = self.bets.enough(self.alpha)
        return None if steps is None else self._places[steps - 1] + 1

    @property
    def history(self) -> tuple[list[int], NDArray[np.float64]]:
        """After some numbers of tokens, (N,), logarithms of the wealth of each bet and of the mean, (N, A + 1)."""
        kept = self.bets.history
        return [self._places[step - 1] + 1 for step in kept.steps], np.array(kept.values)

    @property
    def detected(self) -> NDArray[np.bool_]:
        """Which alternatives, in the order of `names`, would have been rejected 99 times in 100."""
        return self.bets.detected(self.alpha)

    @property
    def settled(self) -> bool:
        """Whether more runs are not worth while: the required change is detected, and no bet has grown."""
        return bool(self.bets.wealth <= 0) and self.detectable <= (self.required or REQUIRED)

    @property
    def detectable(self) -> float:
        """The smallest relative change of the temperature that is detected up and down; 1 if there is none."""
        known = self.alternatives
        up, down = (sizes_excluded(known, TEMPERATURE, upwards=upwards) for upwards in (True, False))
        return max(1 - 1 / up[-1], 1 - down[-1]) if up and down else 1.0

    @property
    def alternatives(self) -> list[Alternative]:
        """What the tokens say of each alternative that was bet on. needed: in tokens like the ones so far."""
        needed = self.bets.needed(self.alpha) * (self.tokens / max(self.bets.n, 1))
        found = zip(self.names, self.detected.tolist(), needed.tolist(), self.bets.placed, strict=True)
        return [Alternative(named, seen, more) for named, seen, more, placed in found if placed]

    def finding(self) -> Finding:
        if not self.bets.n:
            why = "no token was drawn from more than one, so that there is nothing to bet on"
            return Finding.skipped("draw", "draw", "no_method", why, alpha=self.alpha)
        judged, best = self.bets.judge(self.alpha), self.names[self.bets.best]
        if judged.rejected:
            message = (
                f"{self.said}, not from the chain's distribution: with {best.text} its {judged.n:,} tokens are "
                f"e^{self.bets.logs[self.bets.best].max():.1f} times as likely (e^{judged.bound:.1f} is proof, over "
                f"{len(self.names)} alternatives; {self.enough:,} tokens were enough)"
            )
        else:
            message = f"{self.said}: {judged.n:,} tokens of {self.runs} runs fit the chain's distribution; "
            message += in_words(self.alternatives, self.config.temperature)
        stage = best.stage if judged.rejected else "draw"
        figures: dict[str, Any] = {
            "alpha": self.alpha,
            "detectable": self.detectable,
            "unit": UNIT,
        }
        if self.required is not None:
            figures["required"] = self.required
        elif self.detectable == 1 and self.detected.any() and not judged.rejected:  # of other things than temperatures
            figures = {"statistic": judged.statistic, "bound": judged.bound, "p_value": judged.p_value}
            return Finding("draw", "draw", "passed", judged.n, message, alpha=self.alpha, **figures)
        return Finding.of_test("draw", stage, judged, message, **figures)


def log_likelihoods(steps: Steps, reference: Explains) -> NDArray[np.float64]:
    """Of each drawn token, every threshold read generously; -inf if it cannot be drawn."""
    scores = reference.last(steps, "generous").scores
    return np.asarray(log_softmax(scores, axis=-1)[np.arange(len(steps.tokens)), steps.tokens])


def likeliest(config: SamplingConfig, runs: Iterable[Steps], reference: Explains) -> Named | None:
    """The other chain, of those that can draw every token, under which the runs are most likely; None if there is none.

    Among the others are those that keep more, and those that lack one stage.
    """
    totals = dict.fromkeys([*looser_configs(config), *other_configs(config)], 0.0)
    for steps in runs:
        for name, other in list(totals):
            totals[name, other] += float(log_likelihoods(steps.with_config(other), reference).sum())
    best = max(totals, key=lambda pair: totals[pair], default=None)
    return best[0] if best is not None and np.isfinite(totals[best]) else None
