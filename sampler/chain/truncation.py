"""Stages that remove tokens: top-k, top-p (nucleus) and min-p."""

import math

import numpy as np
from numpy.typing import NDArray

from sampler.chain.knobs import Knobs
from sampler.chain.survivors import FloatRows, Left, left_of
from sampler.runtime.compiled import compiled

REMOVED = np.float32(-np.inf)
SIGN, ALL_BITS = np.uint64(1 << 31), np.uint64((1 << 32) - 1)


def keep_top_k(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Remove scores below the k-th largest; ties with it stay. Source: TopKLogitsWarper of transformers."""
    size = scores.shape[-1]
    place = size - knobs.top_k  # of the k-th largest among ascending scores
    threshold = np.take_along_axis(np.partition(scores, np.unique(place), axis=-1), place, axis=-1)
    return np.where((scores < threshold) & (place > 0), REMOVED, scores)


def keep_nucleus(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Keep the smallest set of most likely tokens whose probability reaches top_p; the crossing token stays.

    Probabilities are those of the tokens left, renormalised, in float64; among equal scores the lower id counts as more
    likely. Sources: arXiv:1904.09751, equation 2; TopPLogitsWarper of transformers, whose ascending sum is also used
    here because it adds the small terms first.
    """
    return _only(scores, knobs.one_minus_top_p, knobs.min_tokens_to_keep)


def keep_min_p(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Remove tokens less likely than min_p times the most likely one.

    Sources: arXiv:2407.01082, section 3; MinPLogitsWarper of transformers. ln(p / p_max) is score - score_max, which
    needs no exp.
    """
    remove = scores - scores.max(axis=-1, keepdims=True) < knobs.log_min_p
    if (knobs.min_tokens_to_keep > 1).any():
        most_likely = _only(scores, np.full(knobs.log_min_p.shape, np.inf), knobs.min_tokens_to_keep)
        remove &= most_likely == -np.inf
    kept = np.full_like(scores, REMOVED)
    at = np.flatnonzero(~remove)  # few, so copying them is cheaper than removing the others
    kept.ravel()[at] = scores.ravel()[at]
    return kept


def _only(scores: FloatRows, share: NDArray[np.float64], spared: NDArray[np.int64]) -> FloatRows:
    """Remove the least likely tokens up to a share of the mass, but never the `spared` most likely; columns (B, 1)."""
    kept, left = scores.copy(), left_of(scores)
    bits = (left.scores + np.float32(0)).view(np.uint32)  # + 0: 0 and -0 are equal scores
    weights, ranks = _weigh(left, bits, scores.max(axis=-1))
    _remove(kept, left, weights, ranks, share[:, 0], spared[:, 0])
    return kept


@compiled
def _weigh(
    left: Left, bits: NDArray[np.uint32], best: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Probabilities of tokens relative to the best of their row, and integers below 2^40 in the order of the scores.

    The upper eight bits of an integer are the distance to the best in eighths of a nat, the others the float's own
    bits.
    """
    weights, ranks = np.empty(len(bits)), np.empty(len(bits), dtype=np.uint64)
    for row in range(len(best)):
        for place in range(left.starts[row], left.starts[row + 1]):
            depth = np.float64(best[row]) - left.scores[place]
            weights[place] = math.exp(-depth)
            own = np.uint64(bits[place])
            ordered = own ^ ALL_BITS if own & SIGN else own | SIGN
            ranks[place] = ordered | np.uint64(255 - np.int64(min(8 * depth, 255.0))) << np.uint64(32)
    return weights, ranks


@compiled
def _remove(
    kept: FloatRows,
    left: Left,
    weights: NDArray[np.float64],
    ranks: NDArray[np.uint64],
    share: NDArray[np.float64],
    spared: NDArray[np.int64],
) -> None:
    """Remove in `kept` all tokens below the crossing, which is found by a search over ranks, eight bits at a time.

    Each round sums the mass of the candidates by their next eight bits, removes those below the crossing, and goes on
    with those that share its bits. In the end equal scores are left, of which higher ids are removed first.
    """
    for row in range(len(share)):
        start, end = left.starts[row], left.starts[row + 1]
        most = end - start - spared[row]
        if share[row] < 0 or most <= 0:
            continue
        limit, below, count = share[row] * weights[start:end].sum(), 0.0, 0
        candidates = np.arange(start, end)
        for shift in (32, 24, 16, 8, 0):
            mass, number = np.zeros(256), np.zeros(256, dtype=np.int64)
            for place in candidates:
                digit = np.int64(ranks[place] >> np.uint64(shift)) & 255
                mass[digit] += weights[place]
                number[digit] += 1
            crossing = 0  # at most 255, even if two orders of summation round differently
            while crossing < 255 and below + mass[crossing] <= limit and count + number[crossing] <= most:
                below, count = below + mass[crossing], count + number[crossing]
                crossing += 1
            same = 0
            for place in candidates:
                digit = np.int64(ranks[place] >> np.uint64(shift)) & 255
                if digit < crossing:
                    kept[row, left.tokens[place]] = REMOVED
                candidates[same] = place
                same += digit == crossing
            candidates = candidates[:same]
        for place in candidates[::-1]:
            below, count = below + weights[place], count + 1
            if below > limit or count > most:
                break
            kept[row, left.tokens[place]] = REMOVED
