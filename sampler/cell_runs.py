"""What a long-form cell's engine did."""

from dataclasses import dataclass

from sampler.checks.base import Finding
from sampler.checks.runs import TokenRun
from sampler.engines.base import Generation, Request


@dataclass(frozen=True)
class CellRuns:
    """What a cell's engine did. shared: some runs with the reference's noise, or why there are none.

    problem: why it did nothing at all.
    """

    requests: tuple[Request, ...] = ()
    generations: tuple[Generation, ...] = ()
    runs: tuple[TokenRun, ...] = ()
    seconds: float = 0.0
    shared: tuple[TokenRun, ...] | str = ""
    problem: Finding | None = None

    @property
    def tokens(self) -> int:
        """Tokens drawn."""
        return sum(len(generation.tokens) for generation in self.generations)
