"""What a check is: one question put to an engine for a case, answered by a verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Engine, Explains, Generation, Level, Request

Outcome = Literal["passed", "failed", "errored", "unavailable"]
OUTCOMES: tuple[Outcome, ...] = ("errored", "failed", "unavailable", "passed")
"""From the worst to the best; a cell has the worst outcome of its checks."""


@dataclass(frozen=True)
class Verdict:
    """The answer of one check. case: matrix/cell/check. stage: of the chain, or draw, order, stop, seed, batch, purity.

    n: how many observations it rests on. statistic, bound: what was measured and what is allowed. alpha: the false
    alarm rate, None for an exact check. detectable: the smallest discrepancy that would have failed, None where any
    single observation would.
    """

    case: str
    level: Level
    check: str
    stage: str
    outcome: Outcome
    n: int
    statistic: float | None = None
    bound: float | None = None
    alpha: float | None = None
    detectable: float | None = None
    message: str = ""
    reproduce: str = ""


@dataclass(frozen=True)
class Step:
    """One step of one run, complete: what a crash file holds.

    logits, uncond_logits, gumbel: float32 (V,). scores: what the engine made of them, if that is what is wrong.
    """

    config: SamplingConfig
    history: tuple[int, ...]
    logits: NDArray[np.float32]
    uncond_logits: NDArray[np.float32] | None
    gumbel: NDArray[np.float32]
    token: int
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Finding:
    """A verdict without its case, and the step that shows the failure, if one step does."""

    level: Level
    stage: str
    outcome: Outcome
    n: int
    message: str
    statistic: float | None = None
    bound: float | None = None
    alpha: float | None = None
    detectable: float | None = None
    step: Step | None = None

    def verdict(self, case: str, check: str, reproduce: str) -> Verdict:
        """The verdict of a check for a case (`matrix/cell`); reproduce: the line that shows a failure again."""
        return Verdict(
            case=f"{case}/{check}",
            level=self.level,
            check=check,
            stage=self.stage,
            outcome=self.outcome,
            n=self.n,
            statistic=self.statistic,
            bound=self.bound,
            alpha=self.alpha,
            detectable=self.detectable,
            message=self.message,
            reproduce=reproduce if self.outcome in ("failed", "errored") else "",
        )


@dataclass(frozen=True)
class Prospect:
    """What a group of cells of a long-form matrix will see. reference: how many runs that has of the group's texts.

    share: of runs that never end, at which that is seen; superiority: of an engine's runs over the reference's;
    incomplete: share of a cell's runs that are not whole at which that is seen by itself, None for several cells.
    Without ties, and of a reference that has no such runs. 1.0: nothing is seen.
    """

    name: str
    runs: int
    reference: int
    share: float
    superiority: float
    incomplete: float | None


@dataclass(frozen=True)
class Evidence:
    """What the checks of a cell look at.

    reference: the chain in float64. oracle: an engine that others wrote (HuggingFace), or None and why it is missing.
    alone: request 0 again, by itself, in the same slot, twice. prefix: ids that the history of every run begins with
    (BOS, as upstream's penalty sees it). other_noise: generates request 0 alone with noise of another key; other_seed:
    with another seed as well. exact: the engine promises equal bits, not only equal tokens, for equal requests.
    """

    engine: Engine
    reference: Explains
    oracle: Engine | None
    oracle_missing: str
    requests: Sequence[Request]
    generations: Sequence[Generation]
    alone: Sequence[Generation] = ()
    prefix: tuple[int, ...] = ()
    other_noise: Callable[[], Generation] | None = None
    other_seed: Callable[[], Generation] | None = None
    exact: bool = True
    known: dict[tuple[int, int], tuple[NDArray[np.uint8], ...]] = field(default_factory=dict)
    """What the reference said of some steps (request, first step), for the checks that come after."""

    def ignores_noise(self) -> bool:
        """Whether other noise makes no difference to an engine that should draw at random."""
        return self._same_with(self.other_noise)

    def ignores_seed(self) -> bool:
        """Whether another seed and other noise make no difference to an engine that should draw at random."""
        return self._same_with(self.other_seed)

    def _same_with(self, other: Callable[[], Generation] | None) -> bool:
        if other is None or self.requests[0].config.greedy or not self.alone:
            return False
        return other().tokens == self.alone[0].tokens


def some_ids(ids: Sequence[int] | NDArray[np.int64], most: int = 6) -> str:
    """A set of ids, cut off where it grows long."""
    shown = ", ".join(str(token) for token in list(ids)[:most])
    return f"{{{shown}{', ...' if len(ids) > most else ''}}}"


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst outcome of several: errored, failed, unavailable, passed."""
    return min(outcomes, key=OUTCOMES.index)


@dataclass(frozen=True)
class Announced:
    """What one question can see. alpha: its share of the false alarms, None for an exact question.

    sees: the smallest discrepancy that is missed at most once in a hundred times, in `unit`; 1.0 if only the largest or
    none. asked: what `passed` needs to have seen.
    """

    question: str
    alpha: float | None
    sees: float
    asked: float | None
    unit: str

    @property
    def enough(self) -> bool:
        """Whether this question can say `passed`."""
        return self.asked is None or self.sees <= self.asked
