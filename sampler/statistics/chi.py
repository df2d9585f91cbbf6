"""Bets against distributions that are near another one, by the chi distance.

The chi distance of p' from p is the standard deviation of p' / p under p, chi^2 = sum p (p' / p - 1)^2. For a payoff f

    sum p' f = sum p f + sum p (p' / p - 1) (f - sum p f) <= sum p f + chi sd_p(f)

by Cauchy and Schwarz, with equality for p' = p (1 + chi (f - sum p f) / sd_p(f)) where that is not negative.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def most_near(p: Array, pays: Array, kappa: Array | float) -> Array:
    """The largest expectation of pays (A, ..., K) under any p' within the chi distance kappa (...) of p (..., K)."""
    mean = (p * pays).sum(axis=-1)
    deviation = np.sqrt((p * (pays - mean[..., None]) ** 2).sum(axis=-1))
    return np.asarray(mean + kappa * deviation)


def distance_by(p: Array, error: Array) -> Array:
    """The chi distance (...) that independent errors of log-probabilities of these sizes give, in root mean square.

    To first order p' / p - 1 is the error less its mean under p, so that chi^2 has the mean sum p (1 - p) error^2.
    """
    return np.asarray(np.sqrt((p * (1 - p) * error**2).sum(axis=-1)))
