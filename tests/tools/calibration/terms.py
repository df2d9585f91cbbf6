"""The terms of the total variation of multinomial counts."""

import numpy as np
from scipy.special import gammaln, xlogy

from tests.tools.calibration.distributions import Array
from tests.tools.calibration.separable import Term

REACH = 12
"""Counts further than so many standard deviations, and 30, from their mean are left out: less than 1e-25."""


def multinomial_terms(n: int, pmf: Array) -> list[Term]:
    """Poisson weights; the terms sum to the total variation between n draws and pmf."""
    terms = []
    for p in pmf[pmf > 0]:
        mean = n * p
        counts = _window(mean, np.sqrt(mean), 0, n)
        log_weight = xlogy(counts, mean) - gammaln(counts + 1.0)
        terms.append(Term(counts, log_weight, np.abs(counts / n - p) / 2))
    return terms


def _window(mean: float, deviation: float, least: int, most: int) -> np.ndarray:
    reach = REACH * deviation + 30
    return np.arange(max(least, int(mean - reach)), min(most, int(mean + reach)) + 1)
