"""Stages that depend on the probabilities of the tokens left: typical-p, top-n-sigma and XTC."""

import mlx.core as mx
import numpy as np

from sampler.chain.history import column, context_of
from sampler.errors import ConfigError
from sampler.requests import Batch

SUM_BLOCK = 256


def keep_typical(scores: mx.array, batch: Batch) -> mx.array:
    """Keep tokens whose surprise is nearest to the entropy, up to a mass of `typical_p`; (B, V) -> (B, V).

    A token stays if the tokens nearer to the entropy have less than the mass, so the crossing token stays. Sources:
    arXiv:2202.00666, section 3; TypicalLogitsWarper of transformers from 4.36 on.
    """
    log_probabilities = _log_softmax(scores)
    probabilities = mx.exp(log_probabilities)
    entropy = -_total(mx.where(probabilities > 0, probabilities * log_probabilities, 0.0))
    distance = mx.abs(log_probabilities + entropy)
    order = mx.argsort(distance, axis=-1)
    mass = running_sum(mx.take_along_axis(probabilities, order, axis=-1))
    size = scores.shape[-1]
    crossing = mx.minimum(
        mx.sum(mass < column(batch, lambda config: config.typical_p), axis=-1, keepdims=True), size - 1
    )
    farthest = mx.take_along_axis(distance, mx.take_along_axis(order, crossing, axis=-1), axis=-1)
    spared = mx.arange(size)[None] < column(batch, lambda config: config.min_tokens_to_keep)
    spared = mx.put_along_axis(mx.zeros(scores.shape, dtype=mx.bool_), order, mx.broadcast_to(spared, scores.shape), -1)
    on = column(batch, lambda config: config.typical_p < 1, np.bool_)
    return mx.where(on & (distance > farthest) & ~spared, -mx.inf, scores)


def keep_near_best(scores: mx.array, batch: Batch) -> mx.array:
    """Remove scores more than `top_n_sigma` standard deviations below the largest; (B, V) -> (B, V).

    The variance is the mean square deviation of the scores that are left from their mean. Sources: arXiv:2411.07641,
    section 3;
    `llama_sampler_top_n_sigma_apply` of llama.cpp since pull request 13345.
    """
    below = scores - mx.max(scores, axis=-1, keepdims=True)  # near 0, where float32 has finer steps
    left = scores > -mx.inf
    count = mx.sum(left, axis=-1, keepdims=True)
    mean = _total(mx.where(left, below, 0.0)) / count
    deviation = mx.sqrt(_total(mx.where(left, mx.square(below - mean), 0.0)) / count)
    sigmas = column(batch, lambda config: config.top_n_sigma)
    return mx.where((sigmas > 0) & (below < -sigmas * deviation), -mx.inf, scores)


def exclude_top(scores: mx.array, batch: Batch) -> mx.array:
    """XTC: of the tokens that reach `xtc_threshold`, remove all but the least likely; (B, V) -> (B, V).

    A row acts if its uniform number is below `xtc_probability`; at probability 1 it always acts. Nothing is removed if
    fewer than min_tokens_to_keep would be left; tokens as likely as the least likely stay with it. Sources: text-
    generation-webui, pull request 6335; `llama_sample_xtc_apply` in `src/llama-sampling.cpp` of llama.cpp (pull
    request 9742), which keeps one of equally likely tokens; `apply_xtc` of mlx-lm 0.32.2, which keeps them all.
    """
    threshold = column(batch, lambda config: np.log(config.xtc_threshold))
    above = _log_softmax(scores) >= threshold
    least = mx.min(mx.where(above, scores, mx.inf), axis=-1, keepdims=True)
    excluded = above & (scores > least)
    left = mx.sum((scores > -mx.inf) & ~excluded, axis=-1, keepdims=True)
    enough = left >= column(batch, lambda config: config.min_tokens_to_keep, np.int32)
    return mx.where(excluded & enough & mx.array(_acting(batch))[:, None], -mx.inf, scores)


def _acting(batch: Batch) -> list[bool]:
    """Which rows act. Raises ConfigError if a uniform number is needed and missing."""
    uniforms = context_of(batch).uniforms
    acting = []
    for row, config in enumerate(batch.configs):
        probability = config.xtc_probability
        if 0 < probability < 1 and uniforms is None:
            raise ConfigError(
                f"xtc_probability = {probability} in row {row} and there is no uniform number",
                hint="give uniforms, one uniform number from 0 to 1 for each row; probability 1 needs none",
            )
        acting.append(probability == 1 or (uniforms is not None and bool(uniforms[row] < probability)))
    return acting


def _log_softmax(scores: mx.array) -> mx.array:
    below = scores - mx.max(scores, axis=-1, keepdims=True)
    return below - mx.log(_total(mx.exp(below)))


def _total(values: mx.array) -> mx.array:
    """Sum of each row in blocks, (B, 1): MLX's own sum is off by 2e-6 over 151,936 values."""
    return running_sum(values)[:, -1:]


def running_sum(rows: mx.array) -> mx.array:
    """Cumulative sum over the last axis in blocks: float32 errors grow with sqrt(V) instead of V; (B, V) -> (B, V)."""
    count, size = rows.shape
    padding = -size % SUM_BLOCK
    blocks = mx.pad(rows, [(0, 0), (0, padding)]).reshape(count, -1, SUM_BLOCK)
    within = mx.cumsum(blocks, axis=-1)
    before = mx.cumsum(within[..., -1:], axis=1, inclusive=False)
    return (within + before).reshape(count, -1)[:, :size]
