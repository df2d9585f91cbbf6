"""What counts as a loop: thresholds as data. Pauses and sustained sounds also repeat tokens, and are no loops."""

import math
from dataclasses import dataclass
from functools import cached_property

from sampler.errors import RuleError
from sampler.loops.loop import LoopKind

ROUNDING = 1e-9
"""Tolerance of shares and entropies, since decimal fractions are not exact in binary."""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RuleError(f"{name} = {value!r}", hint=f"expected a whole number, at least {least}")


@dataclass(frozen=True)
class LoopRule:
    """How often a pattern must repeat.

    min_pattern_size, max_pattern_size: tokens of the pattern, at least 1. min_count: its copies, at least 2. These are
    the fields of vLLM's `RepetitionDetectionParams` (vllm/sampling_params.py), and `LoopRule(1, max_pattern_size,
    min_count)` detects a loop at the same token as vLLM's `check_sequence_repetition`. min_tokens: least number of
    tokens of all copies, of which the last may be incomplete. substitutions: share of the tokens after the first copy
    that may differ from the token one pattern earlier, in [0, 1), except for the first and the last of them.

    A stretch is judged by its smallest pattern: one that repeats a shorter pattern, within the allowed substitutions,
    is left to the rule of the shorter size. So a pause is never a cycle of 2 tokens. Raises RuleError for a threshold
    out of range.
    """

    min_pattern_size: int
    max_pattern_size: int
    min_count: int
    min_tokens: int = 0
    substitutions: float = 0.0

    def __post_init__(self) -> None:
        _whole("min_pattern_size", self.min_pattern_size, 1)
        _whole("max_pattern_size", self.max_pattern_size, self.min_pattern_size)
        _whole("min_count", self.min_count, 2)
        _whole("min_tokens", self.min_tokens, 0)
        if not (_number(self.substitutions) and 0 <= self.substitutions < 1):
            raise RuleError(f"substitutions = {self.substitutions!r}", hint="expected a number from 0 to less than 1")

    @property
    def sizes(self) -> range:
        return range(self.min_pattern_size, self.max_pattern_size + 1)

    def extent(self, size: int) -> int:
        """Tokens of the shortest loop with patterns of `size`."""
        return max(size * self.min_count, self.min_tokens)

    def compared(self, size: int) -> int:
        """Tokens of that loop that are compared with the one a pattern earlier."""
        return self.extent(size) - size

    def allowed(self, size: int) -> int:
        """The number of them that may be substitutions."""
        return math.floor(self.substitutions * self.compared(size) + ROUNDING)

    def kind(self, size: int) -> LoopKind:
        if self.substitutions:
            return "near_cycle"
        return "run" if size == 1 else "cycle"


@dataclass(frozen=True)
class LowEntropyRule:
    """The empirical entropy of the last `window` tokens is at most `bits`.

    window: at least 2 tokens. bits: from 0 to less than log2(window), the largest possible entropy. Raises
    RuleError for a threshold out of range.
    """

    window: int = 100
    bits: float = 2.0

    def __post_init__(self) -> None:
        _whole("window", self.window, 2)
        if not (_number(self.bits) and 0 <= self.bits < math.log2(self.window)):
            raise RuleError(
                f"bits = {self.bits!r} for a window of {self.window} tokens",
                hint=f"expected a number from 0 to less than {math.log2(self.window):.3g}",
            )


RUN = LoopRule(1, 1, 25)
CYCLE = LoopRule(2, 64, 4, min_tokens=25)
NEAR_CYCLE = LoopRule(1, 64, 4, min_tokens=50, substitutions=0.25)


@dataclass(frozen=True)
class LoopRules:
    """All rules for loops; a guard answers with the first one that detects a loop.

    The defaults are for speech tokens, 25 a second: one token or a cycle for one second, or a cycle with a quarter of
    substitutions for two seconds, with at least four copies; or four seconds with no more variety than four alternating
    tokens. Raises RuleError without any rule.
    """

    cycles: tuple[LoopRule, ...] = (RUN, CYCLE, NEAR_CYCLE)
    low_entropy: LowEntropyRule | None = LowEntropyRule()

    def __post_init__(self) -> None:
        if not self.cycles and self.low_entropy is None:
            raise RuleError("no rule at all", hint="expected a LoopRule or a LowEntropyRule")

    @cached_property
    def largest(self) -> int:
        """Tokens of the largest pattern; 0 without one."""
        return max((rule.max_pattern_size for rule in self.cycles), default=0)

    @cached_property
    def compared(self) -> int:
        """The largest distance over which a rule compares."""
        return max((rule.compared(size) for rule in self.cycles for size in rule.sizes), default=0)
