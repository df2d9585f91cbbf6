"""Temperature, and the greedy choice that stands for temperature 0."""

import mlx.core as mx

from sampler.chain.knobs import Knobs


def temper(scores: mx.array, knobs: Knobs) -> mx.array:
    """Divide by the temperature; rows at temperature 0 pass unchanged. Source: TemperatureLogitsWarper."""
    return scores / knobs.temperature


def keep_most_likely(scores: mx.array, knobs: Knobs) -> mx.array:
    """Remove everything but the lowest id among the maxima, in rows at temperature 0."""
    best = mx.argmax(scores, axis=-1, keepdims=True)
    others = mx.arange(scores.shape[-1])[None] != best
    return mx.where(knobs.greedy & others, -mx.inf, scores)
