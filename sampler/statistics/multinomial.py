"""Goodness of fit of draws from a known distribution, by total variation, with bounds that hold at every alpha.

The statistic is the total variation between the empirical and the true distribution; `variation` proves two bounds on
each of its tails for every n. The better one is used for each side; the choice depends only on the distribution, n and
alpha, not on the draws. The detectable difference is derived in `power`.

Example: one token of probability 0.9, twenty of 0.005, 20,000 draws, alpha 1e-8. A total variation of 0.022 is missed
with at most 1 %. McDiarmid's bound alone, with Hoeffding's for the power, would give 0.037; it needs 3 times the
draws.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, hoeffding_reach
from sampler.statistics.power import reach_of_expectation, reach_of_one_set
from sampler.statistics.variation import Tail, chernoff, expected_variation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """The expected total variation of n draws, and the allowed distance above and below it."""

    expected: float
    above: float
    below: float
    tails: tuple[Tail, Tail]


@dataclass(frozen=True, eq=False)
class Multinomial:
    """Whether draws follow `probabilities` (V,), with false alarms at most `alpha`, half of it on either side.

    A total variation that is too large means a wrong distribution, one that is too small means reused or stratified
    noise.
    """

    probabilities: Array
    alpha: float
    _limits: dict[int, Limits] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)
        total = float(self.probabilities.sum())
        if (self.probabilities < 0).any() or not math.isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"the probabilities sum to {total} (expected 1, none negative)")

    def limits(self, n: int) -> Limits:
        """Expectation and limits of the total variation of n > 0 draws; cached for each n."""
        if n not in self._limits:
            expected, hoeffding = expected_variation(n, self.probabilities), hoeffding_reach(self.alpha / 2, n)
            high, low = (chernoff(n, self.probabilities, self.alpha / 2, side) for side in (1, -1))
            above = min(hoeffding, high.quantile(n, self.alpha / 2) - expected)
            below = min(hoeffding, expected - low.quantile(n, self.alpha / 2))
            self._limits[n] = Limits(expected, above, below, (high, low))
        return self._limits[n]

    def accepted(self, n: int) -> tuple[float, float]:
        """Smallest and largest total variation that is not rejected."""
        if n == 0:
            return 0.0, math.inf
        limits = self.limits(n)
        return max(0.0, limits.expected - limits.below), limits.expected + limits.above

    def judge(self, counts: NDArray[np.int64]) -> Judgement:
        """counts: draws of each token (V,). The statistic is the distance from the expectation, the bound its side's.

        Raises ValueError for a different number of tokens.
        """
        if counts.shape != self.probabilities.shape:
            raise ValueError(f"counts of {counts.shape} tokens for probabilities of {self.probabilities.shape}")
        n = int(counts.sum())
        if n == 0:
            return Judgement(0.0, math.inf, 0, 1.0)
        variation = float(np.abs(counts / n - self.probabilities).sum() / 2)
        limits = self.limits(n)
        distance, tail = abs(variation - limits.expected), limits.tails[variation < limits.expected]
        log_p = math.log(2) + min(-2 * n * distance**2, tail.log_probability(n, variation))
        bound = limits.below if variation < limits.expected else limits.above
        return Judgement(distance, bound, n, math.exp(min(0.0, log_p)))

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest total variation of a wrong distribution, in the worst direction, missed with at most `miss_rate`."""
        checked_rate("miss_rate", miss_rate)
        if n == 0:
            return 1.0
        bound = self.accepted(n)[1]
        one_set = reach_of_one_set(bound, n, miss_rate, float(self.probabilities.max()))
        spread = reach_of_expectation(bound + hoeffding_reach(miss_rate, n), n, self.probabilities)
        return min(1.0, one_set, spread)
