"""A loop: where it begins, how long it is, what repeats, and when it was detectable."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

LoopKind = Literal["run", "cycle", "near_cycle", "low_entropy"]
KINDS: tuple[LoopKind, ...] = get_args(LoopKind)
"""One repeated token; a pattern; a pattern with substitutions; few tokens in any order."""

SHOWN = 4
"""Token ids of a pattern that are named."""


class Loop(NamedTuple):
    """A stretch of tokens that repeats itself.

    onset: index of its first token, from 0. period: length of the repeated pattern, None for `low_entropy`. extent:
    number of its tokens. step: index of the token at which it was detectable.
    """

    kind: LoopKind
    onset: int
    period: int | None
    extent: int
    step: int

    @property
    def end(self) -> int:
        return self.onset + self.extent

    def __str__(self) -> str:
        what = "one token repeated" if self.period == 1 else f"a cycle of {self.period} tokens"
        what = "few tokens in turn" if self.period is None else what
        with_what = " with substitutions" if self.kind == "near_cycle" else ""
        return f"{what}{with_what} from token {self.onset} on for {self.extent} tokens, detected at token {self.step}"

    def describe(self, tokens: Sequence[int]) -> str:
        """What repeats in these tokens, with its ids: `token 6405 repeated from step 41 on, for 207 tokens`."""
        pattern = tokens[self.onset : self.onset + (self.period or 0)]
        shown = ", ".join([*map(str, pattern[:SHOWN]), *(["..."] if len(pattern) > SHOWN else [])])
        if self.period is None:
            often = Counter(tokens[self.onset : self.end]).most_common(SHOWN)
            what = f"few tokens in turn (most often {', '.join(str(token) for token, _ in often)})"
        elif self.period == 1:
            what = f"token {shown} repeated"
        else:
            what = f"a cycle of {self.period} tokens ({shown})"
        with_what = " with substitutions" if self.kind == "near_cycle" else ""
        return f"{what}{with_what} from step {self.onset} on, for {self.extent} tokens"


def foremost(loops: Sequence[Loop]) -> Loop:
    """The longest loop of a run; but one without a period only if none with a period is at least half as long."""
    longest = max(loops, key=lambda loop: loop.extent)
    periodic = [loop for loop in loops if loop.period is not None and 2 * loop.extent >= longest.extent]
    return max(periodic, key=lambda loop: loop.extent, default=longest)


def grown(last: Loop | None, step: int, kind: LoopKind, onset: int, period: int | None = None) -> Loop:
    """The loop of tokens `onset` to `step`: the last one extended, or a new one.

    Two stretches are one loop if they share at least a period and one period divides the other; the smaller one counts.
    Different exact cycles share less.
    """
    if last is not None and _same(last, onset, period):
        smaller = min(period, last.period) if period and last.period else period
        onset = min(onset, last.onset)
        return Loop(kind, onset, smaller, step + 1 - onset, last.step)
    return Loop(kind, onset, period, step + 1 - onset, step)


def _same(last: Loop, onset: int, period: int | None) -> bool:
    if period is None or last.period is None:
        return onset <= last.end
    longer, shorter = max(period, last.period), min(period, last.period)
    return longer % shorter == 0 and last.end - max(onset, last.onset) >= longer
