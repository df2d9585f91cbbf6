"""The events of a run, for sinks that write, show or judge it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sampler.checks.scoring.summary import ScoreSummary
from sampler.checks.verdict import Outcome, Verdict, worst
from sampler.matrix.matrix import Case
from sampler.requests import Generation, Request, Steps


@dataclass(frozen=True)
class CaseResult:
    """The result of one cell, or of a group of cells. steps: by check, the step that shows its failure.

    tokens: drawn, repeats included. requests, generations: those of the cell, without logits. scored: what pictures
    show of them under the engine's model.
    """

    case: Case
    verdicts: tuple[Verdict, ...]
    steps: Mapping[str, Steps]
    tokens: int
    seconds: float
    requests: Sequence[Request] = ()
    generations: Sequence[Generation] = ()
    scored: ScoreSummary | None = None

    @property
    def outcome(self) -> Outcome:
        return worst(verdict.outcome for verdict in self.verdicts)


@dataclass(frozen=True)
class Started:
    """The run begins. header: first line of its file. requests: number to be served, repeats included."""

    header: Mapping[str, Any]
    requests: int


@dataclass(frozen=True)
class CellStarted:
    """A cell, or the first of several cells that are generated together, begins."""

    cell: str


@dataclass(frozen=True)
class Progress:
    """A step is done: numbers of drawn tokens and of finished requests."""

    tokens: int
    finished: int


@dataclass(frozen=True)
class Judged:
    """A cell or a group of cells has its verdicts."""

    result: CaseResult


@dataclass(frozen=True)
class Finished:
    """All verdicts are known. tokens: drawn in all; seconds: since the start."""

    verdicts: Sequence[Verdict]
    tokens: int
    seconds: float


Event = Started | CellStarted | Progress | Judged | Finished
Emit = Callable[[Event], None]


def progress(emit: Emit) -> Callable[[int, int], None]:
    """A callback that generation calls after each step."""
    return lambda tokens, finished: emit(Progress(tokens, finished))


class Sink(Protocol):
    """Takes the events of a run in order and ignores those that it does not need."""

    def take(self, event: Event) -> None: ...
