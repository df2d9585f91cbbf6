"""Known mistakes in top_k, min_p and top_p."""

import numpy as np
from scipy.special import log_softmax, softmax

from sampler.checks.conformance.diagnosis.alternatives.base import (
    IGNORED,
    Alternative,
    Array,
    at_least,
    largest,
    misplaced,
    ranks,
    with_knob,
    without,
)
from sampler.checks.conformance.diagnosis.alternatives.padding import padded
from sampler.checks.conformance.rows import bfloat16
from sampler.requests import Batch


def kept_by_top_k(inputs: Batch) -> int:
    """How many tokens top_k keeps."""
    return max(inputs.config.top_k, at_least(inputs))


def top_k(scores: Array, count: int) -> Array:
    """Remove scores below the count-th; for 0 or less keep only the best."""
    return without(scores, scores < largest(scores, max(1, count)))


def exactly_k(inputs: Batch) -> Array:
    """Keep exactly the requested number of tokens, the lower id first among equals."""
    return without(inputs.logits, ranks(inputs.logits) >= kept_by_top_k(inputs))


def _capped(most: int) -> Alternative:
    return Alternative("top_k", f"is at most {most}", lambda i: top_k(i.logits, min(kept_by_top_k(i), most)))


def _of_magnitudes(inputs: Batch) -> Array:
    sizes = np.where(inputs.logits == -np.inf, -np.inf, np.abs(inputs.logits))
    return without(inputs.logits, top_k(sizes, kept_by_top_k(inputs)) == -np.inf)


TOP_K = (
    Alternative("top_k", IGNORED, lambda i: i.logits),
    Alternative("top_k", "keeps exactly k at ties", exactly_k, up_to_ties=True),
    Alternative("top_k", "keeps one token too many", lambda i: top_k(i.logits, kept_by_top_k(i) + 1)),
    Alternative(
        "top_k", "keeps one token too many", lambda i: top_k(i.logits, max(i.config.top_k + 1, at_least(i)))
    ),
    Alternative("top_k", "keeps one token too few", lambda i: top_k(i.logits, kept_by_top_k(i) - 1)),
    Alternative(
        "top_k", "keeps one token too few", lambda i: top_k(i.logits, max(i.config.top_k - 1, at_least(i)))
    ),
    Alternative("top_k", "min_tokens_to_keep is ignored", lambda i: top_k(i.logits, i.config.top_k)),
    Alternative(
        "top_k", "min_tokens_to_keep is added", lambda i: top_k(i.logits, i.config.top_k + at_least(i) - 1)
    ),
    Alternative(
        "top_k", "1 filters nothing", lambda i: i.logits if i.config.top_k == 1 else top_k(i.logits, kept_by_top_k(i))
    ),
    Alternative("top_k", "always keeps one token", lambda i: without(i.logits, ranks(i.logits) > 0)),
    Alternative(
        "top_k", "ties with the k-th are removed",
        lambda i: without(i.logits, i.logits <= largest(i.logits, kept_by_top_k(i))),
    ),
    Alternative(
        "top_k", "only scores above the next one are kept, so that ties go altogether",
        lambda i: i.logits if kept_by_top_k(i) >= i.logits.shape[1] else without(
            i.logits, i.logits <= largest(i.logits, kept_by_top_k(i) + 1)
        ),
    ),
    Alternative(
        "top_k", "keeps the least likely tokens",
        lambda i: without(i.logits, i.logits > -largest(-i.logits, i.config.top_k)),
    ),
    Alternative("top_k", "keeps the largest magnitudes, very negative scores too", _of_magnitudes),
    *(_capped(most) for most in (20, 40, 50, 64, 100, 128, 200, 256, 500, 512, 1_000, 1_024)),
    *padded("top_k", lambda i: top_k(i.logits, kept_by_top_k(i))),
    *misplaced("top_k", lambda i: top_k(i.logits, kept_by_top_k(i))),
)  # fmt: skip


def min_p(scores: Array, share: float, *, strict: bool = False) -> Array:
    """Remove tokens whose probability is below a share of the largest."""
    with np.errstate(divide="ignore"):
        threshold = largest(scores, 1) + np.log(share)
    return without(scores, scores <= threshold if strict else scores < threshold)


def _spared(inputs: Batch, kept: Array, further: int = 0) -> Array:
    """The result of a filter plus the most likely tokens, which no filter removes."""
    spared = ranks(inputs.logits) < at_least(inputs) + further
    return without(inputs.logits, (kept == -np.inf) & ~spared)


def _of_probability(inputs: Batch, scale: float) -> Array:
    """Remove tokens where scale times p is less than min_p."""
    return _spared(inputs, without(inputs.logits, softmax(inputs.logits, axis=-1) * scale < inputs.config.min_p))


def _right_min_p(inputs: Batch, further: int = 0) -> Array:
    return _spared(inputs, min_p(inputs.logits, inputs.config.min_p), further)


MIN_P = (
    Alternative("min_p", IGNORED, lambda i: i.logits),
    Alternative(
        "min_p", "compares raw logits: l < min_p x largest l",
        lambda i: _spared(i, without(i.logits, i.logits < i.config.min_p * largest(i.logits, 1))),
    ),
    Alternative(
        "min_p", "compares raw logits: l < min_p x largest l",
        with_knob(lambda s, m: without(s, s < m * largest(s, 1)), "min_p"),
    ),
    Alternative(
        "min_p", "is an absolute threshold: p < min_p, not relative to the largest p", lambda i: _of_probability(i, 1.0)
    ),
    Alternative(
        "min_p", "is relative to the mean probability, not to the largest",
        lambda i: _of_probability(i, i.logits.shape[1]),
    ),
    Alternative(
        "min_p", "is relative to the second largest probability",
        lambda i: _spared(i, without(i.logits, i.logits < largest(i.logits, 2) + np.log(i.config.min_p))),
    ),
    Alternative(
        "min_p", "tokens exactly at the threshold are removed",
        lambda i: _spared(i, min_p(i.logits, i.config.min_p, strict=True)),
    ),
    Alternative("min_p", "min_tokens_to_keep is ignored", with_knob(min_p, "min_p")),
    Alternative("min_p", "keeps one more than min_tokens_to_keep", lambda i: _right_min_p(i, further=1)),
    Alternative("min_p", "the square of the threshold", lambda i: _spared(i, min_p(i.logits, i.config.min_p**2))),
    Alternative(
        "min_p", "the square root of the threshold", lambda i: _spared(i, min_p(i.logits, i.config.min_p**0.5))
    ),
    Alternative(
        "min_p", "its logarithm is taken to base 2",
        lambda i: _spared(i, min_p(i.logits, i.config.min_p ** (1 / np.log(2)))),
    ),
    Alternative("min_p", "one minus the threshold", lambda i: _spared(i, min_p(i.logits, 1 - i.config.min_p))),
    Alternative("min_p", "1 means off", lambda i: _spared(i, min_p(i.logits, i.config.min_p % 1))),
    Alternative(
        "min_p", "is off for vocabularies over 32,768",
        lambda i: i.logits if i.logits.shape[1] > 32_768 else _right_min_p(i),
    ),
    *padded("min_p", _right_min_p),
    *misplaced("min_p", _right_min_p),
)  # fmt: skip


def _cumulative(weights: Array, scores: Array) -> Array:
    """Sum of the weights of a token and of all before it in descending order, by token id."""
    descending = np.argsort(-scores, axis=-1, kind="stable")
    sums = np.cumsum(np.take_along_axis(weights, descending, axis=-1), axis=-1)
    result = np.empty_like(sums)
    np.put_along_axis(result, descending, sums, axis=-1)
    return result


def nucleus(
    scores: Array, top_p: float, *, shift: int = 0, weights: Array | None = None, keep: int = 1, edge: float = 0.0
) -> Array:
    """Keep tokens with less than top_p of the mass before them, `shift` more or less, but at least `keep`."""
    mass = softmax(scores, axis=-1) if weights is None else weights
    before = _cumulative(mass, scores) - mass
    count = ((before < top_p + edge) & (scores > -np.inf)).sum(axis=-1, keepdims=True)
    return without(scores, ranks(scores) >= np.maximum(count + shift, keep))


def _exclusive(inputs: Batch, *, keep: int | None = None) -> Array:
    """Keep tokens while the mass stays within top_p, without the one that crosses."""
    scores = inputs.logits
    within = _cumulative(softmax(scores, axis=-1), scores) <= inputs.config.top_p + 1e-9
    spared = ranks(scores) < (at_least(inputs) if keep is None else keep)
    return without(scores, ~(within | spared))


def _more(inputs: Batch, extra: int) -> Array:
    return nucleus(inputs.logits, inputs.config.top_p, shift=extra, keep=at_least(inputs))


def _ties(inputs: Batch, *, kept: bool) -> Array:
    """The nucleus plus all ties with its last token; or minus those, if the nucleus has only some of them."""
    right = _more(inputs, 0)
    last = np.where(right > -np.inf, right, np.inf).min(axis=-1, keepdims=True)
    if kept:
        return without(inputs.logits, inputs.logits < last)
    torn = ((inputs.logits == last) & (right == -np.inf)).any(axis=-1, keepdims=True)
    return without(right, torn & (right == last))


def _ascending_exp(scores: Array, top_p: float) -> Array:
    """Exp of the given scores, summed in ascending order and compared with 1 - top_p: right for log-probabilities."""
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.exp(scores)
        ascending = np.argsort(scores, axis=-1, kind="stable")
        sums = np.cumsum(np.take_along_axis(weights, ascending, axis=-1), axis=-1)
        cumulative = np.empty_like(sums)
        np.put_along_axis(cumulative, ascending, sums, axis=-1)
        return without(scores, cumulative <= 1 - top_p)


def _coarse(scores: Array, top_p: float) -> Array:
    """Compute the running sum in float16."""
    weights = softmax(scores, axis=-1)
    descending = np.argsort(-scores, axis=-1, kind="stable")
    sums = np.cumsum(np.take_along_axis(weights, descending, axis=-1).astype(np.float16), axis=-1, dtype=np.float16)
    before = np.concatenate([np.zeros((len(scores), 1)), sums[:, :-1].astype(np.float64)], axis=-1)
    removed = np.empty(scores.shape, dtype=np.bool_)
    np.put_along_axis(removed, descending, before >= top_p, axis=-1)
    return without(scores, removed)


def _rounded_sum(inputs: Batch) -> Array:
    """Round the running sum to bfloat16 before the comparison."""
    scores, top_p = inputs.logits, inputs.config.top_p
    mass = softmax(scores, axis=-1)
    before = bfloat16(_cumulative(mass, scores) - mass)
    return without(scores, (before >= top_p) & (ranks(scores) >= at_least(inputs)))


def _unsorted(scores: Array, top_p: float) -> Array:
    weights = softmax(scores, axis=-1)
    return without(scores, np.cumsum(weights, axis=-1) - weights >= top_p)


def _of_log_sums(inputs: Batch) -> Array:
    """Sum log-probabilities in descending order and keep tokens while the sum is over log(top_p)."""
    logs = np.maximum(log_softmax(inputs.logits, axis=-1), -1e30)
    with np.errstate(divide="ignore"):
        kept = _cumulative(logs, inputs.logits) - logs > np.log(inputs.config.top_p)
    return _spared(inputs, without(inputs.logits, ~kept))


def _of_the_first(most: int) -> Alternative:
    explanation = f"looks at the {most:,} most likely tokens alone"
    return Alternative("top_p", explanation, lambda i: without(_more(i, 0), ranks(i.logits) >= most))


TOP_P = (
    Alternative("top_p", IGNORED, lambda i: i.logits),
    Alternative("top_p", "drops the token that crosses the threshold", _exclusive, up_to_ties=True),
    Alternative(
        "top_p", "drops the token that crosses, and may keep none", lambda i: _exclusive(i, keep=0), up_to_ties=True
    ),
    Alternative("top_p", "keeps one token too many", lambda i: _more(i, 1), up_to_ties=True),
    Alternative("top_p", "keeps one token too few", lambda i: _more(i, -1), up_to_ties=True),
    Alternative(
        "top_p", "a mass that equals the threshold does not count as reached: one token too many",
        lambda i: nucleus(i.logits, i.config.top_p, keep=at_least(i), edge=1e-9), up_to_ties=True,
    ),
    Alternative("top_p", "keeps every tie with the last token of the nucleus", lambda i: _ties(i, kept=True)),
    Alternative("top_p", "removes every tie with the last token of the nucleus", lambda i: _ties(i, kept=False)),
    Alternative("top_p", "min_tokens_to_keep is ignored", with_knob(nucleus, "top_p"), up_to_ties=True),
    Alternative("top_p", "min_tokens_to_keep is added", lambda i: _more(i, at_least(i) - 1), up_to_ties=True),
    Alternative("top_p", "one minus the mass", lambda i: nucleus(i.logits, 1 - i.config.top_p, keep=at_least(i))),
    Alternative("top_p", "exp of raw logits stands for probabilities", with_knob(_ascending_exp, "top_p")),
    Alternative(
        "top_p", "exp of raw logits stands for probabilities",
        lambda i: _spared(i, _ascending_exp(i.logits, i.config.top_p)),
    ),
    Alternative(
        "top_p", "removes the head and keeps the tail",
        with_knob(lambda s, p: without(s, nucleus(s, p, keep=0) > -np.inf), "top_p"),
    ),
    Alternative("top_p", "the running sum is not sorted", with_knob(_unsorted, "top_p")),
    Alternative(
        "top_p", "the running sum saturates in half precision", lambda i: _spared(i, _coarse(i.logits, i.config.top_p))
    ),
    Alternative("top_p", "the running sum is rounded to bfloat16", _rounded_sum),
    Alternative("top_p", "0 means off", lambda i: i.logits if i.config.top_p == 0 else _more(i, 0)),
    Alternative(
        "top_p", "0 removes every token",
        lambda i: without(i.logits, np.ones(i.logits.shape, dtype=np.bool_)) if i.config.top_p == 0 else _more(i, 0),
    ),
    Alternative(
        "top_p", "sums log-probabilities",
        with_knob(lambda s, p: nucleus(s, p, weights=np.maximum(log_softmax(s, axis=-1), -1e30)), "top_p"),
    ),
    Alternative("top_p", "sums log-probabilities", _of_log_sums),
    Alternative(
        "top_p", "squared probabilities are summed",
        with_knob(lambda s, p: nucleus(s, p, weights=softmax(s, axis=-1) ** 2), "top_p"),
    ),
    *(_of_the_first(most) for most in (64, 128, 256, 512, 1_000, 1_024, 2_048, 4_096)),
    *padded("top_p", lambda i: _more(i, 0), up_to_ties=True),
    *misplaced("top_p", lambda i: _more(i, 0)),
    *misplaced("top_p", lambda i: nucleus(i.logits, i.config.top_p, keep=0)),
)  # fmt: skip
