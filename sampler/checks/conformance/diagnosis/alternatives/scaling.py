"""Known mistakes in guidance, the repetition penalty and temperature."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy.special import log_softmax, softmax

from sampler.checks.conformance.diagnosis.alternatives.base import (
    IGNORED,
    Alternative,
    Array,
    Change,
    Mask,
    counted,
    counts,
    ranks,
    seen,
    with_knob,
    without,
)
from sampler.checks.conformance.diagnosis.alternatives.padding import padded
from sampler.requests import Batch


def _uncond(inputs: Batch) -> Array:
    return inputs.logits if inputs.uncond_logits is None else inputs.uncond_logits


def guided(base: str, weight: Callable[[float], float], sign: int = 1) -> Change:
    """Base + weight (c - u), or (u - c) for sign -1. base: "c", "u", or "asked" for that of the config."""

    def scores(inputs: Batch) -> Array:
        cond, uncond = inputs.logits, _uncond(inputs)
        from_cond = base == "c" or (base == "asked" and inputs.config.cfg_convention == "conditional")
        with np.errstate(invalid="ignore"):
            start = cond if from_cond else uncond
            mixed = start + sign * weight(inputs.config.cfg_weight) * (cond - uncond)
        return np.where(cond == -np.inf, -np.inf, mixed)

    return scores


RIGHT_GUIDANCE = guided("asked", lambda weight: weight)


def _mixed_probabilities(inputs: Batch, floor: float) -> Array:
    cond, uncond = softmax(inputs.logits, axis=-1), softmax(_uncond(inputs), axis=-1)
    with np.errstate(divide="ignore"):
        mixed = np.log(np.maximum(cond + inputs.config.cfg_weight * (cond - uncond), floor))
    return np.where(inputs.logits == -np.inf, -np.inf, mixed)


def _from_zeros(inputs: Batch) -> Array:
    zeros = np.zeros(inputs.logits.shape)
    return RIGHT_GUIDANCE(inputs if inputs.uncond_logits is not None else replace(inputs, uncond_logits=zeros))


def _rescaled(inputs: Batch) -> Array:
    """Scale the mixed scores to the standard deviation of the conditional logits."""
    mixed = RIGHT_GUIDANCE(inputs)
    if inputs.uncond_logits is None:
        return mixed
    before, after = (
        np.where(np.isfinite(rows), rows, 0.0).std(axis=-1, keepdims=True) for rows in (inputs.logits, mixed)
    )
    return np.asarray(mixed * before / np.maximum(after, 1e-6))


def _weight_at_most(most: float) -> Alternative:
    explanation = f"weights over {most:g} are taken as {most:g}"
    return Alternative("cfg", explanation, guided("asked", lambda w: min(w, most)))


def _or_for_one_convention(*formulas: Alternative) -> Iterator[Alternative]:
    """Each formula as it is, and with a right answer for configs of the unconditional convention."""
    for formula in formulas:
        yield formula
        yield replace(formula, scores=_if_conditional(formula.scores))


def _if_conditional(change: Change) -> Change:
    return lambda inputs: (change if inputs.config.cfg_convention == "conditional" else RIGHT_GUIDANCE)(inputs)


_FORMULAS = (
    Alternative("cfg", IGNORED, lambda i: i.logits),
    Alternative("cfg", "u + w (c - u) in place of c + w (c - u)", guided("u", lambda w: w)),
    Alternative("cfg", "c + w (c - u) in place of u + w (c - u)", guided("c", lambda w: w)),
    Alternative("cfg", "conditional and unconditional rows are exchanged", guided("u", lambda w: w, -1)),
    Alternative("cfg", "the sign of the difference: c + w (u - c)", guided("c", lambda w: w, -1)),
    Alternative("cfg", "the weight plus one", guided("c", lambda w: w + 1)),
    Alternative("cfg", "the weight minus one", guided("c", lambda w: w - 1)),
    Alternative("cfg", "only the unconditional logits", lambda i: np.where(i.logits == -np.inf, -np.inf, _uncond(i))),
    Alternative("cfg", "half the weight", guided("c", lambda w: w / 2)),
    Alternative("cfg", "twice the weight", guided("c", lambda w: w * 2)),
    Alternative("cfg", "weights under 0 are taken as 0", guided("asked", lambda w: max(w, 0.0))),
    *(_weight_at_most(most) for most in (1.0, 2.0)),
    Alternative("cfg", "without unconditional logits zeros stand for them: the weight acts all the same", _from_zeros),
    Alternative("cfg", "the mixed scores are brought back to the spread of the conditional ones", _rescaled),
    Alternative("cfg", "mixes probabilities, not logits", lambda i: _mixed_probabilities(i, 0.0)),
    Alternative("cfg", "mixes probabilities, not logits", lambda i: _mixed_probabilities(i, 1e-9)),
)  # fmt: skip

CFG = tuple(_or_for_one_convention(*_FORMULAS))


def penalized(inputs: Batch, ids: Mask, factor: float | Array | None = None) -> Array:
    """Multiply negative scores of some ids by a factor and divide the others by it; None: the config's penalty."""
    penalty = inputs.config.repetition_penalty if factor is None else factor
    scores = inputs.logits
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(ids, np.where(scores < 0, scores * penalty, scores / penalty), scores)


def _stray(inputs: Batch, token: int) -> Array:
    """Ids beyond the vocabulary are treated as the id `token`."""
    taken = seen(inputs)
    outside = [any(index >= taken.shape[1] for index in ids) for ids in inputs.history]
    taken[np.array(outside, dtype=np.bool_), token] = True
    return penalized(inputs, taken)


def _of(text: str, factor: Callable[[float, Array], float | Array]) -> Alternative:
    """A mistake in the factor, a function of the penalty and of how often each id occurs."""
    return Alternative(
        "repetition_penalty", text, lambda i: penalized(i, seen(i), factor(i.config.repetition_penalty, counts(i)))
    )


def _whom(text: str, seen: Callable[[Batch], Mask]) -> Alternative:
    """A mistake in which ids are penalised."""
    return Alternative("repetition_penalty", text, lambda i: penalized(i, seen(i)))


def _last_ids(size: int) -> Alternative:
    return _whom(f"a window of {size}: sees only the last {size} ids", lambda i: counts(i, -size) > 0)


def _first_ids(size: int) -> Alternative:
    return _whom(f"sees only the first {size} ids of the history", lambda i: counts(i, 0, size) > 0)


def _how(
    text: str, change: Callable[[Array, float], Array], where: Callable[[Array], Mask] | None = None
) -> Alternative:
    """A wrong formula; where: the scores it applies to, the others get the right one."""

    def scores(inputs: Batch) -> Array:
        changed = change(inputs.logits, inputs.config.repetition_penalty)
        right = penalized(inputs, seen(inputs))
        return np.where(seen(inputs) & (True if where is None else where(inputs.logits)), changed, right)

    return Alternative("repetition_penalty", text, scores)


def _among_log_probabilities(inputs: Batch) -> Array:
    scores = log_softmax(inputs.logits, axis=-1)
    return np.asarray(np.where(seen(inputs), scores * inputs.config.repetition_penalty, scores))


def _twice_for_the_latest(inputs: Batch) -> Array:
    latest = counts(inputs, -1)
    return penalized(inputs, seen(inputs), inputs.config.repetition_penalty ** (1 + latest))


PENALTY = (
    Alternative("repetition_penalty", IGNORED, lambda i: i.logits),
    _how("divides negative scores too, so that they become more likely", lambda s, r: s / r),
    _how("multiplies positive scores too", lambda s, r: s * r),
    _of("the reciprocal: rewards what it should penalise", lambda r, counts: 1 / r),
    _of("once for each occurrence, not once for each id", lambda r, counts: r**counts),
    _of("grows with the number of occurrences: 1 + (r - 1) x count", lambda r, counts: 1 + (r - 1) * counts),
    _of("is applied twice", lambda r, counts: r**2),
    _of("its square root", lambda r, counts: r**0.5),
    _of("values under 1 are taken as 1", lambda r, counts: max(r, 1.0)),
    _of("values over 2 are taken as 2", lambda r, counts: min(r, 2.0)),
    _whom("sees only the last id of the history", lambda i: counts(i, -1) > 0),
    *(_last_ids(size) for size in (8, 16, 20, 32, 50, 64)),
    *(_first_ids(size) for size in (20, 32, 64)),
    _whom("the first id (the prompt) is missing from the history", lambda i: counts(i, 1) > 0),
    _whom("the last id is missing from the history", lambda i: counts(i, 0, -1) > 0),
    _whom(
        "the prompt is not penalised, only what was drawn",
        lambda i: counted(i, [list(ids)[len(ids) // 2 :] for ids in i.history]) > 0,
    ),
    _whom("penalises what is not in the history", lambda i: ~seen(i)),
    _whom("hits the token below each id", lambda i: counted(i, [[t - 1 for t in ids] for ids in i.history]) > 0),
    _whom("hits the token above each id", lambda i: counted(i, [[t + 1 for t in ids] for ids in i.history]) > 0),
    Alternative("repetition_penalty", "the latest id is penalised twice", _twice_for_the_latest),
    _how("is subtracted", lambda s, r: s - r),
    _how("its logarithm is subtracted", lambda s, r: s - np.log(r)),
    Alternative("repetition_penalty", "is applied to log-probabilities, not to logits", _among_log_probabilities),
    _how("only positive scores are changed", lambda s, r: s, lambda s: s < 0),
    _how("only negative scores are changed", lambda s, r: s, lambda s: s > 0),
    _how("scores of exactly 0 are changed", lambda s, r: np.full(s.shape, -r), lambda s: s == 0),
    _how("seen tokens are removed", lambda s, r: np.full(s.shape, -np.inf)),
    _how("removed tokens of the history come back", lambda s, r: np.zeros(s.shape), lambda s: s == -np.inf),
)  # fmt: skip


STRAY_IDS = (
    Alternative("repetition_penalty", "ids outside the vocabulary hit token 0", lambda i: _stray(i, 0)),
    Alternative("repetition_penalty", "ids outside the vocabulary hit the last token", lambda i: _stray(i, -1)),
    _whom(
        "ids outside the vocabulary are taken modulo its size",
        lambda i: counted(i, [[token % i.logits.shape[1] for token in ids] for ids in i.history]) > 0,
    ),
)
"""Alternatives for histories with ids outside the vocabulary."""


def _greedy(inputs: Batch, pick: Callable[[Array], Array]) -> Array:
    return pick(inputs.logits) if inputs.config.temperature == 0 else inputs.logits / inputs.config.temperature


def _last_maximum(scores: Array) -> Array:
    best = scores.shape[1] - 1 - np.argmax(scores[:, ::-1], axis=-1)
    return without(scores, np.arange(scores.shape[1])[None] != best[:, None])


def _tempered(scores: Array, temperature: float, power: float = 1.0) -> Array:
    if temperature == 0:
        return without(scores, ranks(scores) > 0)
    return np.asarray(scores / temperature**power)


def _formula(text: str, change: Callable[[Array, float], Array]) -> Alternative:
    return Alternative("temperature", text, with_knob(change, "temperature"))


def _read(text: str, change: Callable[[float], float]) -> Alternative:
    """A mistake in the temperature that is used; 0 stays 0."""
    return _formula(text, lambda s, t: _tempered(s, change(t) if t else 0.0))


def _zero_as(value: float, what: str) -> Alternative:
    return Alternative(
        "temperature", f"0 is taken as {value:g}, {what}", lambda i: _greedy(i, lambda s: np.asarray(s / value))
    )


def _no_lower(least: float) -> Alternative:
    return _read(f"values under {least:g} are taken as {least:g}", lambda t: max(t, least))


def _no_higher(most: float) -> Alternative:
    return _read(f"values over {most:g} are taken as {most:g}", lambda t: min(t, most))


def _in_steps(step: float, *, up: bool) -> Alternative:
    to = math.ceil if up else round
    return _read(f"is rounded {'up' if up else 'off'} to steps of {step:g}", lambda t: max(1, to(t / step)) * step)


TEMPERATURE = (
    Alternative("temperature", IGNORED, lambda i: i.logits),
    _read("is ignored, except 0", lambda t: 1.0),
    _formula("is applied twice", lambda s, t: _tempered(s, t, 2)),
    _formula("multiplies in place of dividing", lambda s, t: _tempered(s, t, -1)),
    _formula("its square root", lambda s, t: _tempered(s, t, 0.5)),
    Alternative("temperature", "0 still samples", lambda i: _greedy(i, lambda s: s)),
    *(_zero_as(value, "a default") for value in (0.5, 0.6, 0.7, 0.8, 0.9)),
    Alternative(
        "temperature", "0 keeps every maximum, not the lowest id",
        lambda i: _greedy(i, lambda s: without(s, s < s.max(axis=-1, keepdims=True))),
    ),
    *(_zero_as(value, "and equal maxima stay equally likely") for value in (0.01, 1e-3, 1e-4, 1e-5)),
    Alternative("temperature", "0 keeps the highest id among the maxima", lambda i: _greedy(i, _last_maximum)),
    *(_no_lower(least) for least in (0.1, 0.2, 0.3, 0.5, 1.0)),
    *(_no_higher(most) for most in (1.0, 1.5, 2.0)),
    *(_in_steps(step, up=up) for step in (0.1, 0.2, 0.25, 0.5) for up in (True, False)),
    *padded("temperature", with_knob(_tempered, "temperature")),
    _formula("is applied to probabilities", lambda s, t: softmax(s, axis=-1) / t if t else _tempered(s, 0)),
)  # fmt: skip
