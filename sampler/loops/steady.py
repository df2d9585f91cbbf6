"""A pattern that has repeated itself for so long that every answer is the one of a period earlier, grown."""

from collections.abc import Sequence

from sampler.loops.loop import Loop
from sampler.loops.matches import LagMatches

Answers = list[Loop | None]
"""Of every rule at one token."""


class Steady:
    """tokens, answers: of the last period. passed: tokens since then, each equal to the one a period earlier."""

    def __init__(self, tokens: Sequence[int], answers: Sequence[Answers]) -> None:
        self.tokens, self.answers = tokens, answers
        self.period = len(tokens)
        self.passed = 0
        self._firsts = [next((loop for loop in each if loop), None) for each in answers]

    def goes_on(self, token: int) -> bool:
        """Whether a token is the next one of the pattern, which is counted then."""
        if token != self.tokens[self.passed % self.period]:
            return False
        self.passed += 1
        return True

    def first(self) -> Loop | None:
        """The loop of the first rule that has one at the last token."""
        periods, place = divmod(self.passed - 1, self.period)
        loop = self._firsts[place]
        return None if loop is None else _longer(loop, (periods + 1) * self.period)

    def all(self) -> Answers:
        """What every rule says at the last token."""
        periods, place = divmod(self.passed - 1, self.period)
        return [loop and _longer(loop, (periods + 1) * self.period) for loop in self.answers[place]]

    @property
    def rest(self) -> Sequence[int]:
        """The tokens since the last whole period."""
        return self.tokens[: self.passed % self.period]


def _longer(loop: Loop, by: int) -> Loop:
    kind, onset, period, extent, step = loop
    return Loop(kind, onset, period, extent + by, step)


class Streak:
    """The distance at which the last tokens equal earlier ones, and for how long: it follows the answers to each token.

    A run is steady after `memory` tokens, on which every answer depends, and two periods in which no loop begins: the
    first one settles where loops began and what their smallest period is, the second one is repeated from then on.
    """

    def __init__(self, matches: LagMatches, memory: int) -> None:
        self._matches, self._memory = matches, memory
        self._period = self._count = 0
        self._last: list[tuple[int, Answers]] = []

    def follow(self, token: int, matching: Sequence[tuple[int, int]], answers: Answers, step: int) -> Steady | None:
        """The steady pattern that this token completes. matching: the answer of `matches` to it."""
        if not matching:
            self._period = self._count = 0
            return None
        if self._period and self._matches.at(self._period) & 1:
            self._count += 1
        else:  # the longest streak; of several the one of the smallest distance
            self._count, lag = max((_ones(bits), -lag) for lag, bits in matching)
            self._period = -lag
        if self._count <= self._memory + self._period:
            self._last = []
            return None
        self._last.append((token, answers))
        if any(loop and loop.step > step - 2 * self._period for loop in answers):
            self._last = []
        if len(self._last) < self._period:
            return None
        tokens, found = zip(*self._last, strict=True)
        self._last = []
        return Steady(tokens, found)


def _ones(bits: int) -> int:
    """How many of the lowest bits are set in a row."""
    return (~bits & (bits + 1)).bit_length() - 1
