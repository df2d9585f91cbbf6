"""The optional stages in NumPy float64, directly from their definitions, with a bound on float32 rounding.

As in the chain's reference, each threshold is read as defined, generously or strictly; `sign` is 0, 1 or -1.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Evaluation
from sampler.errors import ConfigError, LogitsError
from sampler.requests import Batch, Context
from sampler.stages import STAGES, Stage, of_kind

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 2.0**-21
"""Assumed relative error of one float32 operation: eight half units in the last place, since exp and the sums of
softmax are not correctly rounded in every framework (MLX's exp: six)."""

LARGEST_EXPONENT = 88.7
"""Limits the exponent of a DRY penalty, as a power of e: just under the largest float32."""

LARGEST_PENALTY = 1e30
"""The largest DRY penalty; no score outweighs it."""


def check_history(batch: Batch) -> None:
    """Raise LogitsError for a negative id if an optional stage reads the history."""
    for row, ids in enumerate(batch.history if set(batch.config.order) - set(STAGES) else ()):
        if len(ids) and min(ids) < 0:
            raise LogitsError(f"the history of row {row} contains {min(ids)}", hint="token ids are 0 or more")


def place_of(batch: Batch) -> Context:
    """The context of the rows; without one, the whole history counts as drawn."""
    lengths = np.array([len(ids) for ids in batch.history], dtype=np.int64)
    return batch.context or Context(np.zeros_like(lengths), lengths)


def counts(batch: Batch, size: int) -> Array:
    """How often each id was generated within the window: (B, V)."""
    result = np.zeros((len(batch), size))
    for row, (ids, length) in enumerate(zip(batch.history, place_of(batch).prompt_length, strict=True)):
        for token in list(ids[length:])[-batch.config.penalty_window :]:
            if token < size:
                result[row, token] += 1
    return result


def _bias(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001 - there is no threshold
    _check("logit_bias", batch.config.logit_bias, state)
    bias = np.zeros(state.scores.shape)
    for token, value in batch.config.logit_bias.items():
        bias[:, token] = value
    return _shifted("logit_bias", state, bias)


def _frequency(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001
    drawn = counts(batch, state.scores.shape[-1])
    return _shifted("frequency_penalty", state, -batch.config.frequency_penalty * drawn)


def _presence(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001
    seen = np.minimum(counts(batch, state.scores.shape[-1]), 1)
    return _shifted("presence_penalty", state, -batch.config.presence_penalty * seen)


def _dry(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001
    config = batch.config
    penalty = np.zeros(state.scores.shape)
    for row, ids in enumerate(batch.history):
        for place in range(1, len(ids)):
            token, length = ids[place], _common_end(ids[:place], ids, config.dry_breakers)
            if (
                length >= config.dry_allowed_length
                and token < state.scores.shape[-1]
                and token not in config.dry_breakers
            ):
                penalty[row, token] = max(penalty[row, token], _dry_penalty(length, config))
    return _shifted("dry_multiplier", state, -penalty)


def _dry_penalty(length: int, config: SamplingConfig) -> float:
    most = LARGEST_EXPONENT // np.log(config.dry_base) if config.dry_base > 1.000001 else 0
    exponent = min(length - config.dry_allowed_length, most)
    return float(min(config.dry_multiplier * config.dry_base**exponent, LARGEST_PENALTY))


def _common_end(left: Sequence[int], right: Sequence[int], breakers: Iterable[int]) -> int:
    """Length of the common end of two sequences, up to a breaker."""
    length = 0
    while length < len(left) and left[-1 - length] == right[-1 - length] and right[-1 - length] not in breakers:
        length += 1
    return length


def _ngrams(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001
    size = batch.config.no_repeat_ngram_size
    removed = np.zeros(state.scores.shape, dtype=np.bool_)
    for row, ids in enumerate(batch.history):
        end = list(ids[len(ids) - size + 1 :])
        for start in range(len(ids) - size + 1 if size else 0):
            if list(ids[start : start + size - 1]) == end and ids[start + size - 1] < state.scores.shape[-1]:
                removed[row, ids[start + size - 1]] = True
    return _without(state, "no_repeat_ngram_size", removed)


def _min_new(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001
    least, ids = batch.config.min_new_tokens, np.arange(state.scores.shape[-1])
    if least and not place_of(batch).eos_ids:
        raise ConfigError(f"min_new_tokens = {least} and no EOS id is known", hint="give eos_ids")
    early = place_of(batch).step[:, None] < least
    return _without(state, "min_new_tokens", early & np.isin(ids, place_of(batch).eos_ids)[None])


def _suppress(state: Evaluation, batch: Batch, sign: float) -> Evaluation:  # noqa: ARG001
    _check("suppressed_tokens", batch.config.suppressed_tokens, state)
    ids = np.arange(state.scores.shape[-1])
    removed = np.isin(ids, batch.config.suppressed_tokens)[None]
    return _without(state, "suppressed_tokens", np.broadcast_to(removed, state.scores.shape))


def _sigma(state: Evaluation, batch: Batch, sign: float) -> Evaluation:
    """Keep scores >= largest - n x standard deviation of the scores that are left."""
    sigmas, kept = batch.config.top_n_sigma, state.kept
    removed = np.zeros(state.scores.shape, dtype=np.bool_)
    for row in np.flatnonzero(kept.any(axis=-1)) if sigmas else ():
        scores, error = state.scores[row, kept[row]], state.error[row, kept[row]]
        threshold = scores.max() - sigmas * scores.std()
        # The error of the deviation is at most the root mean square of its terms' errors, plus its own rounding.
        moved = error + ROUNDING * _terms(len(scores)) * np.abs(scores)
        reach = error + error[scores.argmax()] + sigmas * (np.sqrt(np.mean(moved**2)) + ROUNDING * scores.std())
        removed[row, kept[row]] = scores < threshold - sign * (reach + 2 * ROUNDING * np.abs(scores).max())
        near = (scores < scores.max()) & (scores >= scores.max() - error - error[scores.argmax()])
        if not near.any():  # the largest is not below itself, however small the deviation
            removed[row, kept[row]] &= scores < scores.max()
    return _without(state, "top_n_sigma", removed)


def _typical(state: Evaluation, batch: Batch, sign: float) -> Evaluation:
    """Keep tokens with less than the mass nearer to the entropy, and the nearest `min_tokens_to_keep`."""
    mass, least = batch.config.typical_p, batch.config.min_tokens_to_keep
    removed = np.zeros(state.scores.shape, dtype=np.bool_)
    for row in np.flatnonzero(state.kept.any(axis=-1)) if mass < 1 else ():
        left = np.flatnonzero(state.kept[row])
        scores, error = state.scores[row, left], state.error[row, left]
        surprise, probability, slack = _surprise(scores, error)
        entropy = float(probability @ surprise)
        distance = np.abs(surprise - entropy)
        # First order in the errors of the scores: dH = -sum of p (ln p + H) times the error; then H's own rounding.
        drift = 2 * float(probability @ (error * distance)) + ROUNDING * entropy * _terms(len(left))
        reach = 2 * (error + slack + drift + ROUNDING * (np.abs(scores - scores.max()) + surprise + entropy))
        order = np.argsort(distance)
        before = np.concatenate([[0.0], np.cumsum(probability[order])])
        edge = np.searchsorted(distance[order], distance - sign * reach, side="right" if sign < 0 else "left")
        nearer = before[edge] - (probability if sign < 0 else 0.0)  # any subset of equal scores is right
        removed[row, left] = ~((nearer < mass + sign * slack) | _nearest(distance, reach, least, sign))
    return _without(state, "typical_p", removed)


def _nearest(distance: Array, reach: Array, count: int, sign: float) -> Mask:
    """The `count` smallest distances; generously all that may be among them, strictly those that surely are."""
    if sign == 0:
        nearest = np.zeros(len(distance), dtype=np.bool_)
        nearest[np.argsort(distance, kind="stable")[:count]] = True
        return nearest
    # Strictly, all that may come before, itself included; generously, those that surely do.
    rivals = np.searchsorted(np.sort(distance + sign * reach), distance - sign * reach, side="right")
    return np.asarray(rivals < count if sign > 0 else rivals <= count)


def _xtc(state: Evaluation, batch: Batch, sign: float) -> Evaluation:
    """Remove all but the least likely of the tokens that reach the threshold, in rows whose uniform number is small."""
    config = batch.config
    removed = np.zeros(state.scores.shape, dtype=np.bool_)
    for row in np.flatnonzero(state.kept.any(axis=-1)):
        if _acts(config.xtc_probability, place_of(batch).uniforms, int(row)):
            left = np.flatnonzero(state.kept[row])
            inputs = state.scores[row, left], state.error[row, left], config.xtc_threshold
            # The test for enough tokens uses the opposite reading: if more are removed, too few may be left, and all
            # stay.
            if len(left) - _excluded(*inputs, -sign).sum() >= config.min_tokens_to_keep:
                removed[row, left] = _excluded(*inputs, sign)
    return _without(state, "xtc_probability", removed)


def _excluded(scores: Array, error: Array, threshold: float, sign: float) -> Mask:
    """The tokens that XTC removes. Read generously, fewer reach the threshold, and fewer are removed."""
    surprise, _, slack = _surprise(scores, error)
    limit = -float(np.log(threshold))
    reach = error + slack + ROUNDING * (np.abs(scores - scores.max()) + limit + 1)
    above = surprise <= limit - sign * reach
    if not above.any():
        return np.zeros(len(scores), dtype=np.bool_)
    least = np.flatnonzero(above)[np.argmin(scores[above])]
    near = above & (np.abs(scores - scores[least]) <= error + error[least])
    excluded = above & (scores > scores[least])
    if sign > 0:
        excluded &= ~near
    if sign < 0 and near.sum() > 1:  # any of them may be kept; llama.cpp keeps one of equally likely ones
        excluded |= near
    return np.asarray(excluded)


def _acts(probability: float, uniforms: Array | None, row: int) -> bool:
    if probability in (0, 1):
        return probability == 1
    if uniforms is None:
        what = f"xtc_probability = {probability} in row {row} and there is no uniform number"
        raise ConfigError(what, hint="give uniforms")
    return bool(uniforms[row] < probability)


OPTIONAL: Final[Mapping[Stage, Callable[[Evaluation, Batch, float], Evaluation]]] = {
    "logit_bias": _bias,
    "frequency_penalty": _frequency,
    "presence_penalty": _presence,
    "dry_multiplier": _dry,
    "no_repeat_ngram_size": _ngrams,
    "min_new_tokens": _min_new,
    "suppressed_tokens": _suppress,
    "top_n_sigma": _sigma,
    "typical_p": _typical,
    "xtc_probability": _xtc,
}

TAILS: Final = of_kind("tail")
HEADS: Final = of_kind("head")
_AFTER_TAILS: Final = of_kind("ranking", "head") | {"top_n_sigma"}
_AFTER_HEADS: Final = of_kind("ranking", "head", "tail") | {"greedy"}


def disturbed_after(stage: str) -> frozenset[str]:
    """Stages whose outcome may change in either direction if rounding decides what `stage` removes."""
    return _AFTER_TAILS if stage in TAILS else _AFTER_HEADS if stage in HEADS else frozenset()


def _shifted(stage: Stage, state: Evaluation, by: Array) -> Evaluation:
    scores = state.scores + by
    error = np.where(state.kept, ROUNDING * (np.abs(by) + np.abs(np.where(state.kept, scores, 0.0))), 0.0)
    return Evaluation(stage, scores, state.error + np.where(by == 0, 0.0, error))


def _without(state: Evaluation, stage: Stage, removed: Mask) -> Evaluation:
    return Evaluation(stage, np.where(removed, -np.inf, state.scores), state.error)


def _surprise(scores: Array, error: Array) -> tuple[Array, Array, float]:
    """-ln p and p of each token, and the relative error of the sum of the weights."""
    below = scores - scores.max()
    total = np.exp(below).sum()
    probability = np.exp(below) / total
    slack = 2 * float(probability @ error) + ROUNDING * _terms(len(scores))
    return np.log(total) - below, probability, slack


def _terms(count: int) -> float:
    """The assumed number of roundings in a sum of this many float32 terms."""
    return 2 + float(count**0.5) / 4


def _check(name: str, ids: Iterable[int], state: Evaluation) -> None:
    largest, size = max(ids, default=0), state.scores.shape[-1]
    if largest >= size:
        raise ConfigError(f"{name} names the id {largest}", hint=f"the vocabulary has {size} ids")
