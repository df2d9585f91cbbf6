"""The distributions of many other chains on the tokens that matter, at a cost that allows for a few dozen a step.

Bets may be placed on any distribution, so these need not be exact: only the likeliest tokens are looked at, and ties at
a threshold are not told apart. What a right engine draws comes from the reference, which is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Explains
from sampler.requests import Steps
from sampler.stages import OPTIONAL_STAGES

Array = NDArray[np.float64]

TOKENS = 256
"""Tokens of each step that other chains are evaluated on."""

ABOVE = 1e9
"""Puts every score above every logit."""


@dataclass(frozen=True)
class OtherChains:
    """Steps with the ids (T, C) of some of their tokens; `scores` evaluates another config on these."""

    steps: Steps
    ids: NDArray[np.int64]
    reference: Explains
    logits: Array
    uncond: Array | None
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, steps: Steps, scores: Array, reference: Explains) -> "OtherChains":
        """On the tokens with the best scores (T, V), then those with the best logits, and EOS."""
        count, size = steps.logits.shape
        key = np.where(scores > -np.inf, scores + ABOVE, steps.logits)
        key[:, [token for token in (steps.context.eos_ids if steps.context else ()) if token < size]] = np.inf
        ids = np.broadcast_to(np.arange(size), (count, size))
        if size > TOKENS:
            ids = np.sort(np.argpartition(-key, TOKENS - 1, axis=-1)[:, :TOKENS], axis=-1)
        seen = np.zeros((count, size), dtype=np.bool_)
        for row, history in enumerate(steps.history):
            seen[row, [token for token in set(history) if token < size]] = True
        logits, uncond = (
            None if values is None else np.take_along_axis(np.asarray(values, dtype=np.float64), ids, axis=-1)
            for values in (steps.logits, steps.uncond_logits)
        )
        assert logits is not None  # noqa: S101 - for the type
        return cls(steps, ids, reference, logits, uncond, np.take_along_axis(seen, ids, axis=-1))

    def of_network(self, steps: Steps) -> "OtherChains":
        """The same tokens of the same steps with other logits."""
        logits, uncond = (
            None if values is None else np.take_along_axis(np.asarray(values, dtype=np.float64), self.ids, axis=-1)
            for values in (steps.logits, steps.uncond_logits)
        )
        assert logits is not None  # noqa: S101 - for the type
        return replace(self, steps=steps, logits=logits, uncond=uncond)

    def scores(self, config: SamplingConfig) -> Array:
        """(T, C), from the reference itself where an optional stage or a declared rule has a say."""
        if getattr(self.reference, "rules", None) or config.active_stages() & set(OPTIONAL_STAGES):
            exact = self.reference.evaluate(self.steps.with_config(config))[-1].scores
            return np.take_along_axis(exact, self.ids, axis=-1)
        scores, on = self.logits, config.active_stages()
        for stage in (stage for stage in config.order if stage in on):
            if stage == "cfg" and self.uncond is not None:
                scores = _guided(scores, self.uncond, config)
            elif stage == "repetition_penalty":
                factor = np.where(scores < 0, config.repetition_penalty, 1 / config.repetition_penalty)
                scores = np.where(self.seen, scores * factor, scores)
            elif stage == "temperature" and config.temperature:
                scores = scores / config.temperature
            elif stage in ("top_k", "min_p", "top_p"):
                scores = np.where(_kept(stage, scores, config), scores, -np.inf)
        return np.asarray(scores)

    def among(self, row: int, places: NDArray[np.bool_], configs: Sequence[Array], p: Array) -> list[Array]:
        """The probabilities (K,) of other chains' scores at some places of a row; p for one that keeps none of them."""
        found = []
        for scores in configs:
            own = scores[row, places]
            top = own.max()
            weights = np.exp(own - top) if top > -np.inf else p
            found.append(weights / weights.sum())
        return found


def _guided(logits: Array, uncond: Array, config: SamplingConfig) -> Array:
    with np.errstate(invalid="ignore"):
        base = logits if config.cfg_convention == "conditional" else uncond
        return np.where(logits == -np.inf, -np.inf, base + config.cfg_weight * (logits - uncond))


def _kept(stage: str, scores: Array, config: SamplingConfig) -> NDArray[np.bool_]:
    best = scores.max(axis=-1, keepdims=True)
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
