"""The terms of the total variation: of multinomial counts, and of counts split between two samples."""

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


def split_terms(pooled: np.ndarray, n_first: int) -> list[Term]:
    """Weights C(c, k): of the pooled counts c, k fall to the first sample of n_first."""
    total = int(pooled.sum())
    share = n_first / total
    terms = []
    for count in pooled[pooled > 0].tolist():
        counts = _window(count * share, np.sqrt(count * share * (1 - share)), 0, count)
        # share^k (1 - share)^(c - k) is the same for every split, and keeps the numbers small.
        log_weight = xlogy(counts, share) + xlogy(count - counts, 1 - share)
        log_weight = log_weight - gammaln(counts + 1.0) - gammaln(count - counts + 1.0)
        terms.append(Term(counts, log_weight, np.abs(counts / n_first - (count - counts) / (total - n_first)) / 2))
    return terms


def _window(mean: float, deviation: float, least: int, most: int) -> np.ndarray:
    reach = REACH * deviation + 30
    return np.arange(max(least, int(mean - reach)), min(most, int(mean + reach)) + 1)
