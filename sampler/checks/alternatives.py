"""What is known to go wrong in each stage, as functions of float64 scores: the library that a diagnosis compares with.

Each row is one mistake or dialect that was found in a real sampler. It gives the scores that an engine with this
mistake would have where the stage stands alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from sampler.checks.inputs import bfloat16
from sampler.config import SamplingConfig

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Inputs:
    """Of one probe: scores and unconditional ones, float64 (B, V)."""

    scores: Array
    history: Sequence[Sequence[int]]
    config: SamplingConfig
    uncond: Array | None = None

    def counts(self, first: int = 0, last: int | None = None) -> Array:
        """How often each id occurs in a part of each history, (B, V)."""
        result = np.zeros(self.scores.shape)
        for row, ids in enumerate(self.history):
            inside = [token for token in list(ids)[first:last] if 0 <= token < self.scores.shape[1]]
            np.add.at(result[row], np.array(inside, dtype=np.int64), 1.0)
        return result

    @property
    def seen(self) -> Mask:
        """Ids of the history, (B, V)."""
        return self.counts() > 0


@dataclass(frozen=True)
class Alternative:
    """One mistake. up_to_ties: which of equal scores it keeps is open. stage: what is named."""

    stage: str
    explanation: str
    scores: Callable[[Inputs], Array]
    up_to_ties: bool = False


def _penalized(inputs: Inputs, seen: Mask, factor: float | Array | None = None) -> Array:
    penalty = inputs.config.repetition_penalty if factor is None else factor
    scores = inputs.scores
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(seen, np.where(scores < 0, scores * penalty, scores / penalty), scores)


def _by_count(inputs: Inputs) -> Array:
    counts = inputs.counts()
    return _penalized(inputs, counts > 0, inputs.config.repetition_penalty**counts)


def _stray(inputs: Inputs, token: int) -> Array:
    """Ids beyond the vocabulary are taken for another one."""
    seen = inputs.seen
    outside = [any(each >= seen.shape[1] for each in ids) for ids in inputs.history]
    seen[np.array(outside, dtype=np.bool_), token] = True
    return _penalized(inputs, seen)


def _with(change: Callable[[Array, float], Array], knob: str) -> Callable[[Inputs], Array]:
    """An alternative that reads only the scores and one knob."""
    return lambda inputs: change(inputs.scores, float(getattr(inputs.config, knob)))


def _without(scores: Array, removed: Mask) -> Array:
    return np.where(removed, -np.inf, scores)


def _ranks(scores: Array) -> NDArray[np.int64]:
    """Place of each token among the row's, 0 for the most likely; the lower id first among equals."""
    return np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1, kind="stable")


def _cumulative(weights: Array, scores: Array) -> Array:
    """Sum of the weights of a token and of all before it in descending order, by token id."""
    descending = np.argsort(-scores, axis=-1, kind="stable")
    sums = np.cumsum(np.take_along_axis(weights, descending, axis=-1), axis=-1)
    result = np.empty_like(sums)
    np.put_along_axis(result, descending, sums, axis=-1)
    return result


def _nucleus(scores: Array, top_p: float, *, shift: int = 0, weights: Array | None = None, keep: int = 1) -> Array:
    """Tokens before which less than top_p lies, and `shift` more or less of them."""
    mass = softmax(scores, axis=-1) if weights is None else weights
    ranks = _ranks(scores)
    before = _cumulative(mass, scores) - mass
    count = ((before < top_p) & (scores > -np.inf)).sum(axis=-1, keepdims=True)
    return _without(scores, ranks >= np.maximum(count + shift, keep))


def _exclusive(inputs: Inputs, *, keep: int | None = None) -> Array:
    """Tokens with which the mass stays within top_p: without the one that crosses."""
    scores = inputs.scores
    within = _cumulative(softmax(scores, axis=-1), scores) <= inputs.config.top_p + 1e-9
    spared = _ranks(scores) < (inputs.config.min_tokens_to_keep if keep is None else keep)
    return _without(scores, ~(within | spared))


def _more(inputs: Inputs, extra: int) -> Array:
    keep = inputs.config.min_tokens_to_keep
    return _nucleus(inputs.scores, inputs.config.top_p, shift=extra, keep=keep)


def _with_its_ties(inputs: Inputs) -> Array:
    """The nucleus and all that equals its last token."""
    kept = _more(inputs, 0)
    last = np.where(kept > -np.inf, kept, np.inf).min(axis=-1, keepdims=True)
    return _without(inputs.scores, inputs.scores < last)


def _ascending_exp(scores: Array, top_p: float) -> Array:
    """Exp of what it is given, summed from the smallest on and held against 1 - top_p: right for log-probabilities."""
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.exp(scores)
        ascending = np.argsort(scores, axis=-1, kind="stable")
        sums = np.cumsum(np.take_along_axis(weights, ascending, axis=-1), axis=-1)
        cumulative = np.empty_like(sums)
        np.put_along_axis(cumulative, ascending, sums, axis=-1)
        return _without(scores, cumulative <= 1 - top_p)


def _coarse(scores: Array, top_p: float) -> Array:
    """The running sum in float16 steps."""
    weights = softmax(scores, axis=-1)
    descending = np.argsort(-scores, axis=-1, kind="stable")
    sums = np.cumsum(np.take_along_axis(weights, descending, axis=-1).astype(np.float16), axis=-1, dtype=np.float16)
    before = np.concatenate([np.zeros((len(scores), 1)), sums[:, :-1].astype(np.float64)], axis=-1)
    removed = np.empty(scores.shape, dtype=np.bool_)
    np.put_along_axis(removed, descending, before >= top_p, axis=-1)
    return _without(scores, removed)


def _unsorted(scores: Array, top_p: float) -> Array:
    weights = softmax(scores, axis=-1)
    return _without(scores, np.cumsum(weights, axis=-1) - weights >= top_p)


def _kth(scores: Array, count: int) -> Array:
    return -np.sort(-scores, axis=-1)[:, min(count, scores.shape[1]) - 1][:, None]


def _top_k(inputs: Inputs, change: int, *, keep: bool = True) -> Array:
    count = max(inputs.config.top_k, inputs.config.min_tokens_to_keep if keep else 1) + change
    return _without(inputs.scores, inputs.scores < _kth(inputs.scores, max(1, count)))


def _exactly_k(inputs: Inputs) -> Array:
    count = max(inputs.config.top_k, inputs.config.min_tokens_to_keep)
    return _without(inputs.scores, _ranks(inputs.scores) >= count)


def _min_p(scores: Array, min_p: float, *, strict: bool = False) -> Array:
    best = scores.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        threshold = best + np.log(min_p)
    return _without(scores, scores <= threshold if strict else scores < threshold)


def _raw_min_p(scores: Array, min_p: float) -> Array:
    return _without(scores, scores < min_p * scores.max(axis=-1, keepdims=True))


def _absolute_min_p(scores: Array, min_p: float) -> Array:
    return _without(scores, softmax(scores, axis=-1) < min_p)


def _uncond(inputs: Inputs) -> Array:
    return inputs.scores if inputs.uncond is None else inputs.uncond


def _guided(base: str, weight: Callable[[float], float], sign: int = 1) -> Callable[[Inputs], Array]:
    """Base + weight (c - u), or (u - c) for sign -1."""

    def scores(inputs: Inputs) -> Array:
        cond, uncond = inputs.scores, _uncond(inputs)
        with np.errstate(invalid="ignore"):
            start = cond if base == "c" else uncond
            mixed = start + sign * weight(inputs.config.cfg_weight) * (cond - uncond)
        return np.where(cond == -np.inf, -np.inf, mixed)

    return scores


def _mixed_probabilities(inputs: Inputs) -> Array:
    cond, uncond = softmax(inputs.scores, axis=-1), softmax(_uncond(inputs), axis=-1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(cond + inputs.config.cfg_weight * (cond - uncond), 0)))


def _greedy(inputs: Inputs, pick: Callable[[Array], Array]) -> Array:
    return pick(inputs.scores) if inputs.config.temperature == 0 else inputs.scores / inputs.config.temperature


def _last_maximum(scores: Array) -> Array:
    best = scores.shape[1] - 1 - np.argmax(scores[:, ::-1], axis=-1)
    return _without(scores, np.arange(scores.shape[1])[None] != best[:, None])


def _tempered(scores: Array, temperature: float, power: float) -> Array:
    if temperature == 0:
        return _without(scores, _ranks(scores) > 0)
    return np.asarray(scores / temperature**power)


def _leaky(scores: Array, epsilon: float) -> Array:
    return np.asarray(np.log(softmax(scores, axis=-1) + epsilon))


def _rounded(scores: Array, dtype: type[np.floating[Any]]) -> Array:
    with np.errstate(over="ignore"):
        return scores.astype(dtype).astype(np.float64)


def _with_default(knob: str, value: float) -> Callable[[Inputs], Array]:
    """A stage that should be off and works with a default of its own."""

    def scores(inputs: Inputs) -> Array:
        if knob.removesuffix("_weight") not in inputs.config.order:
            return inputs.scores
        knobs: dict[str, Any] = {knob: value}
        on = replace(inputs, config=replace(inputs.config, **knobs))
        match knob:
            case "top_k":
                return _exactly_k(on) if value == 1 else _top_k(on, 0)
            case "top_p":
                return _nucleus(on.scores, value)
            case "min_p":
                return _min_p(on.scores, value)
            case "temperature":
                return on.scores / value
            case "repetition_penalty":
                return _penalized(on, on.seen)
            case _:
                return _guided("c", lambda w: w)(on)

    return scores


IGNORED = "is accepted and ignored"

ALTERNATIVES: dict[str, tuple[Alternative, ...]] = {
    "nothing": (
        Alternative("precision", "logits are rounded to float16", lambda i: _rounded(i.scores, np.float16)),
        Alternative("precision", "logits are rounded to bfloat16", lambda i: bfloat16(i.scores)),
        Alternative("draw", "removed tokens come back: log(p + 1e-10)", lambda i: _leaky(i.scores, 1e-10)),
        Alternative("draw", "removed tokens come back: log(p + 1e-8)", lambda i: _leaky(i.scores, 1e-8)),
        Alternative("draw", "removed tokens come back: log(p + 1e-5)", lambda i: _leaky(i.scores, 1e-5)),
        *(
            Alternative("top_k", f"0, which is off, acts as {count}", _with_default("top_k", count), up_to_ties=True)
            for count in (1, 5, 10, 20, 40, 50, 64, 100, 1_000)
        ),
        *(
            Alternative("top_p", f"1, which is off, acts as {mass}", _with_default("top_p", mass))
            for mass in (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
        ),
        *(
            Alternative("min_p", f"0, which is off, acts as {share}", _with_default("min_p", share))
            for share in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0)
        ),
        *(
            Alternative("temperature", f"1, which is off, acts as {value}", _with_default("temperature", value))
            for value in (0.5, 0.6, 0.7, 0.8, 0.9, 1.2)
        ),
        *(
            Alternative(
                "repetition_penalty", f"1, which is off, acts as {value}", _with_default("repetition_penalty", value)
            )
            for value in (1.05, 1.1, 1.2, 1.3, 1.5, 2.0)
        ),
        *(
            Alternative("cfg", f"0, which is off, acts as {value}", _with_default("cfg_weight", value))
            for value in (0.5, 1.0, 1.5, 3.0)
        ),
    ),
    "cfg": (
        Alternative("cfg", IGNORED, lambda i: i.scores),
        Alternative("cfg", "u + w (c - u) in place of c + w (c - u)", _guided("u", lambda w: w)),
        Alternative("cfg", "c + w (c - u) in place of u + w (c - u)", _guided("c", lambda w: w)),
        Alternative("cfg", "conditional and unconditional rows are exchanged", _guided("u", lambda w: w, -1)),
        Alternative("cfg", "the sign of the difference: c + w (u - c)", _guided("c", lambda w: w, -1)),
        Alternative("cfg", "the weight plus one", _guided("c", lambda w: w + 1)),
        Alternative("cfg", "the weight minus one", _guided("c", lambda w: w - 1)),
        Alternative(
            "cfg", "only the unconditional logits", lambda i: np.where(i.scores == -np.inf, -np.inf, _uncond(i))
        ),
        Alternative("cfg", "half the weight", _guided("c", lambda w: w / 2)),
        Alternative("cfg", "mixes probabilities, not logits", _mixed_probabilities),
    ),
    "repetition_penalty": (
        Alternative("repetition_penalty", IGNORED, lambda i: i.scores),
        Alternative(
            "repetition_penalty",
            "divides negative scores too, so that they become more likely",
            lambda i: np.where(i.seen, i.scores / i.config.repetition_penalty, i.scores),
        ),
        Alternative(
            "repetition_penalty",
            "multiplies positive scores too",
            lambda i: np.where(i.seen, i.scores * i.config.repetition_penalty, i.scores),
        ),
        Alternative(
            "repetition_penalty", "the reciprocal: rewards what it should penalise",
            lambda i: _penalized(i, i.seen, 1 / i.config.repetition_penalty),
        ),
        Alternative("repetition_penalty", "once for each occurrence, not once for each id", _by_count),
        Alternative(
            "repetition_penalty", "is applied twice", lambda i: _penalized(i, i.seen, i.config.repetition_penalty**2)
        ),
        Alternative(
            "repetition_penalty", "a window of 20: sees only the last 20 ids",
            lambda i: _penalized(i, i.counts(-20) > 0),
        ),
        Alternative(
            "repetition_penalty", "a window of 64: sees only the last 64 ids",
            lambda i: _penalized(i, i.counts(-64) > 0),
        ),
        Alternative(
            "repetition_penalty", "sees only the last id of the history", lambda i: _penalized(i, i.counts(-1) > 0)
        ),
        Alternative(
            "repetition_penalty", "the first id (the prompt) is missing from the history",
            lambda i: _penalized(i, i.counts(1) > 0),
        ),
        Alternative(
            "repetition_penalty", "the last id is missing from the history",
            lambda i: _penalized(i, i.counts(0, -1) > 0),
        ),
        Alternative(
            "repetition_penalty", "is subtracted",
            lambda i: np.where(i.seen, i.scores - i.config.repetition_penalty, i.scores),
        ),
        Alternative(
            "repetition_penalty", "its logarithm is subtracted",
            lambda i: np.where(i.seen, i.scores - np.log(i.config.repetition_penalty), i.scores),
        ),
        Alternative(
            "repetition_penalty", "is applied to log-probabilities, not to logits",
            lambda i: np.where(
                i.seen, log_softmax(i.scores, axis=-1) * i.config.repetition_penalty, log_softmax(i.scores, axis=-1)
            ),
        ),
        Alternative("repetition_penalty", "penalises what is not in the history", lambda i: _penalized(i, ~i.seen)),
        Alternative("repetition_penalty", "ids outside the vocabulary hit token 0", lambda i: _stray(i, 0)),
        Alternative("repetition_penalty", "ids outside the vocabulary hit the last token", lambda i: _stray(i, -1)),
        Alternative(
            "repetition_penalty", "only positive scores are changed",
            lambda i: np.where(i.scores > 0, _penalized(i, i.seen), i.scores),
        ),
        Alternative(
            "repetition_penalty", "only negative scores are changed",
            lambda i: np.where(i.scores < 0, _penalized(i, i.seen), i.scores),
        ),
        Alternative(
            "repetition_penalty", "seen tokens are removed", lambda i: np.where(i.seen, -np.inf, i.scores)
        ),
    ),
    "temperature": (
        Alternative("temperature", IGNORED, lambda i: i.scores),
        Alternative("temperature", "is applied twice", _with(lambda s, t: _tempered(s, t, 2), "temperature")),
        Alternative(
            "temperature", "multiplies in place of dividing", _with(lambda s, t: _tempered(s, t, -1), "temperature")
        ),
        Alternative("temperature", "its square root", _with(lambda s, t: _tempered(s, t, 0.5), "temperature")),
        Alternative("temperature", "0 still samples", lambda i: _greedy(i, lambda s: s)),
        Alternative(
            "temperature", "0 keeps every maximum, not the lowest id",
            lambda i: _greedy(i, lambda s: _without(s, s < s.max(axis=-1, keepdims=True))),
        ),
        Alternative("temperature", "0 keeps the highest id among the maxima", lambda i: _greedy(i, _last_maximum)),
        Alternative(
            "temperature", "is not allowed under 1",
            _with(lambda s, t: _tempered(s, max(t, 1.0) if t else 0, 1), "temperature")
        ),
        Alternative(
            "temperature", "is not allowed over 1", _with(lambda s, t: _tempered(s, min(t, 1.0), 1), "temperature")
        ),
        Alternative(
            "temperature", "is applied to probabilities",
            _with(lambda s, t: softmax(s, axis=-1) / t if t else _tempered(s, 0, 1), "temperature"),
        ),
    ),
    "top_k": (
        Alternative("top_k", IGNORED, lambda i: i.scores),
        Alternative("top_k", "keeps exactly k at ties", _exactly_k, up_to_ties=True),
        Alternative("top_k", "keeps one token too many", lambda i: _top_k(i, 1)),
        Alternative("top_k", "keeps one token too few", lambda i: _top_k(i, -1)),
        Alternative("top_k", "min_tokens_to_keep is ignored", lambda i: _top_k(i, 0, keep=False)),
        Alternative(
            "top_k", "1 filters nothing", lambda i: i.scores if i.config.top_k == 1 else _top_k(i, 0),
        ),
        Alternative("top_k", "always keeps one token", lambda i: _without(i.scores, _ranks(i.scores) > 0)),
        Alternative(
            "top_k", "ties with the k-th are removed",
            lambda i: _without(i.scores, i.scores <= _kth(i.scores, max(i.config.top_k, i.config.min_tokens_to_keep))),
        ),
        Alternative(
            "top_k", "keeps the least likely tokens",
            lambda i: _without(i.scores, i.scores > -_kth(-i.scores, i.config.top_k)),
        ),
    ),
    "min_p": (
        Alternative("min_p", IGNORED, lambda i: i.scores),
        Alternative("min_p", "compares raw logits: l < min_p x largest l", _with(_raw_min_p, "min_p")),
        Alternative(
            "min_p", "is an absolute threshold: p < min_p, not relative to the largest p",
            _with(_absolute_min_p, "min_p")
        ),
        Alternative(
            "min_p", "tokens exactly at the threshold are removed",
            _with(lambda s, m: _min_p(s, m, strict=True), "min_p")
        ),
        Alternative("min_p", "min_tokens_to_keep is ignored", _with(_min_p, "min_p")),
        Alternative("min_p", "the square of the threshold", _with(lambda s, m: _min_p(s, m * m), "min_p")),
        Alternative("min_p", "the square root of the threshold", _with(lambda s, m: _min_p(s, m**0.5), "min_p")),
        Alternative("min_p", "one minus the threshold", _with(lambda s, m: _min_p(s, 1 - m), "min_p")),
        Alternative(
            "min_p", "is off for vocabularies over 32,768",
            _with(lambda s, m: s if s.shape[1] > 32_768 else _min_p(s, m), "min_p"),
        ),
    ),
    "top_p": (
        Alternative("top_p", IGNORED, lambda i: i.scores),
        Alternative("top_p", "drops the token that crosses the threshold", _exclusive, up_to_ties=True),
        Alternative(
            "top_p", "drops the token that crosses, and may keep none", lambda i: _exclusive(i, keep=0), up_to_ties=True
        ),
        Alternative("top_p", "keeps one token too many", lambda i: _more(i, 1), up_to_ties=True),
        Alternative("top_p", "keeps one token too few", lambda i: _more(i, -1), up_to_ties=True),
        Alternative("top_p", "keeps every tie with the last token of the nucleus", _with_its_ties),
        Alternative("top_p", "min_tokens_to_keep is ignored", _with(_nucleus, "top_p"), up_to_ties=True),
        Alternative("top_p", "one minus the mass", _with(lambda s, p: _nucleus(s, 1 - p), "top_p")),
        Alternative("top_p", "exp of raw logits stands for probabilities", _with(_ascending_exp, "top_p")),
        Alternative(
            "top_p", "removes the head and keeps the tail",
            _with(lambda s, p: _without(s, _nucleus(s, p) > -np.inf), "top_p"),
        ),
        Alternative("top_p", "the running sum is not sorted", _with(_unsorted, "top_p")),
        Alternative("top_p", "the running sum saturates in half precision", _with(_coarse, "top_p")),
        Alternative(
            "top_p", "0 means off", _with(lambda s, p: s if p == 0 else _nucleus(s, p), "top_p"),
        ),
        Alternative(
            "top_p", "sums log-probabilities",
            _with(lambda s, p: _nucleus(s, p, weights=np.maximum(log_softmax(s, axis=-1), -1e30)), "top_p"),
        ),
        Alternative(
            "top_p", "squared probabilities are summed",
            _with(lambda s, p: _nucleus(s, p, weights=softmax(s, axis=-1) ** 2), "top_p"),
        ),
    ),
}  # fmt: skip
"""By the cell in which the stage stands alone; the first that fits is named, so the plain ones come first."""


def agreement(scores: Array, other: Array, *, up_to_ties: bool) -> Mask:
    """Rows on which two sets of scores mean the same distribution, but for a token at a threshold; (B,)."""
    usable = (other > -np.inf).any(axis=-1) & ~np.isnan(other).any(axis=-1) & ~(other == np.inf).any(axis=-1)
    usable &= (scores > -np.inf).any(axis=-1) & ~np.isnan(scores).any(axis=-1) & ~(scores == np.inf).any(axis=-1)
    result = np.zeros(len(scores), dtype=np.bool_)
    if usable.any():
        mine, theirs = softmax(scores[usable], axis=-1), softmax(other[usable], axis=-1)
        if up_to_ties:
            mine, theirs = np.sort(mine, axis=-1), np.sort(theirs, axis=-1)
        result[usable] = np.abs(mine - theirs).sum(axis=-1) / 2 <= CLOSE
    return result


CLOSE = 1e-4
"""Total variation up to which an answer is taken for that of an alternative."""
