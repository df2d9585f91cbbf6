"""Test of a share of runs against a given bound: exact binomial tails on one side.

A success is a run with the tested property. Runs may have different probabilities of it: if their mean is at most
`share`, a count above the mean by one or more is no more likely than for a binomial count (Hoeffding 1956, "On the
distribution of the number of successes in independent trials", theorem 4), and likewise below.
"""

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import binom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate


def reached_share(missed: int, runs: int, miss_rate: float) -> float:
    """Mean success probability of `runs` runs with at most `missed` successes with probability `miss_rate`; 1.0: none.

    The binomial is the worst case only if missed + 1 is at most the mean, which the answer respects.
    """
    if missed >= runs:
        return 1.0
    least = (missed + 1) / runs
    if binom.cdf(missed, runs, least) <= miss_rate:
        return least
    if least == 1.0:
        return 1.0
    return float(brentq(lambda share: binom.cdf(missed, runs, share) - miss_rate, least, 1.0)) + 1e-9


def most_likely_missed(rate: float, others: int, fraction: float) -> int:
    """The largest count, next to `others` of the second sample, that Chernoff's bound does not put below `rate`."""
    enough = -math.log(rate)

    def surprise(count: int) -> float:
        share = count / (count + others)
        if share <= fraction:
            return 0.0
        return float((count + others) * (rel_entr(share, fraction) + rel_entr(1 - share, 1 - fraction)))

    high = 1
    while surprise(high) < enough:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if surprise(middle) < enough else (low, middle)
    return high - 1


@dataclass(frozen=True)
class AtMost:
    """Whether the mean success probability is at most `share`, with false alarms at most `alpha`."""

    share: float
    alpha: float

    def __post_init__(self) -> None:
        checked_rate("share", self.share)
        checked_rate("alpha", self.alpha)

    def most(self, n: int) -> int:
        allowed = int(binom.isf(self.alpha, n, self.share))
        return max(allowed, math.ceil(n * self.share))

    def judge(self, count: int, n: int) -> Judgement:
        """The statistic is the count, the bound the largest allowed one. Raises ValueError for a count outside 0..n."""
        if not 0 <= count <= n:
            raise ValueError(f"count = {count} (expected 0 to {n})")
        if not n:
            return Judgement(0.0, math.inf, 0, 1.0)
        p_value = float(binom.sf(count - 1, n, self.share)) if count >= n * self.share + 1 else 1.0
        return Judgement(float(count), float(self.most(n)), n, p_value)

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest mean probability that is missed with at most `miss_rate`; 1.0 if there is none."""
        checked_rate("miss_rate", miss_rate)
        return reached_share(self.most(n) if n else 0, n, miss_rate)


@dataclass(frozen=True)
class AtLeast:
    """Whether the mean success probability is at least `share`: that of a failure is at most 1 - share."""

    share: float
    alpha: float

    def __post_init__(self) -> None:
        checked_rate("share", self.share)
        checked_rate("alpha", self.alpha)

    def judge(self, count: int, n: int) -> Judgement:
        """The statistic is the number of failures, the bound the largest allowed one."""
        return AtMost(1 - self.share, self.alpha).judge(n - count, n)

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Largest mean success probability that is missed with at most `miss_rate`; 0.0 if there is none."""
        return 1 - AtMost(1 - self.share, self.alpha).detectable(n, miss_rate)
