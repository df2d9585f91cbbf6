"""Sums of many values beside those of a right engine: after how many they are larger than chance makes them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm

from tests.duel.tokens import ALPHA

TILTS = np.concatenate([[0.0], np.geomspace(1e-4, 1e5, 600)])
"""Of the null distribution, in units of one over its largest value."""


@dataclass(frozen=True)
class Null:
    """The values of a right engine, 0 or more: a sum of N values is compared with N independent draws from them.

    The rate of a mean m is I(m) = max over t of t m - ln E exp(t x) (Cramér). A sum is rejected at a false-alarm rate
    alpha if 2 N I(m) >= z^2, z the normal quantile of 1 - alpha: the signed root of the likelihood ratio, exact for
    normal values (Barndorff-Nielsen 1986, doi:10.1093/biomet/73.2.307). A mean above all values of the null is
    rejected at once, although so few values say little of 1e-6: a favour.
    """

    values: np.ndarray

    @cached_property
    def _cumulants(self) -> tuple[np.ndarray, np.ndarray]:
        """The tilts, and ln E exp(t x) of each."""
        values, counts = np.unique(self.values, return_counts=True)
        largest = values[-1] or 1e-300
        exponents = np.outer(TILTS, values / largest)
        highest = exponents[:, -1]
        means = np.exp(exponents - highest[:, None]) @ (counts / counts.sum())
        return TILTS / largest, highest + np.log(means)

    def rejects_after(self, values: np.ndarray, alpha: float = ALPHA) -> int | None:
        """The first number of values whose sum is rejected."""
        tilts, cumulants = self._cumulants
        numbers = np.arange(1, len(values) + 1)
        means = np.cumsum(values) / numbers
        rates = (np.outer(means, tilts) - cumulants).max(axis=1, initial=0)
        above = (2 * numbers * rates >= norm.isf(alpha) ** 2) & (means > self.values.mean())
        above |= means > self.values.max()
        return int(above.argmax()) + 1 if above.any() else None
