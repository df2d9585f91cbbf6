"""Scalars (rank, surprisal, entropy): the largest distance between distribution functions.

Dvoretzky, Kiefer and Wolfowitz with Massart's constant: P(sup |F_n - F| > e) <= 2 exp(-2 n e^2) for every distribution,
atoms included. Source: Massart 1990, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", corollary 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, hoeffding_reach

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DistributionFunction:
    """Whether scalars follow a known discrete distribution, with false alarms at most `alpha`."""

    alpha: float

    def __post_init__(self) -> None:
        """Raises ValueError for an alpha out of range."""
        checked_rate("alpha", self.alpha)

    def judge(self, samples: Array, values: Array, probabilities: Array) -> Judgement:
        """Samples (n,); values (K,) of the distribution with their probabilities. The statistic is sup |F_n - F|."""
        places = np.unique(np.concatenate([samples, values]))
        order = np.argsort(values)
        cumulative = np.concatenate([[0.0], np.cumsum(probabilities[order])])
        expected = cumulative[np.searchsorted(values[order], places, side="right")]
        observed = np.searchsorted(np.sort(samples), places, side="right") / len(samples)
        return _judgement(float(np.abs(observed - expected).max()), len(samples), self.alpha)

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest distance of distribution functions that n samples miss with at most `miss_rate`."""
        return min(1.0, hoeffding_reach(self.alpha / 2, n) + hoeffding_reach(checked_rate("miss_rate", miss_rate), n))

    def samples_needed(self, distance: float, miss_rate: float = MISS_RATE) -> int:
        """Fewest samples whose `detectable` is at most `distance`: in closed form."""
        if not 0 < distance < 1:
            raise ValueError(f"distance = {distance} (expected a number between 0 and 1)")
        roots = math.sqrt(-math.log(self.alpha / 2)) + math.sqrt(-math.log(checked_rate("miss_rate", miss_rate)))
        return math.ceil((roots / distance) ** 2 / 2)


def _judgement(distance: float, n: int, alpha: float) -> Judgement:
    p_value = min(1.0, 2 * math.exp(-2 * n * distance**2))
    return Judgement(distance, hoeffding_reach(alpha / 2, n), n, p_value)
