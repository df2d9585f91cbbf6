"""The filters of the default order in float64: top_k, min_p, top_p, each threshold read in three ways (chain.py).

sign: 0 as defined, 1 generously, -1 strictly. rules: what an engine declares (engines/rules.py).
"""

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Evaluation
from sampler.engines.reference.optional import ROUNDING
from sampler.engines.rules import Rules
from sampler.stages import Stage

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SERIAL = 2.0**-28
"""Relative error per term of a float32 sum that is added term by term: four times the largest observed."""


def without(state: Evaluation, stage: Stage | Literal["greedy"], removed: Mask) -> Evaluation:
    """The state after a stage that removes some tokens."""
    return Evaluation(stage, np.where(removed, -np.inf, state.scores), state.error)


def spared(state: Evaluation, count: int, sign: float) -> Mask:
    """The `count` most likely tokens, which no threshold removes.

    As defined exactly this many, the lower id first; generously all that may belong to them; strictly those that no
    other one may overtake.
    """
    if count >= state.scores.shape[-1]:
        return np.ones(state.scores.shape, dtype=np.bool_)
    if sign == 0:
        spared = np.zeros(state.scores.shape, dtype=np.bool_)
        if count == 1:
            first = np.where(np.isnan(state.scores), -np.inf, state.scores).argmax(axis=-1)[:, None]
        else:
            first = np.argsort(-state.scores, axis=-1, kind="stable")[:, :count]
        np.put_along_axis(spared, first, values=True, axis=-1)
        return spared
    threshold, error = _ranked(state, count + (sign < 0))
    reach = state.error + error
    return state.scores > threshold + reach if sign < 0 else state.scores >= threshold - reach


def top_k(state: Evaluation, count: int, sign: float) -> Mask:
    """The `count` largest scores of each row and those that equal the last of them.

    Equal scores stay equal in float32, so ties do not depend on rounding as long as no other score is near.
    """
    if count >= state.scores.shape[-1]:
        return np.ones(state.scores.shape, dtype=np.bool_)
    threshold, error = _ranked(state, count)
    reach = state.error + error
    if sign >= 0:
        return state.scores >= threshold - sign * reach
    near = (state.scores != threshold) & (np.abs(above(state, threshold)) <= reach) & state.kept
    clear = (state.scores > threshold).sum(axis=-1, keepdims=True) + near.sum(axis=-1, keepdims=True) < count
    tied = (state.scores == threshold) & (clear | ~near.any(axis=-1, keepdims=True))
    return np.asarray(tied | spared(state, count, sign))


def above(state: Evaluation, threshold: Array) -> Array:
    """How far each score is above a threshold (B, 1); 0 for removed tokens, even if none is left in the row."""
    return np.subtract(state.scores, threshold, out=np.zeros(state.scores.shape), where=state.kept)


def _ranked(state: Evaluation, rank: int) -> tuple[Array, Array]:
    """The rank-th largest score of each row, from 1, and its error: two (B, 1)."""
    at = np.argpartition(-state.scores, rank - 1, axis=-1)[:, rank - 1 : rank]
    return np.take_along_axis(state.scores, at, axis=-1), np.take_along_axis(state.error, at, axis=-1)


def nucleus(scores: Array, error: Array, top_p: float, sign: float, rounding: float, rules: Rules, size: int) -> Mask:
    """Tokens with less than top_p of the mass before them; (V,) -> bool (V,). size: terms of an engine's sums.

    Read strictly, ties count as before each other; read generously, not. So any subset of the right size among equal
    scores lies between the two. As defined, the lower id comes first.
    """
    finite = scores > -np.inf
    if not finite.any():
        return finite
    weights = np.exp(scores - scores.max())
    descending = np.argsort(-scores, kind="stable")
    cumulative = np.concatenate([np.cumsum(weights[descending][::-1])[::-1], [0.0]])
    total, all_ties = cumulative[0], rules.get("top_p_ties") == "all"
    crossing, own = rules.get("top_p_crossing"), weights if rules.get("top_p_crossing") == "dropped" else 0.0
    if sign == 0:
        place = np.empty(len(scores), dtype=np.int64)
        place[descending] = np.arange(len(scores))
        mass = total - cumulative[place] + own
        kept = finite & (mass < top_p * total if crossing is None else mass <= top_p * total)
        return np.asarray(scores >= scores[kept].min() if all_ties and kept.any() else kept)
    reach = 2 * error + ROUNDING + rounding
    side: Literal["left", "right"] = "left" if sign > 0 else "right"
    edge = np.searchsorted(-scores[descending], -(scores + sign * reach), side=side)
    before = total - cumulative[edge]
    if sign < 0:
        before = before - (of_equals(scores, weights) if all_ties else weights)
    # Each probability may be off by the error of its score, and a float32 sum of V terms by about sqrt(V) roundings if
    # it is added in parts. Added term by term the errors accumulate on one side, since less than half a unit of the sum
    # is lost: MLX's softmax and NumPy's cumsum are 1.3e-4 off at V = 151,936 (normal logits, deviation 2.5), V x 2^-30.
    slack = 2 * float(np.sum(weights * error) / total) + ROUNDING * (2 + size**0.5 / 4) + size * SERIAL + rounding
    return np.asarray(finite & ((before + own) / total < top_p + sign * slack))


def of_equals(scores: Array, weights: Array) -> Array:
    """Weight of all tokens with the same score, which stay equal in float32 and have no order; (V,)."""
    _, group = np.unique(scores, return_inverse=True)
    return np.asarray(np.bincount(group, weights=weights)[group])


def _keep_top_k(
    state: Evaluation, config: SamplingConfig, sign: float, _rounding: float, rules: Rules, _size: int
) -> Mask:
    count = max(config.top_k, config.min_tokens_to_keep)
    return spared(state, count, sign) if rules.get("top_k_ties") == "exact" else top_k(state, count, sign)


def _keep_min_p(
    state: Evaluation, config: SamplingConfig, sign: float, rounding: float, rules: Rules, size: int
) -> Mask:
    best = state.scores.argmax(axis=-1)[:, None]
    top, error = (np.take_along_axis(values, best, axis=-1) for values in (state.scores, state.error))
    if rules.get("min_p_relative_to") == "total":
        with np.errstate(invalid="ignore"):
            weights = np.exp(state.scores - top)
        total = np.nansum(weights, axis=-1, keepdims=True)
        share = np.nan_to_num(weights) / np.maximum(total, 1.0)
        error = error + 2 * (share * state.error).sum(axis=-1, keepdims=True) + ROUNDING * (2 + size**0.5 / 4)
        top = top + np.log(np.maximum(total, 1.0))
    threshold = top + np.log(config.min_p)
    distance = np.abs(above(state, threshold)) - 2 * np.log(config.min_p)
    kept = state.scores >= threshold - sign * (state.error + error + ROUNDING * distance + rounding)
    return np.asarray(kept | spared(state, config.min_tokens_to_keep, sign))


def _keep_top_p(
    state: Evaluation, config: SamplingConfig, sign: float, rounding: float, rules: Rules, size: int
) -> Mask:
    rows = zip(state.scores, state.error, strict=True)
    kept = np.stack([nucleus(*row, config.top_p, sign, rounding, rules, size) for row in rows])
    return kept | spared(state, config.min_tokens_to_keep, sign)


FILTERS: Final[dict[Stage, Callable[[Evaluation, SamplingConfig, float, float, Rules, int], Mask]]] = {
    "top_k": _keep_top_k,
    "min_p": _keep_min_p,
    "top_p": _keep_top_p,
}
"""What each filter keeps, (B, V), where it is on. The last argument: of how many ids an engine's rows are."""
