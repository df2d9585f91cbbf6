"""Two samples and no known distribution: a reference rate is a sample too.

Both tests are conditional on the pooled counts. Then nothing is unknown: which of the pooled observations came from the
first sample is a draw without replacement, the same for every common distribution.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binom, hypergeom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, hoeffding_reach


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

    def miss_rate(self, rate: float, other: float, n_first: int, n_second: int) -> float:
        """Probability of not rejecting where the rates are `rate` and `other`; tails under 1e-12 are left out."""
        first, second = _likely(rate, n_first), _likely(other, n_second)
        first_pmf, second_pmf = binom.pmf(first, n_first, rate), binom.pmf(second, n_second, other)
        missed = 4e-12
        for pooled in range(int(first[0] + second[0]), int(first[-1] + second[-1]) + 1):
            low, high = self._accepted(pooled, n_first, n_second)
            chosen = (low <= first) & (first <= high) & (second[0] <= pooled - first) & (pooled - first <= second[-1])
            missed += float(first_pmf[chosen] @ second_pmf[pooled - first[chosen] - second[0]])
        return missed

    def _accepted(self, pooled: int, n_first: int, n_second: int) -> tuple[int, int]:
        """Smallest and largest first count, given the pooled one, that is not rejected."""
        counts, pmf = _split(n_first + n_second, pooled, n_first)
        kept = counts[2 * np.minimum(np.cumsum(pmf), np.cumsum(pmf[::-1])[::-1]) > self.alpha]
        return int(kept[0]), int(kept[-1])

    def detectable(self, rate: float, n_first: int, n_second: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest rise above `rate` in the second sample that is missed with at most `miss_rate`; 1 - rate if none."""
        checked_rate("miss_rate", miss_rate)
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
        n_first, n_second = int(first.sum()), int(second.sum())
        variation = float(np.abs(first / n_first - second / n_second).sum() / 2)
        excess = variation - expected_variation_between(first + second, n_first)
        bound = self.reach(n_first, n_second)
        p_value = self.alpha ** ((excess / bound) ** 2) if excess > 0 else 1.0
        return Judgement(excess, bound, n_first + n_second, p_value)

    def detectable(self, tokens: int, n_first: int, n_second: int, miss_rate: float = MISS_RATE) -> float:
        """Total variation between two distributions over `tokens` tokens that is missed with at most `miss_rate`.

        The expectation is then at most that of equally likely tokens; the probability of the set on which the two
        differ is measured twice, each time within Hoeffding's reach at half the miss rate.
        """
        spread = math.sqrt(max(0, tokens - 1) * (1 / n_first + 1 / n_second)) / 2
        slack = hoeffding_reach(checked_rate("miss_rate", miss_rate) / 2, n_first)
        return min(1.0, spread + self.reach(n_first, n_second) + slack + hoeffding_reach(miss_rate / 2, n_second))


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
