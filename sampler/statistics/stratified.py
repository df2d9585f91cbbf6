"""Two samples of runs over the same texts: which sample's runs show something more often, text by text.

Given how many runs of a text show it, those of the first sample are a draw without replacement, whatever the rate of
that text is. The sum over texts is then a sum of independent hypergeometric counts: nothing about the texts is assumed.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, hypergeom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest

Counts = NDArray[np.int64]
ROUNDING = 1e-9
"""Relative error of a tail that is a sum of products of probabilities, all of them positive."""


@dataclass(frozen=True)
class StratifiedCounts:
    """Whether counts in two samples have one rate within each text: each tail with half of alpha, exact.

    Arguments named first, second, n_first, n_second are whole numbers (S,): of the runs of each of S texts those that
    count, and all. Source: Birch 1964, "The detection of partial association, I: the 2 x 2 case", where it is the best
    test against odds that are raised alike in each text.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for an alpha out of range."""
        checked_rate("alpha", self.alpha)

    def judge(self, first: ArrayLike, n_first: ArrayLike, second: ArrayLike, n_second: ArrayLike) -> Judgement:
        """The statistic is -log10 of the doubled smaller tail, beside that of alpha.

        Texts of which one sample has no runs say nothing and are left out, also of n. Raises ValueError for counts
        that are no counts.
        """
        one, n_one, other, n_other = _checked(first, n_first, second, n_second)
        least, law = share_law(one + other, n_one, n_other)
        place = int(one.sum()) - least
        tail = min(float(law[: place + 1].sum()), float(law[place:].sum()))
        p_value = min(1.0, 2 * tail * (1 + ROUNDING))
        statistic = -math.log10(max(p_value, 1e-300))
        return Judgement(statistic, -math.log10(self.alpha), int((n_one + n_other).sum()), p_value)

    def accepted(self, pooled: ArrayLike, n_first: ArrayLike, n_second: ArrayLike) -> tuple[int, int]:
        """Smallest and largest first count over all texts, given the pooled counts, that is not rejected."""
        least, law = share_law(*_comparable(_whole(pooled), _whole(n_first), _whole(n_second)))
        tails = np.minimum(np.cumsum(law), np.cumsum(law[::-1])[::-1])
        kept = np.flatnonzero(2 * tails * (1 + ROUNDING) >= self.alpha)
        return least + int(kept[0]), least + int(kept[-1])

    def miss_rate(self, rate: float, other: float, n_first: ArrayLike, n_second: ArrayLike) -> float:
        """Largest probability of not rejecting where the second sample has more: a bound, for all texts at once.

        rate, other: mean rate over the runs of the first sample and of the second, however it is spread over texts.
        """
        _, n_one, n_other = _comparable(_whole(n_first), _whole(n_first), _whole(n_second))
        total, n_rest = int(n_one.sum()), int(n_other.sum())
        if not total:
            return 1.0
        most = _most_accepted(self.alpha, n_one, n_other)
        # With a first count x a miss needs a second one up to most[x]. Of the sums of independent runs with a given
        # mean, that of equal rates has the heaviest tails beyond the mean (Hoeffding 1956, Theorem 4); nearer to it the
        # bound is 1. The probability given x rises with x, so that its expectation is a sum over tails of x.
        counts = np.arange(1, total + 1)
        given = np.where(most <= n_rest * other - 1, binom.cdf(most, n_rest, other), 1.0)
        tails = np.where(counts - 1 >= total * rate, binom.sf(counts - 1, total, rate), 1.0)
        return min(1.0, float(given[0] + np.diff(given) @ tails))

    def detectable(self, rate: float, n_first: ArrayLike, n_second: ArrayLike, miss_rate: float = MISS_RATE) -> float:
        """Smallest rise of the mean rate in the second sample that is missed with at most `miss_rate`; 1.0 if none."""
        checked_rate("miss_rate", miss_rate)
        if not 0 <= rate <= 1:
            raise ValueError(f"rate = {rate} (expected a number from 0 to 1)")
        if self.miss_rate(rate, 1.0, n_first, n_second) > miss_rate:
            return 1.0
        low, high = 0.0, 1.0 - rate
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            missed = self.miss_rate(rate, rate + middle, n_first, n_second) > miss_rate
            low, high = (middle, high) if missed else (low, middle)
        return high

    def samples_needed(self, rate: float, rise: float, miss_rate: float = MISS_RATE) -> int:
        """Runs of each of two samples, shared out over texts alike, that miss a rise with at most `miss_rate`.

        Raises ValueError for a rise that has no room above the rate.
        """
        if not 0 < rise < 1 - rate:
            raise ValueError(f"rise = {rise} above a rate of {rate} (expected more than 0 and less than {1 - rate})")
        checked_rate("miss_rate", miss_rate)
        return fewest(lambda n: float(self.miss_rate(rate, rate + rise, [n], [n]) > miss_rate), rise)


def share_law(pooled: Counts, n_first: Counts, n_second: Counts) -> tuple[int, NDArray[np.float64]]:
    """Law of the first sample's count over all texts given pooled counts: its least value, then probabilities."""
    least, law = 0, np.ones(1)
    for count, one, other in zip(pooled.tolist(), n_first.tolist(), n_second.tolist(), strict=True):
        least += max(0, count - other)
        law = np.convolve(law, _share_of_one(count, one, other))
    return least, law


@lru_cache(maxsize=100_000)
def _share_of_one(pooled: int, n_first: int, n_second: int) -> NDArray[np.float64]:
    counts = np.arange(max(0, pooled - n_second), min(pooled, n_first) + 1)
    return np.asarray(hypergeom.pmf(counts, n_first + n_second, pooled, n_first), dtype=np.float64)


def _most_accepted(alpha: float, n_first: Counts, n_second: Counts) -> Counts:
    """For every first count the largest second one that may be accepted, whatever the texts' counts are.

    A hypergeometric count is a sum of independent indicators (Vatutin and Mikhailov 1982, "Limit theorems for the
    number of empty cells"), so that given m in all, the first sample's has lighter tails than m indicators of one
    probability (Hoeffding 1956, "On the distribution of the number of successes in independent trials", Theorem 4). The
    same holds for the runs that do not count; the better of the two bounds is taken.
    """
    total = int((n_first + n_second).sum())
    share = n_first / (n_first + n_second)
    pooled = np.arange(total + 1)
    half = alpha / 2 * (1 - 10 * ROUNDING)
    lowest = _lower_limit(half, pooled, float(share.min()))
    highest_of_others = pooled - _lower_limit(half, pooled, float((1 - share).min()))
    lowest = np.maximum(lowest, int(n_first.sum()) - highest_of_others[::-1])
    # Both limits rise by 0 or 1 with each pooled count, so that those accepted are an interval.
    counts = np.arange(int(n_first.sum()) + 1)
    return np.searchsorted(lowest, counts, side="right") - 1 - counts


def _lower_limit(rate: float, trials: Counts, probability: float) -> Counts:
    """Largest count below which a binomial one lies with at most `rate`; at most its mean, where the bound ends."""
    quantile = binom.ppf(rate, trials, probability)
    return np.asarray(np.maximum(0, np.minimum(quantile, np.floor(trials * probability))), dtype=np.int64)


def _whole(values: ArrayLike) -> Counts:
    found = np.atleast_1d(np.asarray(values))
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"counts of shape {found.shape} and type {found.dtype} (expected whole numbers, one a text)")
    return found.astype(np.int64)


def _checked(first: ArrayLike, n_first: ArrayLike, second: ArrayLike, n_second: ArrayLike) -> tuple[Counts, ...]:
    one, n_one, other, n_other = (_whole(values) for values in (first, n_first, second, n_second))
    if not one.shape == n_one.shape == other.shape == n_other.shape:
        raise ValueError(f"counts of {len(one)}, {len(n_one)}, {len(other)} and {len(n_other)} texts")
    for name, counts, n in (("first", one, n_one), ("second", other, n_other)):
        if ((counts < 0) | (counts > n)).any():
            raise ValueError(f"{name} = {counts.tolist()} (expected 0 to {n.tolist()})")
    both = (n_one > 0) & (n_other > 0)
    return one[both], n_one[both], other[both], n_other[both]


def _comparable(pooled: Counts, n_first: Counts, n_second: Counts) -> tuple[Counts, Counts, Counts]:
    """Without texts of which one sample has no runs."""
    both = (n_first > 0) & (n_second > 0)
    return pooled[both], n_first[both], n_second[both]
