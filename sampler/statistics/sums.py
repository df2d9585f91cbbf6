"""The law of a sum of independent counts, exact in the far tails; conditional tests over strata are based on it.

Plain convolution by Fourier transform is accurate to 1e-16 of the largest probability, which is useless for a tail of
1e-20. Each summand is therefore tilted first, p_k exp(theta k) / M(theta), so that the requested place becomes the
mean; the transform is accurate there, and the tilt is then reversed. Source: Keich 2005, "sFFT: a faster accurate
computation of the p-value of the entropy score".
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.optimize import brentq
from scipy.stats import hypergeom

Array = NDArray[np.float64]

STEEPEST = 60.0
"""The largest tilt: a count one below the most likely one then has the weight exp(-60)."""

SMALLEST = 1e-300
"""Lower limit for the probability of any possible event."""

SLACK = 1 + 1e-9
"""Tails are raised by this factor, a thousand times their rounding, so that none is below the true one."""


@dataclass(frozen=True, eq=False)
class SumLaw:
    """The sum of independent counts. parts: for each of them the probabilities (K,) of 0 to K - 1."""

    parts: tuple[Array, ...]

    @cached_property
    def most(self) -> int:
        return sum(len(part) - 1 for part in self.parts)

    @cached_property
    def mean(self) -> float:
        return self._tilted_mean(0.0)

    def upper(self, value: int) -> float:
        """P(sum >= value), too large by at most 1e-9 of itself and never too small."""
        if value <= 0:
            return 1.0
        if value > self.most:
            return 0.0
        return max(SMALLEST, float(self._tails(self._tilt(value), value)[0]))

    def lower(self, value: int) -> float:
        return self.mirrored.upper(self.most - value)

    def critical(self, rate: float) -> int:
        """Smallest value with P(sum >= value) <= rate; one more than the largest sum if there is none below."""
        theta = self._chernoff_tilt(rate)
        start = max(0, math.floor(self._tilted_mean(theta) - 40 / max(theta, 1e-3)))
        tails = self._tails(theta, start)
        return start + int(np.argmax(np.append(tails, 0.0) <= rate))

    @cached_property
    def mirrored(self) -> "SumLaw":
        """The law of the largest sum minus the sum."""
        return SumLaw(tuple(part[::-1] for part in self.parts))

    @cached_property
    def _groups(self) -> tuple[Array, Array]:
        """Logarithms of the different parts, (P, K) padded with -inf, and how often each occurs, (P,)."""
        repeats = Counter(part.tobytes() for part in self.parts)
        different = {part.tobytes(): part for part in self.parts}
        logs = np.full((len(different), max((len(part) for part in different.values()), default=1)), -np.inf)
        with np.errstate(divide="ignore"):
            for row, part in zip(logs, different.values(), strict=True):
                row[: len(part)] = np.log(part)
        return logs, np.array([repeats[key] for key in different], dtype=np.float64)

    def _tilted(self, theta: float) -> tuple[Array, float]:
        """Tilted probabilities of the different parts, (P, K), and the logarithm of M(theta) of the whole sum."""
        logs, times = self._groups
        log_weights = logs + theta * np.arange(logs.shape[1])
        top = log_weights.max(axis=1, keepdims=True)
        weights = np.exp(log_weights - top)
        totals = weights.sum(axis=1, keepdims=True)
        return weights / totals, float(times @ (top + np.log(totals))[:, 0])

    def _tilted_mean(self, theta: float) -> float:
        weights, times = self._tilted(theta)[0], self._groups[1]
        return float(times @ (weights @ np.arange(weights.shape[1])))

    def _tilt(self, value: float) -> float:
        """The tilt that gives the mean `value`; 0 below the mean."""
        if value <= self.mean:
            return 0.0
        if self._tilted_mean(STEEPEST) <= value:
            return STEEPEST
        return float(brentq(lambda theta: self._tilted_mean(theta) - value, 0.0, STEEPEST, xtol=1e-9))

    def _chernoff_tilt(self, rate: float) -> float:
        """The tilt at whose mean Chernoff's bound equals `rate`: slightly beyond the true quantile."""

        def excess(theta: float) -> float:
            return self._tilted(theta)[1] - theta * self._tilted_mean(theta) - math.log(rate)

        return float(brentq(excess, 0.0, STEEPEST, xtol=1e-6)) if excess(STEEPEST) < 0 else STEEPEST

    def _tails(self, theta: float, start: int) -> Array:
        """P(sum >= x) for x from `start` to the largest sum, accurate around the mean of the tilt and above it."""
        length = next_fast_len(self.most + 1, real=True)
        spectrum = np.ones(length // 2 + 1, dtype=np.complex128)
        weights, log_moment = self._tilted(theta)
        for row, times in zip(weights, self._groups[1], strict=True):
            spectrum *= rfft(row[:length], length) ** times
        pmf = np.maximum(irfft(spectrum, length)[start : self.most + 1], 0.0)
        steps = np.arange(len(pmf))
        # exp(-theta x) relative to `start`, so that nothing overflows; summing from above keeps the digits of the tail
        sums = np.cumsum((pmf * np.exp(-theta * steps))[::-1])[::-1]
        return np.asarray(np.minimum(1.0, SLACK * np.exp(log_moment - theta * start) * sums))


def drawn_marks(marked: Sequence[int], first: Sequence[int], total: Sequence[int]) -> SumLaw:
    """The number of marked items on the first side, if in each stratum any `first` of `total` items are equally likely.

    It is a sum of hypergeometric counts, each from 0; strata with only one possible count are left out.
    """
    parts = []
    for successes, drawn, size in zip(marked, first, total, strict=True):
        if 0 < successes <= size and 0 < drawn <= size:
            parts.append(np.asarray(hypergeom.pmf(np.arange(min(successes, drawn) + 1), size, successes, drawn)))
    return SumLaw(tuple(parts))
