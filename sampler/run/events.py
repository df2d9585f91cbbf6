"""What came of a cell: answers of its engine, then verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampler.checks.verdict import Outcome, Step, Verdict, worst
from sampler.engines.base import Generation, Request
from sampler.matrix.matrix import Case


@dataclass(frozen=True)
class CaseResult:
    """What became of one cell. steps: by check, the step that shows its failure. tokens: drawn, repeats included.

    requests, generations: what was asked and answered, without logits.
    """

    case: Case
    verdicts: tuple[Verdict, ...]
    steps: Mapping[str, Step]
    tokens: int
    seconds: float
    requests: Sequence[Request] = ()
    generations: Sequence[Generation] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the cell's checks."""
        return worst([verdict.outcome for verdict in self.verdicts])


@dataclass(frozen=True)
class Generated:
    """What a cell's engine was asked and answered. alone: request 0 again, twice. seconds: its share of the block's."""

    requests: Sequence[Request]
    generations: Sequence[Generation]
    alone: Sequence[Generation]
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens drawn, repeats included."""
        return sum(len(generation.tokens) for generation in (*self.generations, *self.alone))
