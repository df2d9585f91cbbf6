"""Compare two samples of runs over the same texts: which sample has more successes (loops, missing ends), text by text.

Given the number of successes in a text, those of the first sample are a draw without replacement, whatever the rate of
that text. The sum over texts is then a sum of independent hypergeometric counts; nothing is assumed about the texts.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest
from sampler.statistics.share import most_likely_missed, reached_share
from sampler.statistics.sums import SLACK, drawn_marks

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class StratifiedCounts:
    """Whether two samples have the same success rate within each text; exact, with half of alpha for each tail.

    Arguments named first, second, n_first, n_second are whole numbers (S,): the successes of the runs of each of S
    texts, and the number of runs. Texts without runs in one sample are left out. Source: Birch 1964, "The detection of
    partial association, I: the 2 x 2 case", where it is the best test against odds that are raised alike in each text.
    """

    alpha: float

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)

    def judge(self, first: ArrayLike, n_first: ArrayLike, second: ArrayLike, n_second: ArrayLike) -> Judgement:
        """The statistic is -log10 of the doubled smaller tail, the bound -log10 alpha.

        Raises ValueError for counts that are not whole, exceed the number of runs, or belong to different texts.
        """
        one, n_one, other, n_other = _checked(first, n_first, second, n_second)
        law = drawn_marks((one + other).tolist(), n_one.tolist(), (n_one + n_other).tolist())
        count = int(one.sum())
        p_value = min(1.0, 2 * min(law.upper(count), law.lower(count)))
        return Judgement(0.0 - math.log10(p_value), -math.log10(self.alpha), int((n_one + n_other).sum()), p_value)

    def detectable_share(
        self, n_first: ArrayLike, n_second: ArrayLike, counted_second: int = 0, miss_rate: float = MISS_RATE
    ) -> float:
        """Smallest share of the first sample's runs that is missed with at most `miss_rate`; 1.0 if none.

        counted_second: successes of the second sample. The share is that of texts with both samples.

        Two facts are enough. Independent runs, whatever their probabilities, are less likely to fall short of a count
        than a binomial of the same mean (Hoeffding 1956, "On the distribution of the number of successes in independent
        trials", Theorem 4). And given M successes in all, P(first >= c) <= exp(-M KL(c / M, f)) with the largest share
        f of a text's runs that the first sample has (Hoeffding 1963, section 6).
        """
        checked_rate("miss_rate", miss_rate)
        n_one, n_other = _comparable(n_first, n_second)
        if not len(n_one):
            return 1.0
        fraction = float((n_one / (n_one + n_other)).max())
        return reached_share(most_likely_missed(self.alpha / 2, counted_second, fraction), int(n_one.sum()), miss_rate)

    def planned_share(self, runs: int, texts: int, rate: float = 0.0, miss_rate: float = MISS_RATE) -> float:
        """`detectable_share` with `runs` runs of each text in both samples, `rate`: of successes in the second."""
        return self.detectable_share([runs] * texts, [runs] * texts, round(rate * runs * texts), miss_rate)

    def samples_needed(self, share: float, texts: int, rate: float = 0.0, miss_rate: float = MISS_RATE) -> int:
        """Runs of each of `texts` texts, in both samples, with which `planned_share` is at most `share`.

        Raises ValueError for a share outside of the second sample's rate to 1.
        """
        if not rate < share < 1:
            raise ValueError(f"share = {share} (expected a number between {rate} and 1)")
        return fewest(lambda runs: self.planned_share(runs, texts, rate, miss_rate), share)

    def detectable_rise(
        self, rate: float, n_first: ArrayLike, n_second: ArrayLike, miss_rate: float = MISS_RATE
    ) -> float:
        """Smallest rise of the first sample's mean rate above the second's that is missed with at most `miss_rate`.

        rate: mean rate over the runs of the second sample. 1.0 if no rise is detected.
        """
        checked_rate("miss_rate", miss_rate)
        if not 0 <= rate <= 1:
            raise ValueError(f"rate = {rate} (expected a number from 0 to 1)")
        if self.miss_rate(1.0, rate, n_first, n_second) > miss_rate:
            return 1.0
        low, high = 0.0, 1.0 - rate
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            missed = self.miss_rate(rate + middle, rate, n_first, n_second) > miss_rate
            low, high = (middle, high) if missed else (low, middle)
        return high

    def miss_rate(self, first: float, second: float, n_first: ArrayLike, n_second: ArrayLike) -> float:
        """Largest probability of not rejecting if the first sample has the higher rate: a bound for any texts.

        first, second: mean rate over the runs of the two samples, however it is spread over texts.
        """
        n_one, n_other = _comparable(n_first, n_second)
        n_more, n_fewer = int(n_one.sum()), int(n_other.sum())
        if not n_more:
            return 1.0
        most = _most_accepted(self.alpha, n_other, n_one)
        # With a second count x a miss needs a first one up to most[x]. Of the sums of independent runs with a given
        # mean, that of equal rates has the heaviest tails beyond the mean (Hoeffding 1956, Theorem 4); nearer to it the
        # bound is 1. The probability given x rises with x, so its expectation is a sum over tails of x.
        counts = np.arange(1, n_fewer + 1)
        given = np.where(most <= n_more * first - 1, binom.cdf(most, n_more, first), 1.0)
        tails = np.where(counts - 1 >= n_fewer * second, binom.sf(counts - 1, n_fewer, second), 1.0)
        return min(1.0, float(given[0] + np.diff(given) @ tails))


def _most_accepted(alpha: float, n_fewer: Counts, n_more: Counts) -> Counts:
    """For every count of one sample the largest one of the other that may be accepted, whatever the counts of texts.

    A hypergeometric count is a sum of independent indicators (Vatutin and Mikhailov 1982, "Limit theorems for the
    number of empty cells"), so given m successes in all, one sample's count has lighter tails than m indicators of one
    probability (Hoeffding 1956, Theorem 4). The same holds for failures; the better of the two bounds is used.
    """
    total = int((n_fewer + n_more).sum())
    share = n_fewer / (n_fewer + n_more)
    pooled = np.arange(total + 1)
    half = alpha / 2 / SLACK**10
    lowest = _lower_limit(half, pooled, float(share.min()))
    highest_of_others = pooled - _lower_limit(half, pooled, float((1 - share).min()))
    lowest = np.maximum(lowest, int(n_fewer.sum()) - highest_of_others[::-1])
    # Both limits rise by 0 or 1 with each pooled count, so the accepted counts are an interval.
    counts = np.arange(int(n_fewer.sum()) + 1)
    return np.searchsorted(lowest, counts, side="right") - 1 - counts


def _lower_limit(rate: float, trials: Counts, probability: float) -> Counts:
    """Largest count that a binomial is below with at most `rate`; at most its mean, where the bound ends."""
    quantile = binom.ppf(rate, trials, probability)
    return np.asarray(np.maximum(0, np.minimum(quantile, np.floor(trials * probability))), dtype=np.int64)


def _whole(values: ArrayLike) -> Counts:
    found = np.atleast_1d(np.asarray(values))
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
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


def _comparable(n_first: ArrayLike, n_second: ArrayLike) -> tuple[Counts, Counts]:
    """Leave out texts without runs in one sample."""
    n_one, n_other = _whole(n_first), _whole(n_second)
    both = (n_one > 0) & (n_other > 0)
    return n_one[both], n_other[both]
