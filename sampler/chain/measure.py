"""What a draw looked like: probability and rank of the token, entropy, and how near another token came."""

from typing import NamedTuple

import mlx.core as mx

from sampler.chain.pipeline import Scores


class Measures(NamedTuple):
    """Of B draws, each (B,). logprob and entropy in nats, of the distribution after the chain.

    rank: how many tokens were strictly more likely. margin: by how much score + noise beat the runner-up (scores
    alone at temperature 0); inf where only one token was left.
    """

    logprob: mx.array
    rank: mx.array
    entropy: mx.array
    margin: mx.array


def measure(scores: Scores, gumbel: mx.array, tokens: mx.array, greedy: mx.array) -> Measures:
    """Measure draws lazily; scores and gumbel (B, V), tokens (B,), greedy bool (B,)."""
    column = tokens[:, None]
    log_probabilities = scores.final - mx.logsumexp(scores.final, axis=-1, keepdims=True)
    probabilities = mx.exp(log_probabilities)
    surprise = mx.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    own = mx.take_along_axis(scores.final, column, axis=-1)
    raced = mx.where(greedy[:, None], scores.ranked, scores.final + gumbel)
    others = mx.where(mx.arange(raced.shape[-1])[None] == column, -mx.inf, raced)
    return Measures(
        logprob=mx.take_along_axis(log_probabilities, column, axis=-1)[:, 0],
        rank=mx.sum(scores.final > own, axis=-1),
        entropy=-mx.sum(surprise, axis=-1),
        margin=mx.take_along_axis(raced, column, axis=-1)[:, 0] - mx.max(others, axis=-1),
    )
