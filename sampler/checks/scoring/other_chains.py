"""The distributions of many other chains on the tokens that matter, at a cost that allows for a few dozen a step.

Bets may be placed on any distribution, so these need not be exact: only the likeliest tokens are looked at, and ties at
a threshold are not told apart. What a right engine draws comes from the reference, which is exact.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps
from sampler.stages import NEUTRAL, OPTIONAL_STAGES, Stage
from sampler.statistics.bets import Shares
from sampler.statistics.largest import largest

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

TOKENS = 256
"""Tokens of each step that other chains are evaluated on."""

EXACT = frozenset(OPTIONAL_STAGES) - {"logit_bias", "min_new_tokens", "suppressed_tokens"}
"""Stages that the reference itself evaluates."""

ABOVE = 1e9
"""Puts every score above every logit."""


class _Act(NamedTuple):
    """A stage that is on, with the values of its parameters."""

    stage: Stage
    values: tuple[Any, ...]


@cache
def _acts(config: SamplingConfig) -> tuple[_Act, ...]:
    """What a config does, in order."""
    on, least = config.active_stages(), config.min_tokens_to_keep
    stages = [stage for stage in config.order if stage in on]
    return tuple(_Act(stage, (least, *(getattr(config, knob) for knob in NEUTRAL[stage]))) for stage in stages)


@dataclass(frozen=True)
class OtherChains:
    """Steps with the ids (T, C) of some of their tokens; `scores` evaluates another config on these."""

    steps: Steps
    ids: NDArray[np.int64]
    reference: Explains
    logits: Array
    uncond: Array | None
    seen: Mask

    @classmethod
    def of(cls, steps: Steps, must: Mask, scores: Array, reference: Explains) -> "OtherChains":
        """On the tokens of `must` with the best scores (T, V), then those with the best logits, and EOS."""
        count, size = steps.logits.shape
        ids = np.broadcast_to(np.arange(size), (count, size))
        if size > TOKENS:
            ends = [token for token in (steps.context.eos_ids if steps.context else ()) if token < size]
            # The order among the tokens of `must` has no say unless there are too many of them.
            crowded = must.sum(axis=-1).max() + len(ends) > TOKENS
            key = np.where(must, scores + ABOVE if crowded else np.float32(ABOVE), steps.logits)
            key[:, ends] = np.inf
            ids = largest(key, TOKENS)
        logits, uncond = _logits_of(steps, ids)
        return cls(steps, ids, reference, logits, uncond, np.take_along_axis(steps.in_history, ids, axis=-1))

    def under(self, steps: Steps) -> "OtherChains":
        """The same tokens of the same steps with other logits."""
        logits, uncond = _logits_of(steps, self.ids)
        return replace(self, steps=steps, logits=logits, uncond=uncond)

    def scores(self, config: SamplingConfig) -> Array:
        """(T, C), from the reference itself where most optional stages or a declared rule have a say."""
        if getattr(self.reference, "rules", None) or config.active_stages() & EXACT:
            exact = self.reference.evaluate(self.steps.with_config(config))[-1].scores
            return np.take_along_axis(exact, self.ids, axis=-1)
        acts, scores = _acts(config), self.logits
        for place, act in enumerate(acts):
            known = self._own.get(acts[: place + 1])
            scores = self._after(act.stage, scores, config) if known is None else known
        return scores

    @cached_property
    def _own(self) -> dict[tuple[_Act, ...], Array]:
        """The scores after each stage of the steps' own config, with which most others begin."""
        config, scores, own = self.steps.config, self.logits, {}
        acts = _acts(config)
        for place, act in enumerate(acts):
            own[acts[: place + 1]] = scores = self._after(act.stage, scores, config)
        return own

    def _after(self, stage: str, scores: Array, config: SamplingConfig) -> Array:
        """The scores (T, C) after a stage that is on."""
        if stage == "cfg" and self.uncond is not None:
            return guided(scores, self.uncond, config)
        if stage == "repetition_penalty":
            return np.where(self.seen, penalised(scores, config.repetition_penalty), scores)
        if stage == "temperature" and config.temperature:
            return scores / config.temperature
        if stage in ("top_k", "min_p", "top_p"):
            return np.where(_kept(stage, scores, config), scores, -np.inf)
        if stage == "logit_bias":
            added = [value * (self.ids == token) for token, value in config.logit_bias.items()]
            return np.asarray(scores + np.sum(added, axis=0))
        if stage == "suppressed_tokens":
            return np.where(np.isin(self.ids, config.suppressed_tokens), -np.inf, scores)
        if stage == "min_new_tokens" and self.steps.context is not None:
            early = self.steps.context.step[:, None] < config.min_new_tokens
            return np.where(early & np.isin(self.ids, self.steps.context.eos_ids), -np.inf, scores)
        return scores


def among(scores: Array, p: Array) -> Array:
    """The probabilities (A, T, K) of other chains' scores at some tokens; where p (T, K) is 0 there is no token.

    p for a chain that keeps none of them.
    """
    own = np.where(p > 0, scores, -np.inf)
    top = own.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.where(top > -np.inf, np.exp(own - top), p)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def shares(scores: Array, must: Mask, may: Mask, alike: int) -> Shares:
    """What other chains draw, from their scores (A, T, C) at the tokens of `ids`, and then of `alike` that keep `must`.

    must, may: the tokens (T, C) that the reference keeps for sure, and that it may keep.
    """
    top = scores.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.where(top > -np.inf, np.exp(scores - top), must)
    total = weights.sum(axis=-1)
    own, unjudged = (np.einsum("atc,tc->at", weights, mask.astype(np.float64)) / total for mask in (must, may & ~must))
    same = np.ones((alike, scores.shape[1]))
    return Shares(np.concatenate([own, same]), np.concatenate([unjudged, 0 * same]))


def _logits_of(steps: Steps, ids: NDArray[np.int64]) -> tuple[Array, Array | None]:
    """The logits of some ids (T, C), and those without the text."""
    logits = np.take_along_axis(steps.logits, ids, axis=-1).astype(np.float64)
    if steps.uncond_logits is None:
        return logits, None
    return logits, np.take_along_axis(steps.uncond_logits, ids, axis=-1).astype(np.float64)


def penalised(scores: Array, penalty: Array | float) -> Array:
    """Scores as if all of their tokens had come before."""
    return np.asarray(scores * np.where(scores < 0, penalty, 1 / penalty))


def guided(logits: Array, uncond: Array, config: SamplingConfig) -> Array:
    """The mixture of conditional and unconditional logits; removed ones stay removed."""
    with np.errstate(invalid="ignore"):
        base = logits if config.cfg_convention == "conditional" else uncond
        return np.where(logits == -np.inf, -np.inf, base + config.cfg_weight * (logits - uncond))


def _kept(stage: str, scores: Array, config: SamplingConfig) -> Mask:
    best = scores.max(axis=-1, keepdims=True)
    if stage == "min_p" and config.min_tokens_to_keep == 1:
        return np.asarray(scores >= best + np.log(config.min_p))
    descending = -np.sort(-scores, axis=-1)
    least = min(config.min_tokens_to_keep, scores.shape[-1]) - 1
    if stage == "top_k":
        place = min(max(config.top_k - 1, least), scores.shape[-1] - 1)
        return np.asarray(scores >= descending[:, place, None])
    if stage == "min_p":
        threshold = best + np.log(config.min_p)
    else:
        weights = np.exp(descending - best)
        before = np.cumsum(weights, axis=-1) - weights
        last = (before < config.top_p * weights.sum(axis=-1, keepdims=True)).sum(axis=-1, keepdims=True) - 1
        threshold = np.take_along_axis(descending, np.maximum(last, 0), axis=-1)
    return np.asarray(scores >= np.minimum(threshold, descending[:, least, None]))
