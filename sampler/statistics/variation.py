"""The total variation between n draws and their distribution: its expectation and its tails.

The statistic D is half the sum of |X_i / n - p_i| over the tokens. Three facts hold for every n, with no asymptotics.

1. The expectation is a sum of mean absolute deviations of binomials, in closed form (de Moivre). Source: Diaconis and
   Zabell 1991, "Closed form summation for classical distributions", equation 1.1.
2. One draw changes D by at most 1/n, so D deviates from its expectation by t, to one side, with probability at most
   exp(-2 n t^2). Source: McDiarmid 1989, "On the method of bounded differences", Lemma 1.2.
3. P(n D >= s) <= exp(-theta s) E exp(theta n D) for every theta > 0, and likewise below with theta < 0 (Chernoff 1952).
   Multinomial counts are independent Poisson counts Y_i, of expectation n p_i, given that their sum is n. So, with
   a = theta / 2, the expectation on the right is prod_i E exp(a |Y_i - n p_i|) * Q(n) / P(Poisson(n) = n), where Q(n)
   is the probability that the Y_i sum to n once each has been tilted by exp(a |Y_i - n p_i|). The product is in closed
   form; Q comes from a discrete Fourier transform. Folding the sum modulo the transform's length only adds
   probability, and Q(n) is at most the largest probability of a partial sum, which is used for many tokens.
   Source: Mitzenmacher and Upfal, "Probability and Computing", chapter 5.4, for the step to Poisson counts.

The third is the sharper one except for few draws, since it uses how little a peaked distribution can vary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammaln, xlog1py, xlogy

Array = NDArray[np.float64]

HEAD = 48
"""This many of the likeliest tokens enter the Fourier transform. With no more tokens Q(n) is exact."""


def mean_absolute_deviations(n: int, probabilities: Array) -> Array:
    """E|X - n p| of a binomial X for each p: 2 (1 - p) m C(n, m) p^m (1 - p)^(n - m) with m = floor(n p) + 1."""
    p = np.minimum(np.asarray(probabilities, dtype=np.float64), 1.0)
    m = np.minimum(np.floor(n * p) + 1, n)
    log_pmf = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, p) + xlog1py(n - m, -p)
    return np.where(p < 1, 2 * (1 - p) * m * np.exp(log_pmf), 0.0)


def expected_variation(n: int, probabilities: Array) -> float:
    """Expectation of the total variation between n draws and their distribution (V,); 0 for n = 0."""
    return float(mean_absolute_deviations(n, probabilities).sum() / (2 * n)) if n else 0.0


@dataclass(frozen=True)
class Tail:
    """P(D beyond x) <= exp(log_moment - theta n x): above for theta > 0, below for theta < 0."""

    theta: float
    log_moment: float

    def log_probability(self, n: int, variation: float) -> float:
        """Logarithm of the bound on the probability that D is at `variation` or beyond."""
        return min(0.0, self.log_moment - self.theta * n * variation)

    def quantile(self, n: int, rate: float) -> float:
        """The total variation at which the bound is `rate`."""
        return (self.log_moment - math.log(rate)) / (self.theta * n)


def chernoff(n: int, probabilities: Array, rate: float, side: int) -> Tail:
    """The tail of that side (1 above, -1 below) whose quantile at `rate` is nearest among a dozen theta.

    theta depends only on n, distribution and rate, not on the draws, so the bound holds at every x.
    """
    expected = n * np.sort(probabilities[probabilities > 0])[::-1]
    thetas = side * np.minimum(math.sqrt(-8 * math.log(rate) / n) * np.geomspace(0.7, 5, 9), 6.0)
    if len(expected) > HEAD:  # the factor of the sum then hardly depends on theta, and is expensive
        thetas = np.array([min(thetas, key=lambda theta: side * _poisson_tail(n, expected, theta).quantile(n, rate))])
    tails = [_conditioned(_poisson_tail(n, expected, theta), n, expected) for theta in thetas]
    return min(tails, key=lambda tail: side * tail.quantile(n, rate))


def _poisson_tail(n: int, expected: Array, theta: float) -> Tail:
    """The tail with Q(n) = 1; expected: n p, largest first."""
    conditioning = float(gammaln(n + 1)) + n - n * math.log(n)
    return Tail(float(theta), float(_log_tilts(expected, theta / 2).sum()) + conditioning)


def _conditioned(tail: Tail, n: int, expected: Array) -> Tail:
    """The tail with Q(n), or a bound on it."""
    return Tail(tail.theta, tail.log_moment + math.log(_sum_probability(n, expected, tail.theta / 2)))


def _log_tilts(mu: Array, a: float) -> Array:
    """Log E exp(a |Y - mu|) of Poisson counts: each side is a tilted Poisson tail."""
    below, left, right = np.floor(mu), mu * math.exp(-a), mu * math.exp(a)
    log_left, log_right = -left, np.log(-np.expm1(-right))
    common = below > 0
    log_left[common] = _log_tail(gammaincc, below[common], left[common], below[common] + 1)
    log_right[common] = _log_tail(gammainc, below[common] + 1, right[common], below[common] + 1)
    return np.logaddexp(mu * (a + math.expm1(-a)) + log_left, mu * (math.expm1(a) - a) + log_right)


def _log_tail(tail: Callable[[Array, Array], Array], count: Array, mean: Array, order: Array) -> Array:
    """Log P(Poisson(mean) up to, or from, count); where that would underflow, Chernoff's upper bound on it."""
    exact = tail(order, mean)
    bound = count - mean - xlogy(count, count / mean)
    return np.where(exact > 1e-280, np.log(np.maximum(exact, 1e-300)), bound)


def _sum_probability(n: int, expected: Array, a: float) -> float:
    """Q(n) or a bound on it: of the tilted counts of the likeliest tokens, folded modulo a power of two."""
    head = expected[:HEAD]
    length = _transform_length(float(head.sum()), a)
    spectrum = np.ones(length // 2 + 1, dtype=np.complex128)
    values, repeats = np.unique(head, return_counts=True)
    for mu, times in zip(values, repeats, strict=True):
        spectrum *= np.fft.rfft(_tilted(float(mu), a, length)) ** times
    pmf = np.fft.irfft(spectrum, length)
    place = pmf[n % length] if len(expected) <= HEAD else pmf.max()
    return float(min(1.0, max(place, 0.0) + 1e-13))


def _transform_length(mean: float, a: float) -> int:
    """Long enough that folding adds little; a smaller length would give a weaker bound, not a wrong one."""
    span = 24 * math.sqrt(mean + 1) + 4 * mean * max(0.0, math.expm1(a)) + 64
    return int(2 ** min(15, math.ceil(math.log2(span))))


def _tilted(mu: float, a: float, length: int) -> Array:
    """Probabilities of Y tilted by exp(a |Y - mu|), modulo `length`; less than 1e-25 lies outside the window."""
    high = mu * math.exp(max(a, 0.0))
    first = max(0, math.floor(mu * math.exp(-max(a, 0.0)) - 12 * math.sqrt(mu) - 30))
    counts = np.arange(first, math.ceil(high + 12 * math.sqrt(high) + 40))
    log_weights = a * np.abs(counts - mu) + xlogy(counts, mu) - gammaln(counts + 1)
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(np.bincount(counts % length, weights / weights.sum(), minlength=length), dtype=np.float64)
