"""Test of one count with a known probability: exact binomial tails on both sides."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate


@dataclass(frozen=True)
class Binomial:
    """Whether a count of n trials follows `probability`, two-sided, with false alarms at most `alpha`.

    Each tail gets half of alpha and its exact quantile (Clopper and Pearson 1934).
    """

    probability: float
    alpha: float

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability = {self.probability} (expected a number from 0 to 1)")

    def accepted(self, n: int) -> tuple[int, int]:
        """Smallest and largest count that is not rejected."""
        low = int(binom.ppf(self.alpha / 2, n, self.probability))
        high = int(binom.isf(self.alpha / 2, n, self.probability))
        return low, high

    def judge(self, count: int, n: int) -> Judgement:
        """The statistic is the surprise of the doubled smaller tail, -log10 p; its bound is -log10 alpha.

        Raises ValueError for a count outside 0..n.
        """
        if not 0 <= count <= n:
            raise ValueError(f"count = {count} (expected 0 to {n})")
        tails = binom.cdf(count, n, self.probability), binom.sf(count - 1, n, self.probability)
        p_value = min(1.0, 2 * float(min(tails)))
        statistic = -np.log10(max(p_value, 1e-300))
        return Judgement(float(statistic), float(-np.log10(self.alpha)), n, p_value)

    def miss_rate(self, other: float, n: int) -> float:
        """Probability of not rejecting if the true probability is `other`."""
        low, high = self.accepted(n)
        return float(binom.cdf(high, n, other) - binom.cdf(low - 1, n, other))

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest difference of probabilities, in the worse direction, that is missed with at most `miss_rate`.

        Every probability at least that far away is detected. A direction in which none is detected has no room for an
        error either: below 0.001 there is only 0.001 to lose. 1.0 if neither direction is detected.
        """
        checked_rate("miss_rate", miss_rate)
        rooms = {1: 1 - self.probability, -1: self.probability}
        found = {sign: self._in_direction(sign, room, n, miss_rate) for sign, room in rooms.items()}
        if all(value is None for value in found.values()):
            return 1.0
        return max(rooms[sign] if value is None else value for sign, value in found.items())

    def _in_direction(self, sign: int, room: float, n: int, miss_rate: float) -> float | None:
        def excess(difference: float) -> float:
            other = min(1.0, max(0.0, self.probability + sign * difference))
            return self.miss_rate(other, n) - miss_rate

        if n == 0 or room == 0 or excess(room) > 0:
            return None
        # The root is between two numbers 1e-12 apart, of which the larger has a small enough miss rate.
        return min(room, float(brentq(excess, 0.0, room, xtol=1e-12)) + 1e-12) if excess(0.0) > 0 else 0.0
