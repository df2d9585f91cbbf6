"""Goodness of fit of draws from a known distribution, by total variation, with bounds that hold at every alpha.

The empirical distribution of n draws is at total variation D from the true one. One draw changes D by at most 1/n, so
by McDiarmid's inequality D exceeds its expectation by t, or falls short of it by t, with probability at most
exp(-2 n t^2) each, whatever the distribution, the number of tokens and the alpha. The expectation is exact: a sum of
mean absolute deviations of binomials, for which de Moivre found a closed form. No asymptotics, so no wrong tails.

If the draws come from another distribution at total variation d, there is a set of tokens whose probability is off by
d, and Hoeffding's inequality for that set bounds the miss rate, in whichever direction the error lies.

Sources: McDiarmid 1989, "On the method of bounded differences", Lemma 1.2; Diaconis and Zabell 1991, "Closed form
summation for classical distributions", equation 1.1.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlog1py, xlogy

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest, hoeffding_reach

Array = NDArray[np.float64]


def mean_absolute_deviations(n: int, probabilities: Array) -> Array:
    """E|X - n p| of a binomial X for each p: 2 (1 - p) m C(n, m) p^m (1 - p)^(n - m) with m = floor(n p) + 1."""
    p = np.asarray(probabilities, dtype=np.float64)
    m = np.minimum(np.floor(n * p) + 1, n)
    log_pmf = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, p) + xlog1py(n - m, -p)
    return np.where(p < 1, 2 * (1 - p) * m * np.exp(log_pmf), 0.0)


def expected_variation(n: int, probabilities: Array) -> float:
    """Expectation of the total variation between n draws and the distribution (V,) that they come from."""
    return float(mean_absolute_deviations(n, probabilities).sum() / (2 * n))


@dataclass(frozen=True, eq=False)
class Multinomial:
    """Whether draws follow `probabilities` (V,), with false alarms at most `alpha`, half of it on either side.

    Too far is a wrong distribution. Too near is a wrong generator: noise that is reused or stratified.
    """

    probabilities: Array
    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for what is no distribution or no error rate."""
        checked_rate("alpha", self.alpha)
        if (self.probabilities < 0).any() or not math.isclose(self.probabilities.sum(), 1, abs_tol=1e-9):
            raise ValueError(f"the probabilities sum to {self.probabilities.sum()} (expected 1, none negative)")

    def accepted(self, n: int) -> tuple[float, float]:
        """Smallest and largest total variation that is not rejected."""
        expected, reach = expected_variation(n, self.probabilities), hoeffding_reach(self.alpha / 2, n)
        return max(0.0, expected - reach), expected + reach

    def judge(self, counts: NDArray[np.int64]) -> Judgement:
        """counts: draws of each token (V,). The statistic is the distance from the expectation, either way."""
        n = int(counts.sum())
        variation = float(np.abs(counts / n - self.probabilities).sum() / 2)
        distance = abs(variation - expected_variation(n, self.probabilities))
        p_value = min(1.0, 2 * math.exp(-2 * n * distance**2))
        return Judgement(distance, hoeffding_reach(self.alpha / 2, n), n, p_value)

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest total variation of a wrong distribution, in the worst direction, missed with at most `miss_rate`."""
        return min(1.0, self.accepted(n)[1] + hoeffding_reach(checked_rate("miss_rate", miss_rate), n))

    def sees_too_good(self, n: int) -> bool:
        """Whether draws that match the distribution exactly would be rejected."""
        return self.accepted(n)[0] > 0

    def samples_needed(self, variation: float, miss_rate: float = MISS_RATE) -> int:
        """Draws whose `detectable` is at most `variation`."""
        return fewest(lambda n: self.detectable(n, miss_rate), variation)
