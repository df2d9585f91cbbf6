"""Loops detected online: one token in, the loop that it belongs to out."""

from collections.abc import Iterable, Sequence
from functools import cache
from operator import index

from sampler.loops.loop import Loop
from sampler.loops.matches import LagMatches
from sampler.loops.rules import LoopRules
from sampler.loops.steady import Answers, Steady, Streak
from sampler.loops.watches import CycleWatch, EntropyWatch

USUAL = LoopRules()


class LoopGuard:
    """Detects loops while tokens are being generated: `if loop := guard.add(token): stop`.

    Use one guard per run. A token that occurs m times among the last `rules.largest` costs O(m) operations on integers
    of `rules.compared` bits, plus one for each divisor of a lag that may be a loop: at most O(`rules.largest` log
    `rules.largest`), however long the run (docs/loops.md has figures). Memory is bounded too: an integer of that many
    bits for each lag, and one window of tokens.
    """

    def __init__(self, rules: LoopRules | None = None) -> None:
        self.rules = USUAL if rules is None else rules
        self.step = -1
        """Index of the last token."""
        self._matches = LagMatches(self.rules.largest, self.rules.compared)
        self._cycles = [CycleWatch(rule) for rule in self.rules.cycles]
        self._oldest = oldest_bits(self.rules)
        self._entropy = EntropyWatch(self.rules.low_entropy) if self.rules.low_entropy else None
        self._watches = (*self._cycles, *([self._entropy] if self._entropy else []))
        window = self.rules.low_entropy.window if self.rules.low_entropy else 0
        self.memory = max(self.rules.largest + self.rules.compared, window)
        """How many of the last tokens decide what is detected at a token."""
        self.steady: Steady | None = None
        """The pattern that only repeats itself, if there is one: a token of it costs a comparison."""
        self._streak = Streak(self._matches, self.memory)

    def add(self, token: int) -> Loop | None:
        """The loop that currently ends at this token, by the first rule that detects one; None if there is none.

        token: any integer, also of NumPy; others raise TypeError. If the run goes on, each further token of the loop
        returns it again, grown.
        """
        token = index(token)
        if self._goes_on(token):
            return self.steady.first()  # type: ignore[union-attr] # as it goes on
        return next((loop for loop in self._look(token) if loop), None)

    def look(self, token: int) -> Answers:
        """As `add`, with the answer of every rule: those of `rules.cycles` in order, then of `rules.low_entropy`."""
        token = index(token)
        return self.steady.all() if self._goes_on(token) else self._look(token)  # type: ignore[union-attr]

    def pass_over(self, count: int) -> None:
        """As if `count` tokens that go on with a steady pattern had been added, a multiple of its period."""
        assert self.steady is not None  # noqa: S101 - which the caller has looked at
        self.steady.passed += count
        self.step += count

    def _goes_on(self, token: int) -> bool:
        """Whether a token continues a steady pattern; if not, what was passed over is made up for."""
        steady = self.steady
        if steady is None:
            return False
        if steady.goes_on(token):
            self.step += 1
            return True
        self.steady, rest = None, steady.rest
        whole = steady.passed - len(rest)
        self.step -= len(rest)
        self._matches.pass_over(whole)
        for watch in self._watches:
            watch.pass_over(whole, since=self.step + 1 - whole - steady.period)
        for earlier in rest:
            self._look(earlier)
        return False

    def _look(self, token: int) -> Answers:
        self.step += 1
        oldest, found = self._oldest, self._matches.add(token)
        matching = [(lag, bits) for lag, bits in found if bits & oldest[lag]] if found else found
        loops: Answers = [None] * len(self._cycles)
        if matching:
            loops = [watch.look(self._matches, matching, self.step) for watch in self._cycles]
        if self._entropy:
            loops.append(self._entropy.look(token, self.step))
        self.steady = self._streak.follow(token, found, loops, self.step)
        return loops


@cache
def oldest_bits(rules: LoopRules) -> list[int]:
    """For every lag the bits of the oldest tokens that a rule compares: a loop needs a match at one of them."""
    bits = [0] * (rules.largest + 1)
    for rule in rules.cycles:
        for size in rule.sizes:
            bits[size] |= 1 << (rule.compared(size) - 1)
    return bits


def find_loops(tokens: Iterable[int], rules: LoopRules | None = None) -> tuple[Loop, ...]:
    """Every loop of a finished run, by the step at which it was detectable.

    Rules are separate: a run of one token is also a stretch of low entropy, and is returned twice.
    """
    ids, guard = [index(token) for token in tokens], LoopGuard(rules)
    found: dict[tuple[int, int], Loop] = {}
    while guard.step + 1 < len(ids):
        if guard.steady is not None:
            guard.pass_over(_repeated(ids, guard.step + 1, guard.steady.period))
        for rule, loop in enumerate(guard.look(ids[guard.step + 1])):
            if loop:
                found[rule, loop.step] = loop
    return tuple(sorted(found.values(), key=lambda loop: (loop.step, loop.onset)))


def _repeated(ids: Sequence[int], here: int, period: int) -> int:
    """How many of the tokens from here on only repeat the pattern: its whole periods, without the last of them."""
    end = next((at for at in range(here, len(ids)) if ids[at] != ids[at - period]), len(ids))
    return max(0, (end - here) // period - 1) * period
