"""What a page shows of scored tokens: plain numbers that can be written as JSON. None stands for infinity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LARGEST = 1e6
"""What no value exceeds that can be drawn."""


@dataclass(frozen=True)
class Bet:
    """What is bet on, in words, and the logarithms of its wealth."""

    text: str
    logs: tuple[float, ...]


@dataclass(frozen=True)
class Wealth:
    """The e-process. tokens: how many had been scored, (N,). mean: the logarithm of the mean wealth of all bets, (N,).

    richest: the bets with the most in the end, the richest first. bound: the logarithm at which the mean is proof.
    enough: after how many tokens it was, if so.
    """

    tokens: tuple[int, ...]
    mean: tuple[float, ...]
    richest: tuple[Bet, ...]
    bound: float
    enough: int | None = None

    def __post_init__(self) -> None:
        bets = (self.mean, *(bet.logs for bet in self.richest))
        if not self.tokens or any(len(values) != len(self.tokens) for values in bets):
            raise ValueError("expected values of each bet for some numbers of tokens")
        if self.tokens[0] < 1 or any(second <= first for first, second in pairwise(self.tokens)):
            raise ValueError("expected rising numbers of tokens")
        _check((self.bound, *(value for values in bets for value in values)))


@dataclass(frozen=True)
class Pit:
    """PIT of tokens in one order, by bins of equal width. ratios: counts over what a right engine expects.

    widths: by how much they differ from 1 at most, in all bins of all orders, of 99 in 100 right engines.
    """

    order: str
    ratios: tuple[float, ...]
    widths: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.ratios) != len(self.widths) or not self.ratios:
            raise ValueError("expected as many widths as ratios")
        _check((*self.ratios, *self.widths))
        if min(self.widths) <= 0:
            raise ValueError("expected widths above 0")


@dataclass(frozen=True)
class Estimate:
    """A sampling parameter: what was asked for, the likeliest value and a 95 % interval, which may be open."""

    name: str
    asked: float | None
    value: float | None
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        known = [value for value in (self.asked, self.value, self.low, self.high) if value is not None]
        if not known:
            raise ValueError("expected a value")
        _check(known)

    @property
    def differs(self) -> bool:
        """Whether the interval excludes what was asked for."""
        asked = math.inf if self.asked is None else self.asked
        above = self.low is not None and asked < self.low
        return above or (self.high is not None and asked > self.high)


@dataclass(frozen=True)
class Answer:
    """An alternative. needed: about how many tokens exclude it; None: no number does."""

    text: str
    stage: str
    excluded: bool
    needed: int | None


@dataclass(frozen=True)
class Removed:
    """An impossible token. run: which request, from 0. text: the token, its depth and its stage in words."""

    run: int
    step: int
    text: str


@dataclass(frozen=True)
class ScoreSummary:
    """tokens: scored, of so many runs. bets: tokens of these that were bet on. impossible: the first ones of `count`.

    estimates: from `fitted` of the tokens.
    """

    tokens: int
    runs: int
    bets: int
    wealth: Wealth | None
    calibration: tuple[Pit, ...]
    estimates: tuple[Estimate, ...]
    fitted: int
    alternatives: tuple[Answer, ...]
    impossible: tuple[Removed, ...]
    count: int


def _check(values: Sequence[float]) -> None:
    if any(abs(value) > LARGEST for value in values):
        raise ValueError(f"expected values up to {LARGEST:g}")
