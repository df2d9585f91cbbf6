"""The answer of every hypothesis test, and its error rates."""

import math
from collections.abc import Callable
from dataclasses import dataclass

MISS_RATE = 0.01
"""A check may only pass if a difference of the announced size is missed at most this often."""


@dataclass(frozen=True)
class Judgement:
    """One answer: rejected iff statistic > bound. n: observations. p_value: never less than the true one.

    Without observations nothing is rejected: the bound is infinite, the p-value 1 and every `detectable` 1.
    """

    statistic: float
    bound: float
    n: int
    p_value: float

    @property
    def rejected(self) -> bool:
        return self.statistic > self.bound


def checked_rate(name: str, rate: float) -> float:
    """Return an error rate. Raises ValueError for anything outside (0, 1)."""
    if not 0 < rate < 1:
        raise ValueError(f"{name} = {rate} is no error rate (expected a number between 0 and 1)")
    return rate


def hoeffding_reach(rate: float, n: float) -> float:
    """How far the mean of n values in [0, 1] deviates to one side with probability `rate` at most.

    Hoeffding 1963, Theorem 1: P(mean - expectation >= t) <= exp(-2 n t^2). Without values (n = 0): any distance.
    """
    return math.sqrt(-math.log(rate) / (2 * n)) if n else math.inf


def detectable_leak(n: int, miss_rate: float = MISS_RATE) -> float:
    """Smallest mass outside the support that n draws miss with at most `miss_rate`: 1 - miss_rate^(1/n)."""
    return -math.expm1(math.log(checked_rate("miss_rate", miss_rate)) / n) if n else 1.0


def fewest(detectable: Callable[[int], float], discrepancy: float) -> int:
    """Observations with which `detectable` is at most `discrepancy`: never too few, at most a thousandth too many.

    detectable: from a number of observations to the difference they detect. Raises ValueError for a discrepancy outside
    (0, 1).
    """
    if not 0 < discrepancy < 1:
        raise ValueError(f"discrepancy = {discrepancy} (expected a number between 0 and 1)")
    high = 1
    while detectable(high) > discrepancy:
        high *= 2
    low = high // 2
    while high - low > max(1, high // 1_000):
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(middle) <= discrepancy else (middle, high)
    return high
