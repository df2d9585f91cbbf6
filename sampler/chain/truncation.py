"""Stages that remove tokens: top-k, top-p (nucleus) and min-p."""

import math

import numpy as np
from numpy.typing import NDArray

from sampler.chain.knobs import Knobs
from sampler.chain.left import FloatRows, Left, left_of
from sampler.compiled import compiled

REMOVED = np.float32(-np.inf)
SIGN = np.uint32(1 << 31)


def keep_top_k(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Remove scores below the k-th largest; ties with it stay. Source: TopKLogitsWarper of transformers."""
    size = scores.shape[-1]
    place = size - knobs.top_k  # of the k-th largest among ascending scores
    threshold = np.take_along_axis(np.partition(scores, np.unique(place), axis=-1), place, axis=-1)
    return np.where((scores < threshold) & (place > 0), REMOVED, scores)


def keep_nucleus(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Keep the smallest set of most likely tokens whose probability reaches top_p; the crossing token stays.

    Probabilities are those of what is left, renormalised, in float64; among equal scores the lower id counts as more
    likely. Sources: arXiv:1904.09751, equation 2; TopPLogitsWarper of transformers, whose ascending sum is used here
    too because it adds the small terms first.
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
    at = np.flatnonzero(~remove)
    kept.ravel()[at] = scores.ravel()[at]
    return kept


def _only(scores: FloatRows, share: NDArray[np.float64], spared: NDArray[np.int64]) -> FloatRows:
    """Remove the least likely tokens up to a share of the mass, but never the `spared` most likely; columns (B, 1)."""
    left = left_of(scores)
    goes = ~_staying(left, _ranks(left.scores), share[:, 0], spared[:, 0])
    rows = np.repeat(np.arange(len(scores)), np.diff(left.starts))
    kept = scores.copy()
    kept[rows[goes], left.tokens[goes]] = REMOVED
    return kept


def _ranks(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers in the order of the scores; 0 and -0 are one."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


@compiled
def _staying(
    left: Left, ranks: NDArray[np.uint32], share: NDArray[np.float64], spared: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which tokens stay, bool (n,): a search for the crossing score, eight of its bits at a time.

    Each round adds up the mass of the candidates by their next eight bits, removes what is below the crossing and
    goes on with what shares its bits. What is left after four rounds are equal scores, of which higher ids go first.
    """
    stays = np.ones(len(ranks), dtype=np.bool_)
    for row in range(len(share)):
        start, end = left.starts[row], left.starts[row + 1]
        removable = end - start - spared[row]
        if share[row] < 0 or removable <= 0:
            continue
        best = np.float64(left.scores[start:end].max())
        weights = np.empty(end - start)
        for place in range(start, end):
            weights[place - start] = math.exp(left.scores[place] - best)
        limit, below, count = share[row] * weights.sum(), 0.0, 0
        candidates = np.arange(start, end)
        for shift in (24, 16, 8, 0):
            mass, number = np.zeros(256), np.zeros(256, dtype=np.int64)
            for place in candidates:
                bits = (ranks[place] >> shift) & 255
                mass[bits] += weights[place - start]
                number[bits] += 1
            crossing = 0  # 255 at most, whatever the rounding of sums in two orders does
            while crossing < 255 and below + mass[crossing] <= limit and count + number[crossing] <= removable:
                below, count = below + mass[crossing], count + number[crossing]
                crossing += 1
            same = 0
            for place in candidates:
                bits = (ranks[place] >> shift) & 255
                if bits < crossing:
                    stays[place] = False
                elif bits == crossing:
                    candidates[same] = place
                    same += 1
            candidates = candidates[:same]
        for place in candidates[::-1]:
            below, count = below + weights[place - start], count + 1
            if below > limit or count > removable:
                break
            stays[place] = False
    return stays
