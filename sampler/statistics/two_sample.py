"""Two samples and no known distribution: a reference rate is a sample too.

Both tests are conditional on the pooled counts. Then nothing is unknown: which of the pooled observations came from the
first sample is a draw without replacement, the same for every common distribution.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binom, hypergeom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest


@dataclass(frozen=True)
class TwoCounts:
    """Whether two counts have one rate: Fisher's exact test, each tail with half of alpha."""

    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for an alpha out of range."""
        checked_rate("alpha", self.alpha)

    def judge(self, first: int, n_first: int, second: int, n_second: int) -> Judgement:
        """The statistic is -log10 of the doubled smaller tail, beside that of alpha."""
        tail = hypergeom(n_first + n_second, first + second, n_first)
        p_value = min(1.0, 2 * float(min(tail.cdf(first), tail.sf(first - 1))))
        statistic = -math.log10(max(p_value, 1e-300))
        return Judgement(statistic, -math.log10(self.alpha), n_first + n_second, p_value)

    def accepted(self, pooled: int, n_first: int, n_second: int) -> tuple[int, int]:
        """Smallest and largest first count, given the pooled one, that is not rejected."""
        return _accepted(self.alpha, pooled, n_first, n_second)

    def miss_rate(self, rate: float, other: float, n_first: int, n_second: int) -> float:
        """Probability of not rejecting where the rates are `rate` and `other`; tails under 1e-12 count as missed."""
        first, second = _likely(rate, n_first), _likely(other, n_second)
        pooled = np.arange(first[0] + second[0], first[-1] + second[-1] + 1)
        low, high = np.array([self.accepted(int(count), n_first, n_second) for count in pooled]).T
        # A first count x goes with second counts c for which low(x + c) <= x <= high(x + c): an interval, as both rise.
        most = np.searchsorted(low, first, side="right") - 1 + pooled[0] - first
        least = np.searchsorted(high, first, side="left") + pooled[0] - first
        inside = np.maximum(0.0, binom.cdf(most, n_second, other) - binom.cdf(least - 1, n_second, other))
        return 4e-12 + float(binom.pmf(first, n_first, rate) @ inside)

    def detectable(self, rate: float, n_first: int, n_second: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest rise above `rate` in the second sample that is missed with at most `miss_rate`; 1 - rate if none."""
        checked_rate("miss_rate", miss_rate)
        if min(n_first, n_second) == 0:
            return 1 - rate
        low, high = 0.0, min(1 - rate, 1 / n_second)
        while high < 1 - rate and self.miss_rate(rate, rate + high, n_first, n_second) > miss_rate:
            low, high = high, min(1 - rate, 2 * high)
        if high == 1 - rate and self.miss_rate(rate, 1.0, n_first, n_second) > miss_rate:
            return high
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            missed = self.miss_rate(rate, rate + middle, n_first, n_second) > miss_rate
            low, high = (middle, high) if missed else (low, middle)
        return high

    def samples_needed(self, rate: float, rise: float, miss_rate: float = MISS_RATE) -> int:
        """Observations of each of two equal samples that miss a rise above `rate` with at most `miss_rate`.

        Raises ValueError for a rise that has no room above the rate.
        """
        if not 0 < rise < 1 - rate:
            raise ValueError(f"rise = {rise} above a rate of {rate} (expected more than 0 and less than {1 - rate})")
        checked_rate("miss_rate", miss_rate)
        return fewest(lambda n: float(self.miss_rate(rate, rate + rise, n, n) > miss_rate), rise)


@lru_cache(maxsize=100_000)
def _accepted(alpha: float, pooled: int, n_first: int, n_second: int) -> tuple[int, int]:
    counts, pmf = _split(n_first + n_second, pooled, n_first)
    tails = np.minimum(np.cumsum(pmf), np.cumsum(pmf[::-1])[::-1])
    kept = counts[2 * tails >= alpha * (1 - 1e-9)]
    return int(kept[0]), int(kept[-1])


def _likely(rate: float, n: int) -> NDArray[np.int64]:
    low, high = binom.ppf(1e-12, n, rate), binom.isf(1e-12, n, rate)
    return np.arange(max(0, int(low)), int(high) + 1)


@dataclass(frozen=True)
class TwoSamples:
    """Whether two samples of tokens come from one distribution, by the total variation between them.

    Given the pooled counts, its expectation is an exact sum of mean absolute deviations of hypergeometric counts, and
    it strays from that by t with probability at most exp(-2 t^2 N' / (n_1 n_2 b^2)), where exchanging two observations
    changes it by at most b = 1/n_1 + 1/n_2. Source: El-Yaniv and Pechyony 2009, "Transductive Rademacher complexity and
    its applications", Lemma 2, with N' = (N - 1/2) (1 - 1 / (2 max(n_1, n_2))).
    """

    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for an alpha out of range."""
        checked_rate("alpha", self.alpha)

    def reach(self, n_first: int, n_second: int) -> float:
        """How far above its expectation the total variation may be."""
        step = 1 / n_first + 1 / n_second
        effective = (n_first + n_second - 0.5) * (1 - 1 / (2 * max(n_first, n_second)))
        return step * math.sqrt(-math.log(self.alpha) * n_first * n_second / (2 * effective))

    def judge(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Judgement:
        """first, second: counts of each token (V,). The statistic is the excess over the expectation."""
        if first.shape != second.shape:
            raise ValueError(f"counts of {first.shape} and of {second.shape} tokens")
        n_first, n_second = int(first.sum()), int(second.sum())
        if min(n_first, n_second) == 0:
            return Judgement(0.0, math.inf, n_first + n_second, 1.0)
        variation = float(np.abs(first / n_first - second / n_second).sum() / 2)
        excess = variation - expected_variation_between(first + second, n_first)
        bound = self.reach(n_first, n_second)
        p_value = self.alpha ** ((excess / bound) ** 2) if excess > 0 else 1.0
        return Judgement(excess, bound, n_first + n_second, p_value)

    def detectable(self, tokens: int, n_first: int, n_second: int, miss_rate: float = MISS_RATE) -> float:
        """Total variation between two distributions over `tokens` tokens that is missed with at most `miss_rate`.

        Given the pooled counts c, the expectation is at most half the sum of standard deviations, and that sum is
        largest for equal counts (Cauchy and Schwarz). The set of tokens on which the two distributions differ most is
        measured by two means of independent values in [0, 1], whose difference Hoeffding's Theorem 2 bounds.
        """
        if min(n_first, n_second) == 0:
            return 1.0
        inverse, total = 1 / n_first + 1 / n_second, n_first + n_second
        spread = math.sqrt(max(0, tokens - 1) * inverse * total / (total - 1)) / 2
        slack = math.sqrt(-math.log(checked_rate("miss_rate", miss_rate)) * inverse / 2)
        return min(1.0, spread + self.reach(n_first, n_second) + slack)

    def samples_needed(self, tokens: int, variation: float, miss_rate: float = MISS_RATE) -> int:
        """Draws of each of two equal samples whose `detectable` is at most `variation`."""
        return fewest(lambda n: self.detectable(tokens, n, n, miss_rate), variation)


def expected_variation_between(pooled: NDArray[np.int64], n_first: int) -> float:
    """Expectation of the total variation between two halves of `pooled` counts (V,), the first of n_first."""
    total = int(pooled.sum())
    n_second = total - n_first
    values, repeats = np.unique(pooled[pooled > 0], return_counts=True)
    deviations = [float(_mean_absolute_deviation(total, int(value), n_first)) for value in values]
    # X/n1 - (c - X)/n2 = (X - c n1/N) (1/n1 + 1/n2)
    return float(np.dot(deviations, repeats) * (1 / n_first + 1 / n_second) / 2)


def _mean_absolute_deviation(total: int, marked: int, drawn: int) -> float:
    counts, pmf = _split(total, marked, drawn)
    return float(np.abs(counts - marked * drawn / total) @ pmf)


def _split(total: int, marked: int, drawn: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many marked ones are among the drawn: counts and their probabilities; less than 1e-60 lies outside."""
    mean = marked * drawn / total
    reach = 50 + 20 * math.sqrt(mean * (1 - drawn / total))
    low, high = max(0, marked + drawn - total, int(mean - reach)), min(marked, drawn, int(mean + reach))
    counts = np.arange(low, high + 1)
    others, rest = total - marked, drawn - counts
    log_pmf = -gammaln(counts + 1) - gammaln(marked - counts + 1) - gammaln(rest + 1) - gammaln(others - rest + 1)
    pmf = np.exp(log_pmf - log_pmf.max())
    return counts, pmf / pmf.sum()
