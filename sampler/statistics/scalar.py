"""Test of scalars (rank, surprisal, entropy) by the largest distance between distribution functions.

Dvoretzky, Kiefer and Wolfowitz with Massart's constant: P(sup |F_n - F| > e) <= 2 exp(-2 n e^2) for every distribution,
atoms included. Source: Massart 1990, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", corollary 1.

A distribution at distance d has one half-line whose probability is off by d, so the power is that of one set
(`power.reach_of_one_set`).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, hoeffding_reach
from sampler.statistics.power import reach_of_one_set

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DistributionFunction:
    """Whether scalars follow a known discrete distribution, with false alarms at most `alpha`."""

    alpha: float

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)

    def judge(self, samples: Array, values: Array, probabilities: Array) -> Judgement:
        """Samples (n,); values (K,) of the distribution with their probabilities. The statistic is sup |F_n - F|.

        Raises ValueError for probabilities that do not sum to 1, and for NaN among the samples.
        """
        if (probabilities < 0).any() or not math.isclose(probabilities.sum(), 1, abs_tol=1e-9):
            raise ValueError(f"the probabilities sum to {probabilities.sum()} (expected 1, none negative)")
        if np.isnan(samples).any():
            raise ValueError(f"{int(np.isnan(samples).sum())} of {len(samples)} samples are NaN")
        if len(samples) == 0:
            return _judgement(0.0, 0, self.alpha)
        places = np.unique(np.concatenate([samples, values]))
        order = np.argsort(values)
        cumulative = np.concatenate([[0.0], np.cumsum(probabilities[order])])
        expected = cumulative[np.searchsorted(values[order], places, side="right")]
        observed = np.searchsorted(np.sort(samples), places, side="right") / len(samples)
        return _judgement(float(np.abs(observed - expected).max()), len(samples), self.alpha)

    def detectable(self, n: int, miss_rate: float = MISS_RATE) -> float:
        """Smallest distance of distribution functions that n samples miss with at most `miss_rate`."""
        return reach_of_one_set(hoeffding_reach(self.alpha / 2, n), n, checked_rate("miss_rate", miss_rate))


def _judgement(distance: float, n: int, alpha: float) -> Judgement:
    p_value = min(1.0, 2 * math.exp(-2 * n * distance**2))
    return Judgement(distance, hoeffding_reach(alpha / 2, n), n, p_value)
