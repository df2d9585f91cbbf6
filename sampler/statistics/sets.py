"""Frequencies of several sets of outcomes, each with a known probability: exact binomial tails, and the smallest.

Every set gets alpha / m (Bonferroni), half of it on either side (Clopper and Pearson 1934); the sets may overlap. One
token that is lost among thousands is one set, of which no draw is enough; in a distance of all tokens it would vanish.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv
from scipy.stats import binom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SetFrequencies:
    """Whether counts of sets follow `probabilities` (m,), with at most `alpha` false alarms for all sets together.

    tolerance: by how much each probability may be off without counting as wrong. Raises ValueError for a probability
    outside [0, 1], for no sets, and for an alpha outside (0, 1).
    """

    probabilities: Array
    alpha: float
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)
        p = self.probabilities
        if not len(p) or not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"the probabilities of {len(p)} sets are not all between 0 and 1")

    def p_values(self, counts: NDArray[np.int64], n: int) -> Array:
        """The doubled smaller tail of each set, times the number of sets; counts (m,) of n draws."""
        if counts.shape != self.probabilities.shape or (counts < 0).any() or (counts > n).any():
            raise ValueError(f"counts of shape {counts.shape} for {len(self.probabilities)} sets and {n} draws")
        low, high = self._allowed()
        k = counts.astype(np.float64)
        above = np.where(k > 0, betainc(np.maximum(k, 1), n - k + 1, high), 1.0)
        below = np.where(k < n, betainc(np.maximum(n - k, 1), k + 1, 1 - low), 1.0)
        return np.asarray(np.minimum(1.0, 2 * len(k) * np.minimum(above, below)))

    def judge(self, counts: NDArray[np.int64], n: int) -> tuple[Judgement, int]:
        """The judgement by the set with the smallest p-value, and which set that is.

        The statistic is -log10 of that p-value; its bound is -log10 alpha.
        """
        p_values = self.p_values(counts, n)
        worst = int(np.argmin(p_values))
        p_value = float(p_values[worst])
        statistic = -np.log10(max(p_value, 1e-300))
        return Judgement(float(statistic), float(-np.log10(self.alpha)), n, p_value), worst

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest error of the probability of any one set, in the worse direction, missed with at most `miss_rate`.

        As in Binomial, a direction in which no error can be detected counts with the room that it has for one. 1.0 if
        some set has neither.
        """
        checked_rate("miss_rate", miss_rate)
        p, (lowest, highest) = self.probabilities, self._allowed()
        level = self.alpha / (2 * len(p))
        low, high = binom.ppf(level, n, lowest), binom.isf(level, n, highest)
        up, down = high < n, low > 0
        more = betaincinv(np.where(up, n - high, 1), high + 1, miss_rate)
        less = betaincinv(np.where(down, low, 1), n - low + 1, miss_rate)
        rise, fall = np.where(up, 1 - more - p, 1 - p), np.where(down, p - less, p)
        return float(min(1.0, np.where(up | down, np.maximum(rise, fall), 1.0).max() + 1e-12))

    def _allowed(self) -> tuple[Array, Array]:
        """The smallest and the largest allowed probability of each set."""
        p = self.probabilities
        return np.maximum(p - self.tolerance, 0.0), np.minimum(p + self.tolerance, 1.0)
