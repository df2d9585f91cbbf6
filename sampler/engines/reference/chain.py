"""The chain in NumPy float64, directly from its definitions, with a bound on float32 rounding for each score.

A score that float32 may put on either side of a threshold is in the grey zone: an engine may keep or remove it. So each
threshold can be read in three ways: as defined, generously and strictly. The last two shift it by the float32 error of
the scores on its two sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import EVERYTHING, EngineInfo, Evaluation, Reading
from sampler.engines.reference.optional import OPTIONAL, ROUNDING, check_history, disturbed_after
from sampler.errors import LogitsError
from sampler.requests import Batch, Context, Logits
from sampler.stages import Stage
from sampler.version import __version__

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SIGN = {"defined": 0.0, "generous": 1.0, "strict": -1.0}

SERIAL = 2.0**-28
"""Relative error per term of a float32 sum that is added term by term: four times the largest observed."""

UNDERFLOW = 2.0**-126
"""Smallest normal float32: a smaller weight or product may become 0."""


@dataclass(frozen=True)
class ReferenceEngine:
    """The reference that every other engine is compared with.

    input_rounding: relative error of the other engine's logits and probabilities; 0 for float32. Its sums must be as
    exact as in float32.
    """

    input_rounding: float = 0.0

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(name="reference", version=__version__, dtype="float64", supports=EVERYTHING)

    def process(
        self,
        logits: Logits,
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> Logits:
        batch = Batch(logits, history, (config,) * len(history), uncond_logits, context)
        return self.evaluate(batch)[-1].scores.astype(np.float32)

    def draw(
        self,
        logits: Logits,
        history: Sequence[int],
        config: SamplingConfig,
        n: int,
        seed: int,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> NDArray[np.int64]:
        """Draw n tokens by inverting the distribution function in float64, with NumPy's own generator.

        It shares neither noise nor method with the chain. Source: Devroye 1986, "Non-Uniform Random Variate
        Generation", section III.2.
        """
        uncond = None if uncond_logits is None else np.asarray(uncond_logits)[None]
        batch = Batch(np.asarray(logits)[None], [history], (config,), uncond, context)
        scores = self.evaluate(batch)[-1].scores[0]
        kept = np.flatnonzero(scores > -np.inf)
        cumulative = np.cumsum(np.exp(scores[kept] - scores.max()))
        uniform = np.random.default_rng(seed).random(n)
        places = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        return np.asarray(kept[np.minimum(places, len(kept) - 1)], dtype=np.int64)

    def evaluate(self, batch: Batch, reading: Reading = "defined") -> list[Evaluation]:
        """The state of (B, V) before and after every stage, the last one final."""
        scores = np.asarray(batch.logits, dtype=np.float64)
        states = [
            Evaluation("logits", scores, self.input_rounding * np.where(np.isfinite(scores), np.abs(scores), 0.0))
        ]
        check_history(batch)
        for stage in batch.config.order:
            if stage in OPTIONAL:
                states.append(OPTIONAL[stage](states[-1], batch, _SIGN[reading]))
            else:
                states.append(_apply(stage, states[-1], batch, _SIGN[reading], self.input_rounding))
            states[-1] = _stored(states[-1], self.input_rounding)
        if batch.config.greedy:
            states.append(_without(states[-1], "greedy", ~_spared(states[-1], 1, _SIGN[reading])))
        return states

    def bounds(self, batch: Batch) -> tuple[Mask, Mask, Evaluation]:
        """Which tokens must be kept, which may be kept, and the last state as defined.

        A token must be kept if all readings keep it, and may be kept if any does; between the two is the grey zone. If
        a stage that changes the ranking (cfg, penalty) follows a filter with an open outcome, nothing is required of
        the row.
        """
        readings: list[Reading] = ["defined", "generous", "strict"]
        runs = [self.evaluate(batch, reading) for reading in readings]
        kept = [run[-1].kept for run in runs]
        must, may = np.logical_and.reduce(kept), np.logical_or.reduce(kept)
        stages = [state.stage for state in runs[0]]
        for place, stage in enumerate(stages):
            if disturbed_after(stage) & set(stages[place + 1 :]):
                generous, strict = runs[1][place].kept, runs[2][place].kept
                open_rows = (generous != strict).any(axis=-1)
                must[open_rows] = False
                may[open_rows] |= generous[open_rows]
        return must, may, runs[0][-1]


def _apply(stage: Stage, state: Evaluation, batch: Batch, sign: float, rounding: float) -> Evaluation:
    """Apply a stage of the default order; rounding: relative error of an operation beyond that of float32."""
    config, uncond = batch.config, batch.uncond_logits
    if stage == "cfg" and uncond is not None:
        return _guide(state, np.asarray(uncond, dtype=np.float64), config, rounding)
    if stage == "repetition_penalty" and config.repetition_penalty != 1:
        return _penalize(state, [ids[-config.penalty_window :] for ids in batch.history], config.repetition_penalty)
    if stage == "temperature" and config.temperature not in (0, 1):
        scores = state.scores / config.temperature
        # An engine that works on log-probabilities has rounded them, and small logits have log-probabilities of log V.
        own = 2.0**-23 * np.log(scores.shape[-1])
        return Evaluation("temperature", scores, (state.error + own) / config.temperature + _rounding(scores))
    if stage == "top_k" and config.top_k > 0:
        return _without(state, stage, ~_top_k(state, max(config.top_k, config.min_tokens_to_keep), sign))
    if stage == "min_p" and config.min_p > 0:
        best = state.scores.argmax(axis=-1)[:, None]
        threshold = np.take_along_axis(state.scores, best, axis=-1) + np.log(config.min_p)
        distance = np.abs(_above(state, threshold)) - 2 * np.log(config.min_p)
        reach = state.error + np.take_along_axis(state.error, best, axis=-1) + ROUNDING * distance + rounding
        kept = state.scores >= threshold - sign * reach
        return _without(state, stage, ~(kept | _spared(state, config.min_tokens_to_keep, sign)))
    if stage == "top_p" and config.top_p < 1:
        kept = np.stack(
            [_nucleus(*row, config.top_p, sign, rounding) for row in zip(state.scores, state.error, strict=True)]
        )
        return _without(state, stage, ~(kept | _spared(state, config.min_tokens_to_keep, sign)))
    return Evaluation(stage, state.scores, state.error)


def _guide(state: Evaluation, uncond: Array, config: SamplingConfig, rounding: float) -> Evaluation:
    """Mix c + w (c - u) or u + w (c - u), on logits; removed conditional logits stay removed.

    rounding: relative error of the unconditional logits as read; the errors of both inputs are multiplied too.
    """
    logits = state.scores
    with np.errstate(invalid="ignore"):
        difference = config.cfg_weight * (logits - uncond)
        base = logits if config.cfg_convention == "conditional" else uncond
        mixed = np.where(logits == -np.inf, -np.inf, base + difference)
        size = np.abs(base) + 2 * np.abs(difference)
        error = size * ROUNDING + UNDERFLOW * (1 + np.abs(logits - uncond))
        weight = abs(config.cfg_weight)
        own, other = (1 + weight, weight) if config.cfg_convention == "conditional" else (weight, 1 + weight)
        error += own * state.error + other * rounding * np.abs(uncond)
    return Evaluation("cfg", mixed, np.where(np.isfinite(error), error, 0.0))


def _penalize(state: Evaluation, history: Sequence[Sequence[int]], penalty: float) -> Evaluation:
    """Once per distinct id: multiply negative scores by the penalty, divide others; ignore ids beyond the scores."""
    scores, error = state.scores.copy(), state.error.copy()
    for row, ids in enumerate(history):
        seen = sorted(token for token in set(ids) if token < scores.shape[-1])
        if seen and seen[0] < 0:
            raise LogitsError(f"the history of row {row} contains {seen[0]}", hint="token ids are 0 or more")
        scores[row, seen] *= np.where(scores[row, seen] < 0, penalty, 1 / penalty)
        error[row, seen] *= max(penalty, 1 / penalty)
    return Evaluation("repetition_penalty", scores, error + _rounding(scores))


def _stored(state: Evaluation, rounding: float) -> Evaluation:
    """A state whose scores are kept in a precision of this relative error."""
    if not rounding:
        return state
    least = rounding * np.where(state.kept, np.abs(state.scores), 0.0)
    return Evaluation(state.stage, state.scores, np.maximum(state.error, least))


def _rounding(scores: Array) -> Array:
    return np.where(np.isfinite(scores), np.abs(scores) * ROUNDING + UNDERFLOW, 0.0)


def _without(state: Evaluation, stage: Stage | Literal["greedy"], removed: Mask) -> Evaluation:
    return Evaluation(stage, np.where(removed, -np.inf, state.scores), state.error)


def _spared(state: Evaluation, count: int, sign: float) -> Mask:
    """The `count` most likely tokens, which no threshold removes.

    As defined exactly this many, the lower id first; generously all that may belong to them; strictly those that no
    other one may overtake.
    """
    if count >= state.scores.shape[-1]:
        return np.ones(state.scores.shape, dtype=np.bool_)
    if sign == 0:
        spared = np.zeros(state.scores.shape, dtype=np.bool_)
        first = np.argsort(-state.scores, axis=-1, kind="stable")[:, :count]
        np.put_along_axis(spared, first, values=True, axis=-1)
        return spared
    threshold, error = _ranked(state, count + (sign < 0))
    reach = state.error + error
    return state.scores > threshold + reach if sign < 0 else state.scores >= threshold - reach


def _top_k(state: Evaluation, count: int, sign: float) -> Mask:
    """The `count` largest scores of each row and those that equal the last of them.

    Equal scores stay equal in float32, so ties do not depend on rounding as long as no other score is near.
    """
    if count >= state.scores.shape[-1]:
        return np.ones(state.scores.shape, dtype=np.bool_)
    threshold, error = _ranked(state, count)
    reach = state.error + error
    if sign >= 0:
        return state.scores >= threshold - sign * reach
    near = (state.scores != threshold) & (np.abs(_above(state, threshold)) <= reach) & state.kept
    clear = (state.scores > threshold).sum(axis=-1, keepdims=True) + near.sum(axis=-1, keepdims=True) < count
    tied = (state.scores == threshold) & (clear | ~near.any(axis=-1, keepdims=True))
    return np.asarray(tied | _spared(state, count, sign))


def _above(state: Evaluation, threshold: Array) -> Array:
    """How far each score is above a threshold (B, 1); 0 for removed tokens, even if none is left in the row."""
    return np.subtract(state.scores, threshold, out=np.zeros(state.scores.shape), where=state.kept)


def _ranked(state: Evaluation, rank: int) -> tuple[Array, Array]:
    """The rank-th largest score of each row, from 1, and its error: two (B, 1)."""
    at = np.argpartition(-state.scores, rank - 1, axis=-1)[:, rank - 1 : rank]
    return np.take_along_axis(state.scores, at, axis=-1), np.take_along_axis(state.error, at, axis=-1)


def _nucleus(scores: Array, error: Array, top_p: float, sign: float, rounding: float) -> Mask:
    """Tokens with less than top_p of the mass before them; (V,) -> bool (V,).

    Read strictly, ties count as before each other; read generously, not. So any subset of the right size among equal
    scores lies between the two. As defined, the lower id comes first.
    """
    finite = scores > -np.inf
    if not finite.any():
        return finite
    weights = np.exp(scores - scores.max())
    descending = np.argsort(-scores, kind="stable")
    cumulative = np.concatenate([np.cumsum(weights[descending][::-1])[::-1], [0.0]])
    total = cumulative[0]
    if sign == 0:
        place = np.empty(len(scores), dtype=np.int64)
        place[descending] = np.arange(len(scores))
        return np.asarray(finite & (total - cumulative[place] < top_p * total))
    reach = 2 * error + ROUNDING + rounding
    side: Literal["left", "right"] = "left" if sign > 0 else "right"
    edge = np.searchsorted(-scores[descending], -(scores + sign * reach), side=side)
    before = total - cumulative[edge] - (weights if sign < 0 else 0.0)
    # Each probability may be off by the error of its score, and a float32 sum of V terms by about sqrt(V) roundings if
    # it is added in parts. Added term by term the errors accumulate on one side, since less than half a unit of the sum
    # is lost: MLX's softmax and NumPy's cumsum are 1.3e-4 off at V = 151,936 (normal logits, deviation 2.5), V x 2^-30.
    slack = (
        2 * float(np.sum(weights * error) / total)
        + ROUNDING * (2 + len(scores) ** 0.5 / 4)
        + len(scores) * SERIAL
        + rounding
    )
    return np.asarray(finite & (before / total < top_p + sign * slack))
