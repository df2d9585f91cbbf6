"""Stages that remove tokens: top-k, top-p (nucleus) and min-p."""

import mlx.core as mx

from sampler.chain.knobs import Knobs

SUM_BLOCK = 256


def keep_top_k(scores: mx.array, knobs: Knobs) -> mx.array:
    """Remove scores below the k-th largest; ties with it stay. Source: TopKLogitsWarper of transformers.

    Only as many scores as the largest k of the batch are sorted.
    """
    count = knobs.largest_top_k
    largest = mx.sort(mx.topk(scores, count, axis=-1), axis=-1)  # ascending: the k-th largest stands at count - k
    column = mx.maximum(count - knobs.top_k, 0)
    threshold = mx.take_along_axis(largest, column, axis=-1)
    off = knobs.top_k >= scores.shape[-1]
    return mx.where((scores < threshold) & ~off, -mx.inf, scores)


def keep_nucleus(scores: mx.array, knobs: Knobs) -> mx.array:
    """Keep the smallest set of most likely tokens whose probability reaches top_p; the crossing token stays.

    Probabilities are those of what is left, renormalised. Sources: arXiv:1904.09751, equation 2; TopPLogitsWarper of
    transformers, whose ascending sum is used here too because it adds the small terms first.
    """
    size = scores.shape[-1]
    ascending = _ascending(scores)
    weights = mx.exp(mx.take_along_axis(scores, ascending, axis=-1) - mx.max(scores, axis=-1, keepdims=True))
    mass = running_sum(weights)
    spared = mx.arange(size)[None] >= size - knobs.min_tokens_to_keep
    remove = (mass <= knobs.one_minus_top_p * mass[:, -1:]) & ~spared & knobs.nucleus
    removed = mx.put_along_axis(mx.zeros(scores.shape, dtype=mx.bool_), ascending, remove, axis=-1)
    return mx.where(removed, -mx.inf, scores)


def _ascending(scores: mx.array) -> mx.array:
    """Ids from the least to the most likely token; among equal scores the lower id counts as more likely."""
    return mx.argsort(-scores, axis=-1)[:, ::-1]


def running_sum(rows: mx.array) -> mx.array:
    """Cumulative sum over the last axis in blocks: float32 errors grow with sqrt(V) instead of V; (B, V) -> (B, V)."""
    count, size = rows.shape
    padding = -size % SUM_BLOCK
    blocks = mx.pad(rows, [(0, 0), (0, padding)]).reshape(count, -1, SUM_BLOCK)
    within = mx.cumsum(blocks, axis=-1)
    before = mx.cumsum(within[..., -1:], axis=1, inclusive=False)
    return (within + before).reshape(count, -1)[:, :size]


def keep_min_p(scores: mx.array, knobs: Knobs) -> mx.array:
    """Remove tokens less likely than min_p times the most likely one.

    Sources: arXiv:2407.01082, section 3; MinPLogitsWarper of transformers. ln(p / p_max) is score - score_max, which
    needs no exp: MLX's is off by up to six units in the last place.
    """
    remove = scores - mx.max(scores, axis=-1, keepdims=True) < knobs.log_min_p
    if knobs.most_to_keep > 1:
        remove = remove & ~_most_likely(scores, knobs.min_tokens_to_keep)
    return mx.where(remove, -mx.inf, scores)


def _most_likely(scores: mx.array, count: mx.array) -> mx.array:
    """Mark the `count` (B, 1) most likely tokens of each row: bool (B, V)."""
    size = scores.shape[-1]
    ascending = _ascending(scores)
    last = mx.broadcast_to(mx.arange(size)[None] >= size - count, scores.shape)
    return mx.put_along_axis(mx.zeros(scores.shape, dtype=mx.bool_), ascending, last, axis=-1)
