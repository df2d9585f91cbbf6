"""Whether drawn tokens follow the distribution that the chain makes of given logits: bets on other ways to draw."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from sampler.checks.scoring.alternatives import (
    FACTORS,
    LIFTS,
    TILTS,
    looser_configs,
    other_configs,
)
from sampler.checks.scoring.memory import Memories, Memory, Step
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.other_chains import OtherChains, among
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.checks.verdict import Finding
from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps
from sampler.statistics.bets import LEAST_ERROR, Bets
from sampler.statistics.chi import distance_by

Mask = NDArray[np.bool_]

REQUIRED = 0.5
"""The relative change of the temperature that `passed` has to detect: half of it, or twice."""

UNIT = "relative change of the temperature"


class Block(NamedTuple):
    """Steps of one run, and which tokens each of them must and may keep, bool (T, V).

    rare: how many drawn tokens lie beyond each edge of the tolerance that has a rate.
    """

    steps: Steps
    must: Mask
    may: Mask
    rare: Sequence[int] = ()


class _Sure(NamedTuple):
    """Steps that are bet on: their rows in the block, and the places in `step` of the drawn tokens, (T,) each.

    others: the probabilities that other chains give, (A, T, K).
    """

    rows: NDArray[np.int64]
    step: Step
    drawn: NDArray[np.int64]
    others: NDArray[np.float64]


@dataclass
class Wagers:
    """Bets on other temperatures, penalties, filters, EOS and reused noise: right draws make none of them rich.

    config: of all runs. rounding: relative error of the logits beyond float32, which widens what a right engine may
    draw (Bets.place). tolerance: the precision class; if it has a slack, the errors of `reference` are typical ones.
    said: how the tokens were drawn, for messages. runs, outside: of the runs so far, and of their tokens that no
    reading of the chain keeps.

    Each bet is on the token given that it is one that the chain keeps for sure; others are not for bets to judge.
    """

    config: SamplingConfig
    alpha: float
    reference: Explains
    rounding: float = 0.0
    tolerance: Tolerance = SINGLE
    said: str = "it draws with noise of its own"
    runs: int = 0
    outside: int = 0
    names: list[Named] = field(init=False)
    bets: Bets = field(init=False)
    _configs: list[SamplingConfig] = field(init=False)
    _steps: dict[int, Memory] = field(default_factory=lambda: defaultdict(Memory))
    _cell: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        others = list(other_configs(self.config))
        self._configs = [config for _, config in others]
        self.names = [*(named for named, _ in others), *(named for named, _ in TILTS)]
        rates = tuple(each.rate for each in self.tolerance.beyond)
        self.bets = Bets(len(self.names), self.tolerance.slack, rates)
        self.names += [each.named for each in self.tolerance.beyond]

    def add(self, run: Iterable[Block]) -> None:
        """A further run, with the same config."""
        memories = Memories(cell=self._cell)
        for block in run:
            steps, may = block.steps, block.may
            self.outside += int((~may[np.arange(len(steps.tokens)), steps.tokens]).sum())
            sure = self._sure(block)
            if sure is not None:
                memories.runs = [self._steps[len(steps.history[row])] for row in sure.rows.tolist()]
                pasts = memories.follow(sure.step, sure.drawn)
                q = np.concatenate([sure.others, [tilt(sure.step, pasts) for _, tilt in TILTS]])
                kappa = distance_by(sure.step.p, np.asarray(sure.step.error)) if self.tolerance.slack else None
                self.bets.place(sure.step.p, q, sure.drawn, sure.step.error, kappa)
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
        places = np.argsort(~sure[rows], axis=-1, kind="stable")[:, : counts[rows].max()]
        real = np.arange(places.shape[-1]) < counts[rows, None]
        scores, error = (np.take_along_axis(values, chains.ids, axis=-1) for values in (final.scores, final.error))
        ids, scores, error, is_drawn = (
            np.take_along_axis(values[rows], places, axis=-1) for values in (chains.ids, scores, error, is_drawn)
        )
        p = softmax(np.where(real, scores, -np.inf), axis=-1)
        ends = steps.context.eos_ids if steps.context else ()
        error = error + max(LEAST_ERROR, self.rounding)
        step = Step(ids, p, np.isin(ids, ends) & real, error)
        found = (chains.scores(config) for config in self._configs)
        others = np.array([np.take_along_axis(of[rows], places, axis=-1) for of in found])
        return _Sure(rows, step, is_drawn.argmax(axis=-1), among(others, p))

    @property
    def rejected(self) -> bool:
        return self.bets.judge(self.alpha).rejected

    @property
    def detected(self) -> NDArray[np.bool_]:
        """Which alternatives, in the order of `names`, would have been rejected 99 times in 100."""
        return self.bets.detected(self.alpha)

    @property
    def settled(self) -> bool:
        """Whether more runs are not worth while: the required change is detected, and no bet has grown."""
        return bool(self.bets.wealth <= 0) and 1 - 1 / (self._smallest("temperature", FACTORS) or np.inf) <= REQUIRED

    def finding(self) -> Finding:
        judged, best = self.bets.judge(self.alpha), self.names[self.bets.best]
        factor, lift = self._smallest("temperature", FACTORS), self._smallest("EOS", LIFTS)
        said = self.said
        if judged.rejected:
            message = (
                f"{said}, not from the chain's distribution: with {best.text} its {judged.n} tokens are "
                f"e^{self.bets.logs[self.bets.best].max():.1f} times as likely (e^{judged.bound:.1f} is proof, over "
                f"{len(self.names)} alternatives)"
            )
        else:
            temperature = f"a temperature {factor:g} times off" if factor else "no temperature"
            eos = f"EOS {lift:g} nats off" if lift else "no EOS"
            message = (
                f"{said}: {judged.n} tokens of {self.runs} runs fit the chain's distribution; they detect "
                f"{temperature}, {eos}"
            )
        stage = best.stage if judged.rejected else "draw"
        detectable = 1 - 1 / factor if factor else 1.0
        figures: dict[str, Any] = {"alpha": self.alpha, "detectable": detectable, "required": REQUIRED, "unit": UNIT}
        return Finding.of_test("draw", stage, judged, message, **figures)

    def _smallest(self, family: str, sizes: Sequence[float]) -> float:
        """The smallest size that is detected in both directions, as are all above it; 0 if there is none."""
        smallest = 0.0
        for size in sorted(sizes, reverse=True):
            both = (1 / size, size) if family == "temperature" else (-size, size)
            found = [
                bool(seen)
                for named, seen in zip(self.names, self.detected, strict=True)
                if named.family == family and any(np.isclose(named.size, one) for one in both)
            ]
            if len(found) < 2 or not all(found):
                break
            smallest = size
        return smallest


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
