"""Importance sampling of sums over tokens of counts whose total is known: multinomial and hypergeometric counts.

Such counts are independent ones given their sum. Tilting each by exp(theta s_i) keeps them so, and with the laws of the
partial sums, by convolution, they are drawn one after the other: an exact draw from the exponentially tilted law, whose
likelihood ratio is known. The tail of S = sum_i s_i(X_i) is the mean of M(theta) exp(-theta S) over draws beyond the
bound. Source: Asmussen and Glynn, "Stochastic Simulation", chapter VI.2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from tests.tools.calibration.distributions import Array
from tests.tools.calibration.rates import TailProbability


@dataclass(frozen=True, eq=False)
class Term:
    """Counts that one token may have, the logarithm of their weight, and what they add to the statistic: (K,) each."""

    counts: NDArray[np.int64]
    log_weight: Array
    statistic: Array


REACH = 12  # counts further than so many standard deviations, and 30, from their mean are left out: less than 1e-25


def multinomial_terms(n: int, pmf: Array) -> list[Term]:
    """Poisson weights; the terms sum to the total variation between n draws and pmf."""
    terms = []
    for p in pmf[pmf > 0]:
        mean = n * p
        reach = REACH * np.sqrt(mean) + 30
        counts = np.arange(max(0, int(mean - reach)), min(n, int(mean + reach)) + 1)
        log_weight = xlogy(counts, mean) - gammaln(counts + 1.0)
        terms.append(Term(counts, log_weight, np.abs(counts / n - p) / 2))
    return terms


def tail_probability(
    terms: list[Term], total: int, bound: float, theta: float, draws: int, rng: np.random.Generator
) -> TailProbability:
    """P(S > bound) for theta > 0, P(S < bound) for theta < 0, given that the counts sum to `total`.

    theta is where the search for a tilt begins. Where no tilt brings the statistic to the bound, the answer is
    Chernoff's bound M(theta) exp(-theta bound), with no error.
    """
    fitting = _fitting(terms, total, bound, theta, rng)
    theta = fitting or FARTHEST * theta
    log_moment = _log_mass(terms, total, theta) - _log_mass(terms, total, 0.0)
    if fitting is None:
        return TailProbability(float(np.exp(log_moment - theta * bound)))
    statistic = _tilted_statistics(terms, total, theta, draws, rng)
    values = np.where(_beyond(statistic, bound, theta), np.exp(log_moment - theta * statistic), 0.0)
    return TailProbability(float(values.mean()), float(values.std(ddof=1) / np.sqrt(draws)))


def _beyond(statistic: Array, bound: float, theta: float) -> NDArray[np.bool_]:
    return statistic > bound if theta > 0 else statistic < bound


def _fitting(terms: list[Term], total: int, bound: float, theta: float, rng: np.random.Generator) -> float | None:
    """A tilt under which the bound is neither rarely nor nearly always exceeded: else the error is misjudged."""
    low, high, most = 0.0, np.inf, FARTHEST * abs(theta)
    while abs(theta) <= most and high - low > 1e-6 * most:
        share = _beyond(_tilted_statistics(terms, total, theta, PILOT, rng), bound, theta).mean()
        if 0.2 <= share <= 0.8:
            return theta
        size = abs(theta)
        low, high = (size, high) if share < 0.2 else (low, size)
        theta = float(np.sign(theta)) * (2 * size if high == np.inf else (low + high) / 2)
    return None


FARTHEST = 8  # the search for a tilt ends at so many times its beginning
PILOT = 300


def _weights(term: Term, theta: float) -> tuple[Array, float]:
    """Tilted probabilities of a token's counts, and the logarithm of what they were divided by."""
    log_weight = term.log_weight + theta * term.statistic
    top = log_weight.max()
    weights = np.exp(log_weight - top)
    return weights / weights.sum(), float(top + np.log(weights.sum()))


def _suffixes(terms: list[Term], total: int, theta: float) -> list[Array]:
    """Laws of the sums over tokens i.., i = 0..V, as arrays (total + 1,)."""
    laws = [np.zeros(total + 1)]
    laws[0][0] = 1.0
    for term in reversed(terms):
        weights, law, first = _weights(term, theta)[0], laws[-1], int(term.counts[0])
        some = np.flatnonzero(law > 1e-40)
        start, part = int(some[0]), law[some[0] : some[-1] + 1]
        both = np.convolve(part, weights)[: max(0, total + 1 - start - first)]
        laws.append(np.zeros(total + 1))
        laws[-1][start + first : start + first + len(both)] = both
    return laws[::-1]


def _log_mass(terms: list[Term], total: int, theta: float) -> float:
    return float(np.log(_suffixes(terms, total, theta)[0][total])) + sum(_weights(term, theta)[1] for term in terms)


def _tilted_statistics(terms: list[Term], total: int, theta: float, draws: int, rng: np.random.Generator) -> Array:
    laws, left, statistic = _suffixes(terms, total, theta), np.full(draws, total), np.zeros(draws)
    for term, law in zip(terms, laws[1:], strict=True):
        weights = _weights(term, theta)[0]
        for part in np.array_split(np.arange(draws), max(1, draws * len(weights) // 2_000_000)):
            rest = left[part, None] - term.counts
            cumulative = np.cumsum(np.where(rest >= 0, weights * law[np.maximum(rest, 0)], 0.0), axis=1)
            chosen = (cumulative < rng.random(len(part))[:, None] * cumulative[:, -1:]).sum(axis=1)
            left[part] -= term.counts[chosen]
            statistic[part] += term.statistic[chosen]
    assert not left.any(), "the counts do not sum to the total"
    return statistic
