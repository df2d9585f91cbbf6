"""Maximum likelihood over the tokens of many steps: fits, and intervals from the profile of the likelihood."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2

from sampler.checks.scoring.candidates import Candidates

Array = NDArray[np.float64]
Energies = Callable[[Array], Array]
"""From the values of the parameters to the logarithm of each token's weight, (P,) -> (K,)."""

CHANGE = 1e-5
"""Of a parameter, for central differences."""

MOST_STEPS = 60
"""Of a fit."""

ENOUGH = 1e-4
"""Twice the nats that a fit may lack."""

LONGEST = 0.5
"""The largest change of a parameter in one step of a fit."""

DROP = float(chi2.isf(0.05, 1)) / 2
"""By how much the profile of the log-likelihood falls at the ends of a 95 % interval (Wilks)."""


@dataclass(frozen=True, eq=False)
class Fit:
    """values: (P,), with the likeliest free ones. height: the log-likelihood there. covariance: (P, P), 0 if fixed."""

    values: Array
    height: float
    covariance: Array

    @property
    def errors(self) -> Array:
        """Standard errors, (P,)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The probability of what was drawn among the candidates. limits: the least and largest values, (2, P)."""

    candidates: Candidates
    energies: Energies
    limits: Array

    def height(self, values: Array) -> float:
        return self._weighed(self.energies(values))[0]

    def fit(self, start: Array, free: Sequence[int], enough: float = ENOUGH) -> Fit:
        """By Fisher scoring: the curvature is that of the expected log-likelihood, and a step that loses is halved.

        enough: twice the nats that may be lacking at the end.
        """
        values, at = np.clip(start, *self.limits), np.asarray(free, dtype=np.int64)
        height, gradient, information = self._expanded(values, at)
        for _ in range(MOST_STEPS):
            change = np.linalg.pinv(information, hermitian=True) @ gradient
            change *= min(1.0, LONGEST / max(np.abs(change).max(initial=0.0), 1e-12))
            if gradient @ change < enough:
                break
            size = 1.0
            while size > 1e-3:
                other = values.copy()
                other[at] += size * change
                other = np.clip(other, *self.limits)
                if self.height(other) > height:
                    break
                size /= 2
            else:
                break
            values = other
            height, gradient, information = self._expanded(values, at)
        covariance = np.zeros((len(values), len(values)))
        covariance[np.ix_(at, at)] = _inverse(information)
        return Fit(values, height, covariance)

    def interval(self, fit: Fit, free: Sequence[int], place: int) -> tuple[float, float]:
        """The 95 % interval of one of the free parameters; an end at the limit if the likelihood never falls enough."""
        low, high = (self._end(fit, free, place, sign) for sign in (-1, 1))
        return low, high

    def _end(self, fit: Fit, free: Sequence[int], place: int, sign: int) -> float:
        """Where the fall of the profile reaches DROP: the root of it is nearly linear in the distance."""
        best, limit = float(fit.values[place]), float(self.limits[(sign + 1) // 2, place])
        farthest = abs(limit - best)

        def excess(distance: float) -> float:
            fall = fit.height - self._profile(fit, free, place, sign * distance)
            return float(max(fall, 0.0) ** 0.5 - DROP**0.5)

        reach = min(2.2 * float(fit.errors[place]), farthest)
        while reach < farthest and excess(reach) < 0:
            reach = min(2 * reach, farthest)
        if reach == farthest and excess(reach) < 0:
            return limit
        return best + sign * float(brentq(excess, 0.0, reach, xtol=1e-6, rtol=2e-3))

    def _profile(self, fit: Fit, free: Sequence[int], place: int, change: float) -> float:
        """The largest log-likelihood with a parameter off by so much; the others start where it moves them at first."""
        others, values = [one for one in free if one != place], fit.values.copy()
        values[others] += fit.covariance[others, place] / fit.covariance[place, place] * change
        values[place] += change
        return self.fit(values, others).height

    def _weighed(self, energies: Array) -> tuple[float, Array]:
        """The log-likelihood, and each token's probability in its step, (K,)."""
        some = self.candidates
        top = np.maximum.reduceat(energies, some.starts)
        weights = np.exp(energies - top[some.steps])
        total = np.add.reduceat(weights, some.starts)
        return float((energies[some.drawn] - top - np.log(total)).sum()), weights / total[some.steps]

    def _expanded(self, values: Array, free: NDArray[np.int64]) -> tuple[float, Array, Array]:
        """The log-likelihood, its gradient and the Fisher information for the free parameters."""
        height, p = self._weighed(self.energies(values))
        slopes = np.empty((len(free), len(p)))
        for row, place in enumerate(free):
            change = np.zeros(len(values))
            change[place] = CHANGE
            slopes[row] = (self.energies(values + change) - self.energies(values - change)) / (2 * CHANGE)
            means = np.add.reduceat(slopes[row] * p, self.candidates.starts)
            slopes[row] -= means[self.candidates.steps]
        return height, slopes[:, self.candidates.drawn].sum(axis=1), (slopes * p) @ slopes.T


def _inverse(information: Array) -> Array:
    """With a variance of 100 for what the tokens say nothing of."""
    return np.asarray(np.linalg.inv(information + 0.01 * np.eye(len(information))))
