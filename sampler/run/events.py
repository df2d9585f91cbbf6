"""What happens in a run, for whoever writes, shows or judges it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sampler.checks.verdict import Outcome, Verdict, worst
from sampler.matrix.matrix import Case
from sampler.requests import Generation, Request, Steps


@dataclass(frozen=True)
class CaseResult:
    """What became of one cell, or of cells that are asked together. steps: by check, the step that shows its failure.

    tokens: drawn, repeats included. requests, generations: what was asked and answered, without logits.
    """

    case: Case
    verdicts: tuple[Verdict, ...]
    steps: Mapping[str, Steps]
    tokens: int
    seconds: float
    requests: Sequence[Request] = ()
    generations: Sequence[Generation] = ()

    @property
    def outcome(self) -> Outcome:
        return worst(verdict.outcome for verdict in self.verdicts)


@dataclass(frozen=True)
class Started:
    """The run begins. header: what its file says first. requests: how many will be served, repeats included."""

    header: Mapping[str, Any]
    requests: int


@dataclass(frozen=True)
class CellStarted:
    """A cell is generated now, or is the first of those that are generated together."""

    cell: str


@dataclass(frozen=True)
class Progress:
    """A step was made: tokens that were drawn, requests that were finished in it."""

    tokens: int
    finished: int


@dataclass(frozen=True)
class Judged:
    """A cell, or cells that are asked together, have their verdicts."""

    result: CaseResult


@dataclass(frozen=True)
class Finished:
    """Everything has its verdict. tokens: drawn in all; seconds: since the start."""

    verdicts: Sequence[Verdict]
    tokens: int
    seconds: float


Event = Started | CellStarted | Progress | Judged | Finished
Emit = Callable[[Event], None]


def progress(emit: Emit) -> Callable[[int, int], None]:
    """What a generation calls after each step."""
    return lambda tokens, finished: emit(Progress(tokens, finished))


class Sink(Protocol):
    """Takes the events of a run in their order."""

    def take(self, event: Event) -> None:
        """Take one; events that it does not know are none of its business."""
        ...
