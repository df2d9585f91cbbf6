"""Loops detected online: one token in, the loop that it belongs to out."""

from collections.abc import Iterable
from operator import index

from sampler.loops.loop import Loop
from sampler.loops.matches import LagMatches
from sampler.loops.rules import LoopRules
from sampler.loops.watches import CycleWatch, EntropyWatch


class LoopGuard:
    """Detects loops while tokens are being generated: `if loop := guard.add(token): stop`.

    Use one guard per run. A token that occurs m times among the last `rules.largest` costs O(m) operations on integers
    of `rules.compared` bits, plus one for each divisor of a lag that may be a loop: at most O(`rules.largest` log
    `rules.largest`), however long the run (docs/loops.md has figures). Memory is bounded too: an integer of that many
    bits for each lag, and one window of tokens.
    """

    def __init__(self, rules: LoopRules | None = None) -> None:
        self.rules = LoopRules() if rules is None else rules
        self.step = -1
        """Index of the last token."""
        self._matches = LagMatches(self.rules.largest, self.rules.compared)
        self._cycles = [CycleWatch(rule) for rule in self.rules.cycles]
        self._oldest = oldest_bits(self.rules)
        self._entropy = EntropyWatch(self.rules.low_entropy) if self.rules.low_entropy else None

    def add(self, token: int) -> Loop | None:
        """The loop that currently ends at this token, by the first rule that detects one; None if there is none.

        token: any integer, also of NumPy; others raise TypeError. If the run goes on, each further token of the loop
        returns it again, grown.
        """
        return next((loop for loop in self.look(token) if loop), None)

    def look(self, token: int) -> list[Loop | None]:
        """As `add`, with the answer of every rule: those of `rules.cycles` in order, then of `rules.low_entropy`."""
        token = index(token)
        self.step += 1
        oldest = self._oldest
        matching = [(lag, bits) for lag, bits in self._matches.add(token) if bits & oldest[lag]]
        loops = [watch.look(self._matches, matching, self.step) if matching else None for watch in self._cycles]
        if self._entropy:
            loops.append(self._entropy.look(token, self.step))
        return loops


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
    guard = LoopGuard(rules)
    found: dict[tuple[int, int], Loop] = {}
    for token in tokens:
        for rule, loop in enumerate(guard.look(token)):
            if loop:
                found[rule, loop.step] = loop
    return tuple(sorted(found.values(), key=lambda loop: (loop.step, loop.onset)))
