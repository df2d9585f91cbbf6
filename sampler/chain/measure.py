"""Measures of a draw: probability and rank of the token, entropy, and the margin to the runner-up."""

import math
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.chain.pipeline import Scores
from sampler.chain.survivors import Left, left_of
from sampler.runtime.compiled import compiled


class Measures(NamedTuple):
    """Measures of B draws, each (B,). logprob and entropy are in nats, of the distribution after the chain.

    rank: how many tokens were strictly more likely. margin: score + noise of the token minus that of the runner-up
    (scores alone at temperature 0); inf if only one token was left. float32, rank int64.
    """

    logprob: NDArray[np.float32]
    rank: NDArray[np.int64]
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]


def measure(scores: Scores, gumbel: mx.array, tokens: mx.array, greedy: mx.array) -> Measures:
    """Measure draws with noise for every token; scores and gumbel (B, V), tokens (B,), greedy bool (B,)."""
    left = left_of(np.asarray(scores.final))
    noise = np.asarray(gumbel)[np.asarray(scores.final) > -np.inf]
    return measure_left(left, noise, np.asarray(tokens).astype(np.int64), scores, np.asarray(greedy))


@np.errstate(invalid="ignore")  # for rows that `find_problems` reports
def measure_left(
    left: Left, noise: NDArray[np.float32], tokens: NDArray[np.int64], scores: Scores, greedy: NDArray[np.bool_]
) -> Measures:
    """Measure draws with noise for the tokens that are left, float32 (n,); tokens int64 (B,), greedy bool (B,)."""
    measures = Measures(*_measure(left, left.scores + noise, tokens))
    for row in np.flatnonzero(greedy):
        others = np.array(scores.ranked[int(row)])
        best, others[tokens[row]] = others[tokens[row]], -np.inf
        measures.margin[row] = best - others.max()
    return measures


@compiled
def _measure(
    left: Left, raced: NDArray[np.float32], tokens: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The fields of Measures, margins as if no row were greedy; sums in float64."""
    rows = len(tokens)
    logprob, entropy, margin = np.empty((3, rows), dtype=np.float32)
    rank = np.zeros(rows, dtype=np.int64)
    for row in range(rows):
        own, best, own_raced, other_raced = -np.inf, -np.inf, np.float32(-np.inf), np.float32(-np.inf)
        for place in range(left.starts[row], left.starts[row + 1]):
            best = max(best, left.scores[place])
            if left.tokens[place] == tokens[row]:
                own, own_raced = np.float64(left.scores[place]), raced[place]
            else:
                other_raced = max(other_raced, raced[place])
        mass = weighted = 0.0
        for place in range(left.starts[row], left.starts[row + 1]):
            depth = best - left.scores[place]
            mass += math.exp(-depth)
            weighted += math.exp(-depth) * depth
            rank[row] += left.scores[place] > own
        logprob[row], entropy[row] = own - best - math.log(mass), math.log(mass) + weighted / mass
        margin[row] = own_raced - other_raced
    return logprob, rank, entropy, margin
