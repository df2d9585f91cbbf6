"""What counts as a loop: thresholds as data. Pauses and sustained sounds repeat tokens too, and are no loops."""

import math
from dataclasses import dataclass

from sampler.errors import RuleError
from sampler.loops.loop import LoopKind

ROUNDING = 1e-9
"""By how much a share or an entropy may be off; decimal fractions are no binary ones."""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RuleError(f"{name} = {value!r}", hint=f"expected a whole number, at least {least}")


@dataclass(frozen=True)
class LoopRule:
    """How often a pattern has to follow itself.

    min_pattern_size, max_pattern_size: tokens of the pattern, at least 1. min_count: its copies, at least 2. These are
    the fields of vLLM's `RepetitionDetectionParams` (vllm/sampling_params.py), and `LoopRule(1, max_pattern_size,
    min_count)` tells a loop at the token at which vLLM's `check_sequence_repetition` does. min_tokens: tokens that the
    copies have at least, the last one cut off anywhere. substitutions: share of the tokens after the first copy that
    may differ from the token one pattern earlier, in [0, 1); the first and the last of them may not.

    A stretch is judged by the smallest pattern that explains it: a pattern that repeats a shorter one, with as many
    substitutions as allowed, is left to the rule of the shorter size. So a pause never is a cycle of 2 tokens.
    Raises RuleError for a threshold out of range.
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
        """Tokens of that loop that have another one a pattern earlier."""
        return self.extent(size) - size

    def allowed(self, size: int) -> int:
        """How many of them may be substitutions."""
        return math.floor(self.substitutions * self.compared(size) + ROUNDING)

    def kind(self, size: int) -> LoopKind:
        if self.substitutions:
            return "near_cycle"
        return "run" if size == 1 else "cycle"


@dataclass(frozen=True)
class LowEntropyRule:
    """How few tokens may take turns: the empirical entropy of the last `window` tokens is at most `bits`.

    window: at least 2 tokens. bits: from 0 to less than log2(window), the most that so many tokens can have. Raises
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
    """All that counts as a loop; a guard answers with the first rule that tells one.

    The defaults are for speech tokens, 25 a second: one token or a cycle of one second, a cycle with a quarter of
    substitutions of two seconds, four copies at least; four seconds of no more variety than four tokens in turn. Raises
    RuleError where nothing counts as one.
    """

    cycles: tuple[LoopRule, ...] = (RUN, CYCLE, NEAR_CYCLE)
    low_entropy: LowEntropyRule | None = LowEntropyRule()

    def __post_init__(self) -> None:
        if not self.cycles and self.low_entropy is None:
            raise RuleError("no rule at all", hint="expected a LoopRule or a LowEntropyRule")

    @property
    def largest(self) -> int:
        """Tokens of the largest pattern; 0 without one."""
        return max((rule.max_pattern_size for rule in self.cycles), default=0)

    @property
    def compared(self) -> int:
        """How far back any rule compares."""
        return max((rule.compared(size) for rule in self.cycles for size in rule.sizes), default=0)
