"""What a fix does to the runs of a log."""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sampler.checks.longform.runs import STEPS, TokenRun
from sampler.requests import StopReason

Fix = Literal["offset", "padding", "bos", "prefix", "eos"]
FIXES: Final[tuple[Fix, ...]] = ("offset", "padding", "bos", "prefix", "eos")
"""What can be put right, in the order in which it is looked for."""


@dataclass(frozen=True)
class Edit:
    """What is done to one run, in the order of the fields.

    shift: taken off all ids, except off a last one that is in `spared`. first, last: tokens[first:last] are kept. end:
    a token behind them, -1 for none. stop_reason: another one, or None.
    """

    shift: int = 0
    spared: tuple[int, ...] = ()
    first: int = 0
    last: int | None = None
    end: int = -1
    stop_reason: StopReason | None = None

    def tokens(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens of a run, edited. Tokens below 0, which were left out, stay."""
        if self.shift:
            moved = tuple(token if token < 0 else max(0, token - self.shift) for token in tokens)
            tokens = (*moved[:-1], *tokens[-1:]) if tokens[-1:] and tokens[-1] in self.spared else moved
        kept = tokens[self.first : self.last]
        return (*kept, self.end) if self.end >= 0 else kept

    @property
    def lengthens(self) -> bool:
        """Whether the run has a token more, of which no measures are known."""
        return self.end >= 0 and self.last is None

    @property
    def steps(self) -> slice:
        """The steps whose measures are kept."""
        return slice(self.first, None if self.end >= 0 else self.last)

    def run(self, run: TokenRun) -> TokenRun:
        """A run, edited, with the measures of the steps that are left."""
        names = [name for name in STEPS if getattr(run, name) is not None]
        kept: dict[str, Any] = {name: None if self.lengthens else getattr(run, name)[self.steps] for name in names}
        return replace(run, tokens=self.tokens(run.tokens), stop_reason=self.stop_reason or run.stop_reason, **kept)
