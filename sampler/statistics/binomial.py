"""One count with a known probability: exact binomial tails on both sides."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest


@dataclass(frozen=True)
class Binomial:
    """Whether a count of n trials follows `probability`, two-sided, with false alarms at most `alpha`.

    Each tail gets half of alpha and its exact quantile (Clopper and Pearson 1934), so that "too good" is no defence:
    a count that is too regular shows in the pooled coincidences (`independence`), not here.
    """

    probability: float
    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for a probability or an alpha out of range."""
        checked_rate("alpha", self.alpha)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability = {self.probability} (expected a number from 0 to 1)")

    def accepted(self, n: int) -> tuple[int, int]:
        """Smallest and largest count that is not rejected."""
        low = int(binom.ppf(self.alpha / 2, n, self.probability))
        high = int(binom.isf(self.alpha / 2, n, self.probability))
        return low, high

    def judge(self, count: int, n: int) -> Judgement:
        """The statistic is the doubled smaller tail's surprise, -log10 p, beside that of alpha."""
        tails = binom.cdf(count, n, self.probability), binom.sf(count - 1, n, self.probability)
        p_value = min(1.0, 2 * float(min(tails)))
        statistic = -np.log10(max(p_value, 1e-300))
        return Judgement(float(statistic), float(-np.log10(self.alpha)), n, p_value)

    def miss_rate(self, other: float, n: int) -> float:
        """Probability of not rejecting where the true probability is `other`."""
        low, high = self.accepted(n)
        return float(binom.cdf(high, n, other) - binom.cdf(low - 1, n, other))

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest difference of probabilities, in the worse direction, that is missed with at most `miss_rate`.

        A direction in which no probability would be missed seldom enough does not exist for the engine either: from
        0.001 downwards there is only 0.001 to lose. 1.0 where neither direction can be seen.
        """
        found = [self._in_direction(sign, n, checked_rate("miss_rate", miss_rate)) for sign in (1, -1)]
        return max((value for value in found if value is not None), default=1.0)

    def _in_direction(self, sign: int, n: int, miss_rate: float) -> float | None:
        room = 1 - self.probability if sign > 0 else self.probability

        def excess(difference: float) -> float:
            other = min(1.0, max(0.0, self.probability + sign * difference))
            return self.miss_rate(other, n) - miss_rate

        if room == 0 or excess(room) > 0:
            return None
        return float(brentq(excess, 0.0, room, xtol=1e-12))

    def samples_needed(self, difference: float, miss_rate: float = MISS_RATE) -> int:
        """Trials whose `detectable` is at most `difference`; exact tails make that a saw-tooth."""
        return fewest(lambda n: self.detectable(n, miss_rate), difference)
