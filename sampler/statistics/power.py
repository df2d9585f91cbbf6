"""How far a wrong distribution must be from the true one to be detected by a bound on the total variation.

Both arguments assume draws of q, at total variation d from p, and a test that rejects if D, the total variation between
draws and p, is above `bound`. Both hold for every q, hence in the worst direction.

1. By one set. With A the tokens that q favours, D >= X(A) / n - p(A), where X(A) is binomial with q(A) = p(A) + d. Its
   lower tail is at most Phi(-sqrt(2 n KL(x, q(A)))) with x = p(A) + bound + 1/n. Source: Zubkov and Serov 2013, "A
   complete proof of universal inequalities for the distribution function of the binomial law", Theorem 1. KL is convex
   in p(A), so its minimum is where its derivative is 0, or at the nearest masses that a set of tokens can have: none
   lies between 1 - max p and max p.
2. By the expectation. E_q D is a sum of functions g_i(q_i) = E|Bin(n, q_i) - n p_i| / (2 n), each convex in q_i, for
   Bernstein polynomials of a convex function are convex. D falls short of E_q D by t with probability at most
   exp(-2 n t^2) (McDiarmid). The minimum of E_q D over all q at distance d has a Lagrangian bound, sum_i min over u of
   (g_i(p_i +- u) - price u) + d (price up + price down), for any two prices (weak duality); tangents of g_i give it
   from below. That is what makes many tokens cheap: errors that are spread over all of them raise D less than d.
   It is the argument by which Diakonikolas, Gouleakis, Peebles and Price 2018, "Sample-optimal identity testing with
   high probability", show this D to be the best statistic for uniform distributions, here with its constants.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import bdtr, ndtri, rel_entr

Array = NDArray[np.float64]


def reach_of_one_set(bound: float, n: int, miss_rate: float, largest: float = 0.0) -> float:
    """Smallest d > bound that X(A) / n - p(A) <= bound misses with at most `miss_rate`; 1.0 if there is none.

    largest: the largest probability of a token; 0 if sets may have any mass.
    """
    enough, step = float(ndtri(miss_rate)) ** 2 / 2 if miss_rate < 0.5 else 0.0, bound + 1 / max(n, 1)

    def lack(d: float) -> float:
        return enough - n * _least_divergence(step, d, largest)

    if n == 0 or step >= 1 or lack(1.0) > 0:
        return 1.0
    return min(1.0, float(brentq(lack, step, 1.0, xtol=1e-13)) + 1e-12)


def _least_divergence(step: float, d: float, largest: float) -> float:
    """Least KL(a + step, a + d) over masses a that a set can have, from 0 to 1 - d."""
    lowest = _lowest_place(step, d)
    masses = [lowest]
    if 1 - largest < lowest < largest:
        masses = [1 - largest, *([largest] if largest <= 1 - d else [])]
    return min(_divergence(a + step, a + d) for a in masses)


def _lowest_place(step: float, d: float) -> float:
    """The mass a from 0 to 1 - d at which KL(a + step, a + d) is least; step < d."""

    def slope(a: float) -> float:
        x, y = a + step, a + d
        return float(np.log(x * (1 - y) / (y * (1 - x)))) + (1 - x) / (1 - y) - x / y

    end = (1 - d) * (1 - 1e-9)
    if step >= d or end <= 0 or slope(0.0) >= 0:
        return 0.0
    return float(brentq(slope, 0.0, end)) if slope(end) > 0 else end


def _divergence(x: float, y: float) -> float:
    x, y = min(x, 1.0), min(y, 1.0)
    return float(rel_entr(x, y) + rel_entr(1 - x, 1 - y))


def reach_of_expectation(expectation: float, n: int, probabilities: Array) -> float:
    """Smallest d such that every q at total variation d has E_q D >= `expectation`, by the Lagrangian bound."""
    p, repeats = _classes(probabilities)
    up, down = _corners(n, p, np.minimum(1 - p, 40 * np.sqrt(p / n)), 1 - p, 1), _corners(n, p, p, p, -1)

    def distance(prices: Array) -> float:
        price_up, price_down = np.clip(prices, 1e-4, 0.5)
        least = np.minimum((up[1] - price_up * up[0]).min(1), (down[1] - price_down * down[0]).min(1))
        return float((expectation - least @ repeats) / (price_up + price_down))

    start = min(np.linspace(0.02, 0.5, 25), key=lambda price: distance(np.array([price, price])))
    found = minimize(distance, [start, start], method="Nelder-Mead", options={"maxfev": 60, "xatol": 1e-3})
    return float(found.fun) * (1 + CLASS_WIDTH)


CLASS_WIDTH = 0.01
"""Tokens whose probabilities differ by at most this part count as equal; the answer is raised by the same part."""


def _classes(probabilities: Array) -> tuple[Array, NDArray[np.int64]]:
    """Mean probability of each class of tokens, and its number of tokens."""
    positive = probabilities[probabilities > 0]
    labels = np.round(np.log(positive) / CLASS_WIDTH)
    _, place, repeats = np.unique(labels, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=positive) / repeats, repeats


def _corners(n: int, p: Array, reach: Array, room: Array, sign: int) -> tuple[Array, Array]:
    """Where tangents of u -> g(p + sign u) cross, and their height there: (classes, corners) each, u = 0 first."""
    u = (np.linspace(0, 1, 17) ** 2) * reach[:, None]
    height, slope = _g(n, np.clip(p[:, None] + sign * u, 0, 1), n * p[:, None])
    slope = sign * slope
    turn = np.diff(slope)
    lead = height[:, 1:] - height[:, :-1] - slope[:, 1:] * np.diff(u)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(turn > 1e-12, -lead / turn, 0.0)
    step = np.clip(step, 0, np.diff(u))
    end = room[:, None]
    places = np.concatenate([np.zeros_like(end), u[:, :-1] + step, end], axis=1)
    heights = [height[:, :1], height[:, :-1] + slope[:, :-1] * step, height[:, -1:] + slope[:, -1:] * (end - u[:, -1:])]
    return places, np.concatenate(heights, axis=1)


def _g(n: int, q: Array, c: Array) -> tuple[Array, Array]:
    """E|X - c| / (2 n) of a binomial X of n trials at each q, and its derivative in q, from the distribution function.

    E|X - c| = 2 (c F_n(m) - n q F_(n-1)(m - 1)) + n q - c with m = floor(c); the derivative of E h(X) in q is
    n E[h(B + 1) - h(B)] with B of n - 1 trials.
    """
    m = np.broadcast_to(np.floor(c), q.shape)
    here, before = _bdtr(m, n - 1, q), _bdtr(m - 1, n - 1, q)
    value = 2 * (c * _bdtr(m, n, q) - n * q * before) + n * q - c
    slope = n * ((1 - here) - before + (2 * m + 1 - 2 * c) * (here - before))
    return value / (2 * n), slope / (2 * n)


def _bdtr(k: Array, n: int, q: Array) -> Array:
    """Distribution function of a binomial, at any k."""
    inside = np.where((k >= 0) & (k < n), k, 0)
    return np.where(k < 0, 0.0, np.where(k >= n, 1.0, bdtr(inside, n, q)))
