"""The law of a sum of independent counts, exact however far out: what conditional tests over strata are made of.

Plain convolution by Fourier transform is right to 1e-16 of the largest probability, which is no use for a tail of
1e-20. Each summand is therefore tilted first, p_k exp(theta k) / M(theta), so that the place that is asked for becomes
the mean; the transform is right there, and the tilt is taken back. Source: Keich 2005, "sFFT: a faster accurate
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
"""The largest tilt: a count one below the most likely one then weighs exp(-60)."""

SMALLEST = 1e-300
"""No probability of something that can happen is said to be less."""

SLACK = 1 + 1e-9
"""Tails are raised by so much, a thousand times their rounding, so that none is smaller than the true one."""


@dataclass(frozen=True, eq=False)
class SumLaw:
    """The sum of independent counts. parts: probabilities (K,) of 0 to K - 1 of each of them."""

    parts: tuple[Array, ...]

    @cached_property
    def most(self) -> int:
        return sum(len(part) - 1 for part in self.parts)

    @cached_property
    def mean(self) -> float:
        return self._tilted_mean(0.0)

    def upper(self, value: int) -> float:
        """P(sum >= value), at most 1e-9 of itself too large and never too small."""
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
        """The law of the largest sum less the sum."""
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
        """The tilt under which the mean is `value`; none below the mean."""
        if value <= self.mean:
            return 0.0
        if self._tilted_mean(STEEPEST) <= value:
            return STEEPEST
        return float(brentq(lambda theta: self._tilted_mean(theta) - value, 0.0, STEEPEST, xtol=1e-9))

    def _chernoff_tilt(self, rate: float) -> float:
        """The tilt at whose mean Chernoff's bound is `rate`: a little beyond the true quantile."""

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
        # exp(-theta x) from `start` on, so that nothing overflows; a sum from above keeps the digits of the tail
        sums = np.cumsum((pmf * np.exp(-theta * steps))[::-1])[::-1]
        return np.asarray(np.minimum(1.0, SLACK * np.exp(log_moment - theta * start) * sums))


def drawn_marks(marked: Sequence[int], first: Sequence[int], total: Sequence[int]) -> SumLaw:
    """How many of the marked fall to the first side, if in each stratum any `first` of `total` are as likely as others.

    A sum of hypergeometric counts, each counted from 0: strata of which nothing is open add nothing.
    """
    parts = []
    for marks, drawn, size in zip(marked, first, total, strict=True):
        if 0 < marks <= size and 0 < drawn <= size:
            parts.append(np.asarray(hypergeom.pmf(np.arange(min(marks, drawn) + 1), size, marks, drawn)))
    return SumLaw(tuple(parts))
