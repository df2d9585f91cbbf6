"""One watch per rule, which tests after every token whether a loop ends there."""

import math
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Self

from sampler.loops.loop import Loop, grown
from sampler.loops.matches import LagMatches
from sampler.loops.rules import ROUNDING, LoopRule, LowEntropyRule

ONE = 1 << 40
"""Terms of the entropy are whole multiples of 1 / ONE, so sums are exact however long the run."""


class Watch:
    """last: the loop that was detected last."""

    last: Loop | None = None

    def pass_over(self, count: int, since: int) -> None:
        """Go on by `count` tokens, which all belong to the last loop if a token from `since` on does."""
        if self.last is not None and self.last.end > since:
            self.last = self.last._replace(extent=self.last.extent + count)


class CycleWatch(Watch):
    """Detects a pattern that repeats often enough. A token costs nothing for sizes at which it does not match."""

    def __init__(self, rule: LoopRule) -> None:
        self._rule = rule
        self._limits = _limits(rule)

    def look(self, matches: LagMatches, matching: list[tuple[int, int]], step: int) -> Loop | None:
        """The loop that currently ends at token `step`; matching: the answer of `matches` for it."""
        for size, bits in matching:
            limits = self._limits.get(size)
            if limits and limits.loops(bits) and not any(limits.explains(matches.at(part)) for part in limits.shorter):
                self.last = grown(self.last, step, self._rule.kind(size), step + 1 - limits.extent, size)
                return self.last
        return None


@dataclass(frozen=True, slots=True)
class _Limits:
    """A rule for one size as bits. shorter: the proper divisors of the size."""

    extent: int
    oldest: int
    window: int
    needed: int
    shorter: tuple[int, ...]

    @classmethod
    def of(cls, rule: LoopRule, size: int) -> Self:
        compared = rule.compared(size)
        needed = compared - rule.allowed(size)
        shorter = tuple(part for part in range(1, size) if size % part == 0)
        return cls(rule.extent(size), 1 << (compared - 1), (1 << compared) - 1, needed, shorter)

    def loops(self, bits: int) -> bool:
        """Whether the first compared token matches, as the last one does, and enough of them do."""
        return bool(bits & self.oldest) and self.explains(bits)

    def explains(self, bits: int) -> bool:
        return (bits & self.window).bit_count() >= self.needed


@cache
def _limits(rule: LoopRule) -> dict[int, _Limits]:
    return {size: _Limits.of(rule, size) for size in rule.sizes}


class EntropyWatch(Watch):
    """Detects few alternating tokens. A token costs two counters and two sums, and once per loop a scan of the window.

    H = log2 n - sum(c log2 c) / n for counts c of n tokens: the entropy is low where that sum is large.
    """

    def __init__(self, rule: LowEntropyRule) -> None:
        size = rule.window
        self._size = size
        self._terms = [0, *(round(count * math.log2(count) * ONE) for count in range(1, size + 1))]
        self._least = math.ceil(size * (math.log2(size) - rule.bits - ROUNDING) * ONE)
        self._window: deque[int] = deque()
        self._counts: dict[int, int] = {}
        self._sum = 0

    def look(self, token: int, step: int) -> Loop | None:
        if len(self._window) == self._size:
            self._change(self._window.popleft(), -1)
        self._window.append(token)
        self._change(token, 1)
        if len(self._window) < self._size or self._sum < self._least:
            return None
        onset = step + 1 - self._size
        if self.last is not None and onset <= self.last.end:
            onset = self.last.onset
        else:  # a token that occurs once belongs to what was before
            onset += next(place for place, other in enumerate(self._window) if self._counts[other] > 1)
        self.last = grown(self.last, step, "low_entropy", onset)
        return self.last

    def _change(self, token: int, by: int) -> None:
        before = self._counts.get(token, 0)
        self._sum += self._terms[before + by] - self._terms[before]
        if before + by:
            self._counts[token] = before + by
        else:
            del self._counts[token]
