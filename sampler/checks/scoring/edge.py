"""The edge of the support: how many nats below the best token a chain still draws.

With min_p behind the temperature T the edge is D = T ln(1 / min_p), measured before the temperature. Given T and the
scores, a step draws a token of depth at most d <= D with probability G(d) / G(D), where G(d) is the sum of
exp(-depth / T) over the tokens of depth at most d. So the deepest token of all steps, M, has P(M <= m) = product of
G(m) / G(D), about exp(-r (D - m)), where r is the slope of the sum of ln G at the edge: how many tokens a nat so many
steps draw there. The likelihood of D is 0 below M, largest at M, and falls as exp(-r (D - M)): with a flat prior D lies
above M by an exponential of mean 1 / r.

M is known only as well as the scores: the error of the penalty moves it by more than 1 / r. Moreover, the support tells
of the penalty too, so that Wilks' theorem fails, and with it the profile of the likelihood. Intervals from the
posterior hold where the support depends on the parameters (Chernozhukov and Hong 2004, Econometrica 72, 1445). So all
parameters are drawn from it, by importance sampling whose proposal is fitted in rounds (Cappé et al. 2004, "Population
Monte Carlo").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multivariate_t

from sampler.checks.scoring.candidates import TEMPERATURE, Candidates
from sampler.checks.scoring.likelihood import Fit

Array = NDArray[np.float64]

LEAST_GAIN = 8.0
"""Nats by which an edge must make the tokens likelier than none before its place is estimated."""

ROUNDS = (200, 200, 200, 600)
"""Draws of each round; the last ones count."""

TAILS, WIDER = 5, 1.2
"""Degrees of freedom of the proposal, and its scale beside the covariance of the last round."""

LEAST_SIZE = 40
"""Effective number of draws of a round: weights are tempered until it has so many."""

CORNERS = 100
"""Values from the first proposal that say which tokens may lie within the edge."""


class Edge(NamedTuple):
    """The median and a 95 % interval, in nats before the temperature; without an edge, the deepest token and inf."""

    estimate: float
    low: float
    high: float


def edge_of(candidates: Candidates, fit: Fit, free: Sequence[int]) -> Edge | None:
    """The edge, with what is known of the free parameters. None without a step at which top_k and top_p are idle."""
    spread = fit.covariance[np.ix_(free, free)]
    rng = np.random.default_rng(0)
    values = _filled(fit.values, free, rng.multivariate_normal(fit.values[list(free)], spread, size=CORNERS))
    telling = _idle(candidates, [fit.values, *values])
    if telling is None:
        return None
    support, deepest = _Support(telling), telling.deepest(fit.values)
    inside = support.height(fit.values, deepest)
    if inside - support.height(fit.values, np.inf) < LEAST_GAIN:
        return Edge(deepest, min(telling.deepest(one) for one in values), np.inf)
    rate = max(10 * (inside - support.height(fit.values, deepest + 0.1)), 1.0)
    depths = [telling.depths(one) for one in values]
    limit = max(float(one[telling.drawn].max()) for one in depths) + 10 / rate
    near = np.min(depths, axis=0) <= limit
    near[telling.drawn] = True
    edges, weights = _Support(telling.cut(near), limit).posterior(fit, free, rate, rng)
    order = np.argsort(edges)
    low, middle, high = np.interp([0.025, 0.5, 0.975], np.cumsum(weights[order]), edges[order])
    return Edge(float(middle), float(low), float(high))


def _idle(candidates: Candidates, values: Sequence[Array]) -> Candidates | None:
    """The steps at which top_k and top_p, if they are on, remove nothing within the depth of the deepest token."""
    if not {"top_k", "top_p"} & candidates.config.active_stages():
        return candidates
    cut = np.zeros(len(candidates.logits), dtype=np.bool_)
    for one in values:
        deepest = candidates.deepest(one)
        cut |= (candidates.depths(one) <= deepest) & ~candidates.kept(one, deepest)
    idle = np.add.reduceat(cut, candidates.starts, dtype=np.int64) == 0
    return candidates.cut(idle[candidates.steps]) if idle.any() else None


def _filled(values: Array, free: Sequence[int], drawn: Array) -> Array:
    """Values (3,) with other ones (N, F) of the free parameters: (N, 3)."""
    filled = np.tile(values, (len(drawn), 1))
    filled[:, free] = drawn
    return filled


@dataclass(frozen=True, eq=False)
class _Support:
    """The likelihood with a sharp edge. limit: the deepest edge within which all tokens are among the candidates."""

    candidates: Candidates
    limit: float = np.inf

    def height(self, values: Array, edge: float) -> float:
        """The log-likelihood with an edge at or below the deepest drawn token."""
        scores, depths = self.candidates.scores_and_depths(values)
        return self._height(values, scores, depths, edge)

    def beyond(self, values: Array, distance: float) -> tuple[float, float]:
        """The log-likelihood with an edge so far below the deepest drawn token, and the edge."""
        scores, depths = self.candidates.scores_and_depths(values)
        edge = float(depths[self.candidates.drawn].max()) + distance
        return (self._height(values, scores, depths, edge) if edge <= self.limit else -np.inf), edge

    def _height(self, values: Array, scores: Array, depths: Array, edge: float) -> float:
        some, temperature = self.candidates, np.exp(values[TEMPERATURE])
        below = scores - np.maximum.reduceat(scores, some.starts)[some.steps]
        weights = np.where(depths <= edge, np.exp(below / temperature), 0.0)
        total = np.add.reduceat(weights, some.starts)
        return float((below[some.drawn] / temperature - np.log(total)).sum())

    def posterior(self, fit: Fit, free: Sequence[int], rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Edges, and their weights, which sum to 1; with flat priors on the free values and the edge."""
        mean, spread = fit.values[list(free)], fit.covariance[np.ix_(free, free)]
        for count in ROUNDS:
            proposal = multivariate_t(mean, WIDER * spread, df=TAILS, seed=rng)
            drawn = proposal.rvs(count).reshape(count, len(free))
            distances = rng.exponential(1 / rate, count)
            pairs = zip(_filled(fit.values, free, drawn), distances, strict=True)
            heights, edges = np.array([self.beyond(*pair) for pair in pairs]).T
            logs = heights - proposal.logpdf(drawn) + rate * distances
            weights = _tempered(logs)
            mean = weights @ drawn
            spread = (weights[:, None] * (drawn - mean)).T @ (drawn - mean)
        weights = np.exp(logs - logs.max())
        return edges, weights / weights.sum()


def _tempered(logs: Array) -> Array:
    """Weights that sum to 1, raised to a power at which enough draws count."""
    power = 1.0
    while True:
        weights = np.exp(power * (logs - logs.max()))
        weights /= weights.sum()
        if weights @ weights <= 1 / LEAST_SIZE or power < 1e-3:
            return np.asarray(weights)
        power *= 0.8
