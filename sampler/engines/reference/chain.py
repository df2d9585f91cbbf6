"""The chain in NumPy float64, directly from its definitions, with a bound on float32 rounding for each score.

A score that float32 may put on either side of a threshold is in the grey zone: an engine may keep or remove it. So each
threshold can be read in three ways: as defined, generously and strictly. The last two shift it by the float32 error of
the scores on its two sides.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import EVERYTHING, EngineInfo, Evaluation, Reading
from sampler.engines.reference.filters import FILTERS, without
from sampler.engines.reference.near import Near
from sampler.engines.reference.optional import OPTIONAL, ROUNDING, check_history, disturbed_after
from sampler.engines.reference.rules import greedy_choice, penalized_ids, rewritten, with_eos_spared
from sampler.engines.rules import Rules
from sampler.errors import LogitsError
from sampler.requests import Batch, Context, Logits
from sampler.stages import Stage
from sampler.version import __version__

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
READINGS: tuple[Reading, ...] = ("defined", "generous", "strict")
_SIGN = {"defined": 0.0, "generous": 1.0, "strict": -1.0}
SHARED = ("cfg", "alignment", "repetition_penalty", "temperature")
"""Stages without a threshold, which are the same in all readings."""

UNDERFLOW = 2.0**-126
"""Smallest normal float32: a smaller weight or product may become 0."""


@dataclass(frozen=True)
class ReferenceEngine:
    """The reference that every other engine is compared with.

    input_rounding: relative error of the other engine's logits and probabilities; 0 for float32. Its sums must be as
    exact as in float32. rules: those by which the other engine differs from HuggingFace (engines/rules.py).
    input_error: by how much, in nats, each of the other engine's logits may be off beside that. vocabulary: the number
    of ids where rows have only some of them (near.py); 0 if they have all.
    """

    input_rounding: float = 0.0
    rules: Rules = field(default_factory=dict, hash=False)
    input_error: float = 0.0
    vocabulary: int = 0

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(name="reference", version=__version__, dtype="float64", supports=EVERYTHING)

    def with_rules(self, rules: Rules) -> "ReferenceEngine":
        """The reference for an engine of other rules."""
        return replace(self, rules=rules)

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
        return self.read(batch, [reading])[0]

    def read(self, batch: Batch, readings: Sequence[Reading] = READINGS) -> list[list[Evaluation]]:
        """The states of several readings, which are the same before the first threshold."""
        batch = rewritten(batch, self.rules)
        check_history(batch)
        scores, order = np.asarray(batch.logits, dtype=np.float64), batch.config.order
        first = next((place for place, stage in enumerate(order) if stage not in SHARED), len(order))
        begun = self._after(order[:first], [Evaluation("logits", scores, self._error(scores))], batch, 0.0)
        runs = []
        for reading in readings:
            states = self._after(order[first:], begun, batch, _SIGN[reading])
            if batch.config.greedy:
                kept = greedy_choice(states[-1], _SIGN[reading], self.rules)
                states.append(without(states[-1], "greedy", ~kept))
            runs.append(states)
        return runs

    def _after(
        self, stages: Sequence[Stage], states: Sequence[Evaluation], batch: Batch, sign: float
    ) -> list[Evaluation]:
        """The states so far, and those after further stages."""
        states = list(states)
        for stage in stages:
            if stage in OPTIONAL:
                state = OPTIONAL[stage](states[-1], batch, sign)
            else:
                state = self._apply(stage, states[-1], batch, sign)
            spared = with_eos_spared(states[-1], state, batch, self.rules)
            states.append(_stored(spared, self.input_rounding))
        return states

    def _error(self, logits: Array) -> Array:
        finite = np.isfinite(logits)
        return self.input_rounding * np.where(finite, np.abs(logits), 0.0) + self.input_error * finite

    def _apply(self, stage: Stage, state: Evaluation, batch: Batch, sign: float) -> Evaluation:
        """Apply a stage of the default order."""
        config, uncond = batch.config, batch.uncond_logits
        if stage == "cfg" and uncond is not None:
            other = np.asarray(uncond, dtype=np.float64)
            return _guide(state, other, config, self._error(other))
        if stage == "repetition_penalty" and config.repetition_penalty != 1:
            return _penalize(state, _penalized(batch, self.rules), config.repetition_penalty)
        if stage == "temperature" and config.temperature not in (0, 1):
            scores = state.scores / config.temperature
            # An engine that works on log-probabilities has rounded them; those of small logits are about log V.
            own = 2.0**-23 * np.log(self.vocabulary or scores.shape[-1])
            return Evaluation("temperature", scores, (state.error + own) / config.temperature + _rounding(scores))
        if stage in FILTERS and stage in config.active_stages():
            size = self.vocabulary or state.scores.shape[-1]
            return without(state, stage, ~FILTERS[stage](state, config, sign, self.input_rounding, self.rules, size))
        return Evaluation(stage, state.scores, state.error)

    def last(self, batch: Batch, reading: Reading = "defined") -> Evaluation:
        """The last state of `evaluate`; the error of a removed token may be told as 0."""
        near = None if reading == "strict" else self._near(batch)
        if near is None:
            return self.evaluate(batch, reading)[-1]
        states = self._few(near, [reading])[0]
        final, rows = near.spread_state(states[-1]), near.unproven(states)
        if len(rows):
            _write(final, rows, self.evaluate(batch.only(rows.tolist()), reading)[-1])
        return final

    def bounds(self, batch: Batch) -> tuple[Mask, Mask, Evaluation]:
        """Which tokens must be kept, which may be kept, and the last state as defined.

        A token must be kept if all readings keep it, and may be kept if any does; between the two is the grey zone. If
        a stage that changes the ranking (cfg, penalty) follows a filter with an open outcome, nothing is required of
        the row. The error of a token that no reading keeps may be told as 0.
        """
        near = self._near(batch)
        if near is None:
            return _bounds(self.read(batch))
        runs = self._few(near, READINGS)
        few_must, few_may, few = _bounds(runs)
        final, rows = near.spread_state(few), near.unproven(runs[1])
        must, may = (near.spread(mask, fill=False) for mask in (few_must, few_may))
        if len(rows):
            must[rows], may[rows], full = _bounds(self.read(batch.only(rows.tolist())))
            _write(final, rows, full)
        return must, may, final

    def _near(self, batch: Batch) -> Near | None:
        return None if self.rules else Near.of(batch, self.input_rounding, self.input_error)

    def _few(self, near: Near, readings: Sequence[Reading]) -> list[list[Evaluation]]:
        """The states of a few ids of each row."""
        few = ReferenceEngine(self.input_rounding, self.rules, self.input_error, near.size)
        return few.read(near.batch, readings)


def _write(state: Evaluation, rows: NDArray[np.int64], other: Evaluation) -> None:
    """Put the rows of another state in place of some."""
    state.scores[rows], state.error[rows] = other.scores, other.error


def _bounds(runs: list[list[Evaluation]]) -> tuple[Mask, Mask, Evaluation]:
    """See `ReferenceEngine.bounds`; runs: as defined, generously, strictly."""
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


def _guide(state: Evaluation, uncond: Array, config: SamplingConfig, uncertain: Array) -> Evaluation:
    """Mix c + w (c - u) or u + w (c - u), on logits; removed conditional logits stay removed.

    uncertain: errors of the unconditional logits as read, (B, V); the errors of both inputs are multiplied too.
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
        error += own * state.error + other * uncertain
    return Evaluation("cfg", mixed, np.where(np.isfinite(error), error, 0.0))


class _Penalized(NamedTuple):
    """The tokens that the repetition penalty changes: their rows, their ids, and how many times; (N,) each."""

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    times: Array


def _penalized(batch: Batch, rules: Rules) -> _Penalized:
    """Those of `seen`, or of the history without ids beyond the scores: each once, or as often as it came by a rule."""
    if batch.seen is not None:
        rows, ids = np.nonzero(batch.seen)
        return _Penalized(rows, ids, np.ones(len(rows)))
    found: list[tuple[int, int, int]] = []
    for row, history in enumerate(penalized_ids(batch, rules)):
        counts = Counter(history)
        if counts and min(counts) < 0:
            raise LogitsError(f"the history of row {row} contains {min(counts)}", hint="token ids are 0 or more")
        found += [(row, token, count) for token, count in counts.items() if token < batch.logits.shape[-1]]
    rows, ids, times = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return _Penalized(rows, ids, times.astype(np.float64) if "penalty_counts" in rules else np.ones(len(times)))


def _penalize(state: Evaluation, penalized: _Penalized, penalty: float) -> Evaluation:
    """Multiply negative scores by the penalty and divide others, as many times as is told."""
    scores, error, places = state.scores.copy(), state.error.copy(), (penalized.rows, penalized.ids)
    with np.errstate(over="ignore", under="ignore"):
        factor = penalty**penalized.times
        scores[places] *= np.where(scores[places] < 0, factor, 1 / factor)
        error[places] *= np.maximum(factor, 1 / factor)
    error[places] += (penalized.times - 1) * _rounding(scores[places])
    return Evaluation("repetition_penalty", scores, error + _rounding(scores))


def _stored(state: Evaluation, rounding: float) -> Evaluation:
    """A state whose scores are kept in a precision of this relative error."""
    if not rounding:
        return state
    least = rounding * np.where(state.kept, np.abs(state.scores), 0.0)
    return Evaluation(state.stage, state.scores, np.maximum(state.error, least))


def _rounding(scores: Array) -> Array:
    return np.where(np.isfinite(scores), np.abs(scores) * ROUNDING + UNDERFLOW, 0.0)
