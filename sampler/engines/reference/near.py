"""The few ids of each row that can come near to being kept: the filters treat these as they do among all ids.

Before the first filter every token is changed by itself, and the order of tokens stays as guidance left it, but for
those of the history, which a penalty of at least 1 lowers. So no token below the likeliest ones rises above a ceiling
that follows from its logits. If the first filter removes a token above that ceiling, it removes all below it too; then
they are -inf for all later stages, whose thresholds and sums do not depend on them.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import Evaluation
from sampler.requests import Batch
from sampler.stages import STAGES, Stage
from sampler.statistics.largest import largest

Array = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

NEAR = 64
"""Ids of each row that are evaluated, if the vocabulary has at least four times as many."""

COARSE = 2.0**-18
"""Relative error of scores, far above that of the stages together: eight times `optional.ROUNDING`."""

REMOVING: tuple[Stage, ...] = ("top_k", "min_p", "top_p")


@dataclass(frozen=True)
class Near:
    """Rows of `NEAR` ids each. ids: int64 (B, C), ascending. batch: with these ids alone.

    size: of the vocabulary. first: the first filter. ceiling: no other token of a row has a score plus its error above
    it when that filter acts, (B,); inf or NaN where nothing is known.
    """

    ids: NDArray[np.int64]
    batch: Batch
    size: int
    first: Stage
    ceiling: Array

    @classmethod
    def of(cls, batch: Batch, input_rounding: float, input_error: float) -> "Near | None":
        """None where the vocabulary is small, or the first filter may depend on every token."""
        size, config, first = batch.logits.shape[-1], batch.config, first_filter(batch.config)
        if size < 4 * NEAR or first is None:
            return None
        before = config.order[: config.order.index(first)]
        penalty = config.repetition_penalty if "repetition_penalty" in before else 1.0
        few = _few(batch, guided="cfg" in before and batch.uncond_logits is not None)
        reach = few.grown * penalty * (input_error + (input_rounding + COARSE) * few.sizes + COARSE)
        ceiling = (few.highest + reach) / (config.temperature if "temperature" in before else 1.0)
        return cls(few.ids, few.batch, size, first, ceiling)

    def unproven(self, states: list[Evaluation]) -> NDArray[np.int64]:
        """The rows for which these ids may not be enough; states: of a reading that keeps at least as defined."""
        place = next(place for place, state in enumerate(states) if state.stage == self.first)
        removed = states[place - 1].kept & ~states[place].kept
        highest = np.where(removed, states[place - 1].scores, -np.inf).max(axis=-1)
        return np.flatnonzero(~((highest >= self.ceiling) & (self.ceiling < np.inf)))

    def spread(self, values: NDArray[Scalar], fill: float) -> NDArray[Scalar]:
        """Values (B, C) in the places of their ids, (B, V)."""
        result = np.full((len(values), self.size), fill, dtype=values.dtype)
        np.put_along_axis(result, self.ids, values, axis=-1)
        return result

    def spread_state(self, state: Evaluation) -> Evaluation:
        """A state of these ids as one of all; others are removed, their errors are told as 0."""
        return Evaluation(state.stage, self.spread(state.scores, -np.inf), self.spread(state.error, 0.0))


def first_filter(config: SamplingConfig) -> Stage | None:
    """The first stage that removes tokens, if it goes by their order; None if the stages before it may change that."""
    on = config.active_stages()
    acting = [stage for stage in config.order if stage in on]
    first = next((stage for stage in acting if stage in REMOVING), None)
    if first in (None, "top_p") or not set(config.order) <= set(STAGES):
        return None
    late_guidance = "cfg" in acting[1 : acting.index(first)]
    if late_guidance or config.greedy or config.penalty_window or config.repetition_penalty < 1:
        return None
    return first


class _Few(NamedTuple):
    """The ids of each row with the largest scores after guidance, and a batch with these alone.

    highest: the largest score of all others, (B,). sizes, grown: see `_guided`.
    """

    ids: NDArray[np.int64]
    batch: Batch
    highest: Array
    sizes: Array
    grown: float


@lru_cache(maxsize=1)
def _few(batch: Batch, *, guided: bool) -> _Few:
    """Kept for the next question about the same batch, which may allow for other errors."""
    key, sizes, grown = _guided(batch) if guided else _alone(batch)
    ids = largest(key, NEAR)
    np.put_along_axis(key, ids, -np.inf, axis=-1)
    return _Few(ids, _only(batch, ids), key.max(axis=-1).astype(np.float64), sizes, grown)


def _alone(batch: Batch) -> tuple[NDArray[np.float32], Array, float]:
    """See `_guided`."""
    key = np.array(batch.logits, dtype=np.float32)
    return key, _largest(key, key != -np.inf), 1.0


def _guided(batch: Batch) -> tuple[NDArray[np.float32], Array, float]:
    """Scores after guidance (B, V) in float32, what no term of them exceeds (B,), by how much errors of logits grow."""
    logits, uncond = (np.asarray(values, dtype=np.float32) for values in (batch.logits, batch.uncond_logits))
    weight, left = batch.config.cfg_weight, logits != -np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        key = logits - uncond
        key *= np.float32(weight)
        key += logits if batch.config.cfg_convention == "conditional" else uncond
    np.copyto(key, -np.inf, where=~left)
    grown = 1 + 2 * abs(weight)
    return key, grown * (_largest(logits, left) + _largest(uncond, left)), grown


def _largest(logits: NDArray[np.float32], left: NDArray[np.bool_]) -> Array:
    """The largest size among the tokens that are left, (B,)."""
    highest, lowest = (of(logits, axis=-1, where=left, initial=0) for of in (np.max, np.min))
    return np.asarray(np.maximum(highest, -lowest), dtype=np.float64)


def _only(batch: Batch, ids: NDArray[np.int64]) -> Batch:
    """The rows with these ids (B, C) alone."""
    logits, uncond = (
        None if values is None else np.take_along_axis(np.asarray(values), ids, axis=-1)
        for values in (batch.logits, batch.uncond_logits)
    )
    penalized = batch.config.repetition_penalty != 1
    seen = np.take_along_axis(batch.in_history, ids, axis=-1) if penalized else None
    return Batch(np.asarray(logits), (), batch.configs, uncond, seen=seen)
