"""Whether a chain computes what the reference computes: each stage alone, then together, on rows made to tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.base import Finding
from sampler.checks.dialects import DIALECTS, STRICT
from sampler.checks.inputs import Logits
from sampler.checks.probes import NEUTRAL, Cell, Mask, Probe
from sampler.checks.steps import some_ids
from sampler.config import SamplingConfig
from sampler.engines.base import Bounds, Context, EngineInfo, Evaluation
from sampler.engines.calls import Answer, Asks, Call
from sampler.engines.offer import offered
from sampler.errors import Unsupported
from sampler.statistics.distance import total_variation

Array = NDArray[np.float64]

VARIATION = 1e-5
"""Total variation that float32 rounding may cause between two right chains, beside what it does to the scores."""

NEGLIGIBLE = 5_000.0
"""A score so far under the best is removed: its probability is 0 in every floating-point format."""

UNSEEN = 80.0
"""A token so far under the best may be removed: its probability is less than the smallest normal float32, and an engine
that works on probabilities rounds it to 0. No draw can tell."""

Blame = Literal["purity", "batch"] | None


@dataclass(frozen=True, eq=False)
class Expected:
    """What the reference says of a probe. must, may: bool (B, V); scores: float64; tolerance: total variation (B,)."""

    must: Mask
    may: Mask
    scores: Array
    tolerance: Array
    counts: NDArray[np.int64] | None
    unfiltered: Array | None = None
    """Scores (B, V) without any filter, where which of equal ones a filter keeps is left to a dialect."""

    rounding: float = 0.0
    """Part of `counts` that may be off: lower precision does not add equal probabilities exactly."""

    def other_count(self, kept: Mask) -> Mask:
        """Rows that keep another number of equal tokens, (B,)."""
        if self.counts is None:
            return np.zeros(len(kept), dtype=np.bool_)
        return np.asarray(np.abs(kept.sum(axis=-1) - self.counts) > np.ceil(self.counts * self.rounding))


@dataclass(frozen=True, eq=False)
class Comparison:
    """One answer beside what was expected. failure: why there are no scores to compare."""

    probe: Probe
    expected: Expected
    answer: Answer
    failure: str = ""

    @cached_property
    def scores(self) -> Array:
        """The engine's scores, float64 (B, V), what cannot be drawn as -inf."""
        assert self.answer.value is not None  # noqa: S101 - only asked for without a failure
        scores = self.answer.value.astype(np.float64)
        best = np.max(np.where(np.isfinite(scores), scores, -np.inf), axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return np.where(scores < best - NEGLIGIBLE, -np.inf, scores)

    @cached_property
    def broken(self) -> Mask:
        """Rows with NaN or +inf."""
        return np.asarray((np.isnan(self.scores) | (self.scores == np.inf)).any(axis=-1))

    @cached_property
    def variation(self) -> Array:
        """Total variation on the tokens that must be kept and are, (B,)."""
        both = self.expected.must & (self.scores > -np.inf) & ~self.broken[:, None]
        result = np.zeros(len(both))
        rows = both.any(axis=-1)
        if rows.any():
            mine, other = (np.where(both, scores, -np.inf)[rows] for scores in (self.scores, self.expected.scores))
            result[rows] = total_variation(mine, other)
        return result

    @cached_property
    def wrong(self) -> Mask:
        """Rows that the reference cannot be reconciled with, (B,)."""
        if self.failure:
            return np.ones(len(self.probe.logits), dtype=np.bool_)
        kept = self.scores > -np.inf
        outside = (self.expected.must & ~kept) | (kept & ~self.expected.may)
        others = outside.any(axis=-1)
        others |= self.expected.other_count(kept)
        if self.expected.unfiltered is not None:
            others &= ~_among_equals(outside, kept, self.expected.unfiltered)
        return np.asarray(self.broken | others | (self.variation > self.expected.tolerance))

    @property
    def distance(self) -> float:
        """The largest total variation of a row, whole rows included; 1 without scores."""
        return 1.0 if self.failure else float(self.total.max())

    @cached_property
    def total(self) -> Array:
        """Total variation between what the engine answers and what is defined, (B,); 1 where a row is no answer."""
        mine = np.where(self.broken[:, None], 0.0, self.scores)
        result = np.ones(len(mine))
        rows = ~self.broken & (mine > -np.inf).any(axis=-1) & (self.expected.scores > -np.inf).any(axis=-1)
        if rows.any():
            result[rows] = total_variation(mine[rows], self.expected.scores[rows])
        return result

    def describe(self, row: int) -> str:
        """Kept tokens as sets first, then the worst token and what is allowed."""
        name = f"{self.probe.name}, row {row} ({self.probe.kinds[row]})"
        if self.failure:
            return f"{self.probe.name}: {self.failure}"
        ours, theirs = self.scores[row], self.expected.scores[row]
        if self.broken[row]:
            bad = np.flatnonzero(np.isnan(ours) | (ours == np.inf))
            return f"{name}: {len(bad)} scores are NaN or +inf, {some_ids(bad)}"
        kept = ours > -np.inf
        more = np.flatnonzero(kept & ~self.expected.may[row])
        less = np.flatnonzero(self.expected.must[row] & ~kept)
        sets = [f"it {verb} {some_ids(ids)}" for verb, ids in (("keeps also", more), ("removes", less)) if len(ids)]
        if not sets and self.expected.counts is not None and kept.sum() != self.expected.counts[row]:
            sets = [f"it keeps {kept.sum()} of equal tokens, {self.expected.counts[row]} are expected"]
        if sets:
            return (
                f"{name}: {' and '.join(sets)}; it keeps {kept.sum()} tokens, the reference {(theirs > -np.inf).sum()}"
            )
        mine, other = softmax(ours), softmax(theirs)
        token = int(np.argmax(np.abs(mine - other)))
        return (
            f"{name}: the same tokens are kept, token {token} has p = {mine[token]:.6g} instead of {other[token]:.6g} "
            f"(total variation {self.variation[row]:.2g}, allowed {self.expected.tolerance[row]:.2g})"
        )


@dataclass
class Judge:
    """Puts probes to an engine and compares. tolerance: total variation allowed beyond rounding."""

    asks: Asks
    reference: Bounds
    tolerance: float = 0.0
    known: dict[Probe, Expected] = field(default_factory=dict)
    width: int | None = None
    """The one vocabulary that the engine takes; rows of smaller ones are filled up with removed tokens."""

    rounding: float = 0.0
    """Relative error of the engine's scores beyond float32's."""

    @property
    def info(self) -> EngineInfo:
        """Of the engine."""
        return self.asks.offer.info

    def asked(self, config: SamplingConfig) -> SamplingConfig:
        """The config as the engine is to be asked for it. Raises Unsupported."""
        return offered(self.info, config)

    def expect(self, probe: Probe) -> Expected:
        """What the reference says, worked out once."""
        found = self.known.get(probe)
        if found is None:
            found = self.known[probe] = self._expect(probe)
        return found

    def _expect(self, probe: Probe) -> Expected:
        inputs = probe.logits, probe.history, probe.config, probe.uncond_logits
        must, may, final = self.reference.bounds(*inputs, self.context(probe))
        if probe.kept is not None:
            must = may = probe.kept
            final = replace(final, scores=np.where(probe.kept, probe.logits.astype(np.float64), -np.inf))
        must = must & (final.scores >= final.scores.max(axis=-1, keepdims=True) - UNSEEN)
        tolerance = VARIATION + self.tolerance + _rounding(final)
        return Expected(must, may, final.scores, tolerance, probe.counts, self._unfiltered(probe), self.rounding)

    def _unfiltered(self, probe: Probe) -> Array | None:
        if not DIALECTS.get(self.info.dialect or "", STRICT).ties_are_open:
            return None
        config = probe.config.without(["top_k", "min_p", "top_p"])
        if config.greedy:
            return None
        inputs = probe.logits, probe.history, config, probe.uncond_logits
        return self.reference.evaluate(*inputs, context=self.context(probe))[-1].scores

    def context(self, probe: Probe) -> Context:
        """Where the rows stand: half of their history was given, half was drawn."""
        lengths = np.array([len(row) for row in probe.history], dtype=np.int64)
        coins = (np.arange(len(lengths)) + 0.5) / len(lengths)
        return Context(lengths // 2, lengths - lengths // 2, probe.eos_ids or self.info.eos_ids, coins)

    def find_width(self) -> None:
        """Look whether an engine of a stated vocabulary takes others."""
        size = self.info.vocab_size
        if size is None:
            return
        probe = Probe("width", "V=17", NEUTRAL, np.zeros((1, 17), dtype=np.float32), [[]], ("flat",))
        try:
            answer = self.ask(replace(probe, config=self.asked(probe.config)))
        except Unsupported:
            return
        if answer.value is None or answer.value.shape != (1, 17):
            self.width = size

    def filled(self, rows: Logits, value: float = -np.inf) -> Logits:
        """Rows (..., V) filled up to the engine's vocabulary. Raises Unsupported for larger ones."""
        missing = 0 if self.width is None else self.width - rows.shape[-1]
        if missing < 0:
            raise Unsupported(f"{self.info.name} takes vocabularies of {self.width} alone")
        if missing == 0:
            return rows
        widths = [(0, 0)] * (rows.ndim - 1) + [(0, missing)]
        return np.pad(rows, widths, constant_values=np.float32(value))

    def ask(self, probe: Probe, *, thread: bool = False, then: Probe | None = None) -> Answer:
        """Put a probe as it is; then: a further one, while the answer is held."""
        further = None if then is None else self._call(then)
        answer = self.asks.ask(replace(self._call(probe), thread=thread, then=further))
        size = probe.logits.shape[1]
        if self.width is None or answer.value is None or answer.value.shape != (len(probe.logits), self.width):
            return answer
        if (answer.value[:, size:] > -np.inf).any():
            return replace(answer, value=None, failure="type", message="tokens whose logits are -inf have scores")
        return replace(answer, value=answer.value[:, :size])

    def _call(self, probe: Probe) -> Call:
        uncond = probe.uncond_logits if self.info.cfg else None  # whoever has no guidance may not take them at all
        arguments = {
            "logits": self.filled(probe.logits),
            "history": probe.history,
            "config": probe.config,
            "uncond_logits": None if uncond is None else self.filled(uncond, 0.0),
        }
        return Call("process", arguments, self.context(probe))

    def compare(self, probe: Probe) -> Comparison:
        """Ask, and set what is expected beside it. Raises Unsupported where the engine does."""
        answer = self.ask(probe)
        if answer.failure == "unsupported":
            raise Unsupported(answer.message)
        return Comparison(probe, self.expect(probe), answer, _unusable(answer, probe.logits.shape))

    def blame(self, comparison: Comparison) -> Blame:
        """Look whether the rows that are wrong are right by themselves, or at a second time."""
        if comparison.failure:
            return None
        rows = np.flatnonzero(comparison.wrong)[:3].tolist()
        if not self.compare(comparison.probe).wrong[rows].all():
            return "purity"
        if len(comparison.probe.logits) == 1:
            return None
        alone = [self.compare(comparison.probe.only(row)) for row in rows]
        return None if any(each.wrong.any() for each in alone) else "batch"


def _among_equals(outside: Mask, kept: Mask, scores: Array) -> Mask:
    """Rows in which all tokens that are wrongly kept or removed have one and the same score, and some token is kept."""
    low = np.where(outside, scores, np.inf).min(axis=-1)
    high = np.where(outside, scores, -np.inf).max(axis=-1)
    return np.asarray(kept.any(axis=-1) & ((low == high) | ~outside.any(axis=-1)))


def _rounding(state: Evaluation) -> Array:
    """How far rounding of the scores moves their distribution, at most: sum of p times error; (B,)."""
    return np.asarray((softmax(state.scores, axis=-1) * 2 * state.error).sum(axis=-1))


def _unusable(answer: Answer, shape: tuple[int, ...]) -> str:
    if answer.failure:
        return answer.message
    assert answer.value is not None  # noqa: S101 - no failure
    if answer.value.shape != shape:
        return f"scores of shape {answer.value.shape}, expected {shape}"
    return ""


@dataclass(frozen=True)
class CellResult:
    """What a cell showed. comparisons: all that could be made. blame: what its failures come from, beside a stage."""

    cell: Cell
    comparisons: Sequence[Comparison]
    refused: Sequence[str]
    blame: Blame = None

    @property
    def failing(self) -> list[Comparison]:
        """Comparisons with a wrong row or without an answer."""
        return [comparison for comparison in self.comparisons if comparison.wrong.any()]

    @property
    def outcome(self) -> Literal["passed", "failed", "errored", "unavailable"]:
        """Failed if scores are wrong, errored if there are none."""
        if not self.comparisons:
            return "unavailable"
        if any(not comparison.failure for comparison in self.failing):
            return "failed"
        return "errored" if self.failing else "passed"

    def finding(self, stage: str) -> Finding:
        """The cell's verdict; stage: what is to be named."""
        if not self.comparisons:
            return Finding("process", stage, "unavailable", 0, self.refused[0])
        rows = sum(len(comparison.probe.logits) for comparison in self.comparisons)
        bound = max(float(comparison.expected.tolerance.max()) for comparison in self.comparisons)
        statistic = max(
            comparison.distance if comparison.failure else _worst(comparison) for comparison in self.comparisons
        )
        return Finding(
            "process", stage, self.outcome, rows, self._message(rows), statistic, bound, detectable=min(1.0, bound)
        )

    def _message(self, rows: int) -> str:
        if self.failing:
            wrong = sum(int(comparison.wrong.sum()) for comparison in self.failing)
            shown = next((one for one in self.failing if not one.failure), self.failing[0])
            row = int(np.argmax(np.where(shown.wrong, _severity(shown), -1.0)))
            return f"{wrong} of {rows} rows are wrong; {shown.describe(row)}"
        grey = sum(int((one.expected.must != one.expected.may).any(axis=-1).sum()) for one in self.comparisons)
        refused = f"; not asked: {self.refused[0]}" if self.refused else ""
        return f"{rows} rows equal the reference ({grey} with a grey zone){refused}"


def _worst(comparison: Comparison) -> float:
    """Largest total variation; of whole rows where the kept tokens differ."""
    return float(np.where(comparison.wrong, _severity(comparison), comparison.variation).max())


def _severity(comparison: Comparison) -> Array:
    return np.ones(len(comparison.probe.logits)) if comparison.failure else comparison.total


def ask_cell(judge: Judge, cell: Cell) -> CellResult:
    """Put the probes of a cell; what an engine refuses is left out, after a hang the rest as well."""
    comparisons: list[Comparison] = []
    refused: list[str] = []
    for probe in cell.probes:
        try:
            config = judge.asked(probe.config)
            asked = probe if config == probe.config else replace(probe, config=config)
            comparison = judge.compare(asked)
        except Unsupported as error:
            refused.append(error.message)
            continue
        comparisons.append(comparison)
        if comparison.answer.failure == "hung":
            break
        filled = asked.with_filled_histories()
        if comparison.answer.failure == "raised" and filled is not None:  # what it makes of the others still counts
            comparisons.append(judge.compare(filled))
    result = CellResult(cell, comparisons, refused)
    wrong = next((one for one in result.failing if not one.failure), None)
    return result if wrong is None else replace(result, blame=judge.blame(wrong))
