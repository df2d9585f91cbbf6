"""Loops detected online: one token in, the loop that it belongs to out."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from operator import index

from sampler.loops.loop import Loop
from sampler.loops.matches import LagMatches
from sampler.loops.rules import LoopRules
from sampler.loops.watches import CycleWatch, EntropyWatch

FOR_SURE = 4
"""How often the memory of a guard fits into the tokens after which nothing new can come of an exact pattern."""

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
        window = self.rules.low_entropy.window if self.rules.low_entropy else 0
        self.memory = max(self.rules.largest + self.rules.compared, window)
        """How many of the last tokens decide what is detected at a token."""

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

    def pass_over(self, period: int, count: int) -> None:
        """As if `count` tokens had been added, a multiple of `period`, each equal to the one `period` before.

        The last FOR_SURE * `memory` tokens have to repeat themselves in the same way, and no loop may have begun to be
        detected in them. What was detected in the last period is then detected in each further one, and only grows.
        """
        self._matches.pass_over(count)
        watches: list[CycleWatch | EntropyWatch] = [*self._cycles, *([self._entropy] if self._entropy else [])]
        for watch in watches:
            last = watch.last
            if last is not None and last.end > self.step + 1 - period:
                watch.last = replace(last, extent=last.extent + count)
        self.step += count


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
    newest = 0
    while guard.step + 1 < len(ids):
        loops = guard.look(ids[guard.step + 1])
        for rule, loop in enumerate(loops):
            if loop:
                found[rule, loop.step] = loop
                newest = max(newest, loop.step)
        steady = guard.step - newest
        if steady and steady % (FOR_SURE * guard.memory) == 0:
            _pass_over(guard, ids)
    return tuple(sorted(found.values(), key=lambda loop: (loop.step, loop.onset)))


def _pass_over(guard: LoopGuard, ids: Sequence[int]) -> None:
    """Go on to the last periods of a pattern that has repeated itself exactly for long enough, if there is one."""
    here = guard.step + 1
    last = ids[here - FOR_SURE * guard.memory : here]
    period = next((lag for lag in range(1, guard.rules.largest + 1) if last[lag:] == last[:-lag]), None)
    if period is not None:
        end = next((at for at in range(here, len(ids)) if ids[at] != ids[at - period]), len(ids))
        guard.pass_over(period, max(0, (end - here) // period - 1) * period)
