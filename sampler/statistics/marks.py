"""Runs that are marked without a look at whose they are: how many of the marks fall to each side, text by text.

Missing ends, forced ends and runs that another run repeats are such marks. Under the hypothesis the runs of a text are
exchangeable, so that the marks of the first side are a sum of hypergeometric counts (Fisher's test in every text).

For the power two facts are enough. Marks of independent runs, whatever each one's probability, fall short of a count
more seldom than those of a binomial of the same mean (Hoeffding 1956, "On the distribution of the number of successes
in independent trials", theorem 4). And given M marks in all, P(count >= c) <= exp(-M KL(c / M, f)), where f is the
largest share of a text's runs that the first side has, for a hypergeometric count is no more spread than a binomial one
(Hoeffding 1963, section 6).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import binom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest
from sampler.statistics.sums import drawn_marks

Counts = Sequence[int]


@dataclass(frozen=True)
class MarkedRuns:
    """Whether the first side has as many marks as the second, two-sided, with false alarms at most `alpha`."""

    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for an alpha out of range."""
        checked_rate("alpha", self.alpha)

    def judge(self, first: Counts, n_first: Counts, second: Counts, n_second: Counts) -> Judgement:
        """Marks and runs of each text on both sides. The statistic is -log10 of the doubled tail, beside alpha's.

        Texts without one side are left out. Raises ValueError for another number of texts or marks without runs.
        """
        sides = list(zip(first, n_first, second, n_second, strict=True))
        if any(one > drawn or other > rest for one, drawn, other, rest in sides):
            raise ValueError("a text has more marks than runs")
        both = [each for each in sides if each[1] and each[3]]
        law = drawn_marks(
            [one + other for one, _, other, _ in both],
            [drawn for _, drawn, _, _ in both],
            [drawn + rest for _, drawn, _, rest in both],
        )
        count = sum(one for one, *_ in both)
        p_value = min(1.0, 2 * min(law.upper(count), law.lower(count)))
        runs = sum(drawn + rest for _, drawn, _, rest in both)
        return Judgement(0.0 - math.log10(p_value), -math.log10(self.alpha), runs, p_value)

    def detectable(
        self, n_first: Counts, n_second: Counts, marked_second: int = 0, miss_rate: float = MISS_RATE
    ) -> float:
        """Smallest share of marks among the first side's runs that is missed with at most `miss_rate`; 1.0 if none.

        marked_second: marks of the second side. The share is that of texts with both sides.
        """
        checked_rate("miss_rate", miss_rate)
        both = [(one, other) for one, other in zip(n_first, n_second, strict=True) if one and other]
        if not both:
            return 1.0
        fraction = max(one / (one + other) for one, other in both)
        runs = sum(one for one, _ in both)
        return reached_share(most_likely_missed(self.alpha / 2, marked_second, fraction), runs, miss_rate)

    def planned(self, runs: int, texts: int, rate: float = 0.0, miss_rate: float = MISS_RATE) -> float:
        """What `detectable` will be with `runs` runs of each text on either side, a share of `rate` of the second's."""
        return self.detectable([runs] * texts, [runs] * texts, round(rate * runs * texts), miss_rate)

    def samples_needed(self, share: float, texts: int, rate: float = 0.0, miss_rate: float = MISS_RATE) -> int:
        """Runs of each of `texts` texts, on either side, with which `planned` is at most `share`.

        Raises ValueError for a share that is not between the second side's rate and 1.
        """
        if not rate < share < 1:
            raise ValueError(f"share = {share} (expected a number between {rate} and 1)")
        return fewest(lambda runs: self.planned(runs, texts, rate, miss_rate), share)


def most_likely_missed(rate: float, others: int, fraction: float) -> int:
    """The largest count beside `others` marks of the second side that Chernoff's bound does not put below `rate`."""
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


def reached_share(missed: int, runs: int, miss_rate: float) -> float:
    """Mean probability of `runs` independent marks that leaves at most `missed` of them with `miss_rate`; 1.0: none.

    The binomial is the worst case only where missed + 1 is no more than the mean, which the answer respects.
    """
    if missed >= runs:
        return 1.0
    least = (missed + 1) / runs
    if binom.cdf(missed, runs, least) <= miss_rate:
        return least
    if least == 1.0:
        return 1.0
    return float(brentq(lambda share: binom.cdf(missed, runs, share) - miss_rate, least, 1.0)) + 1e-9
