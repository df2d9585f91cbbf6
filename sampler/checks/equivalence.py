"""Whether a sampler computes what the reference computes: tokens allowed, draws right, scores equal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.base import Evidence, Finding, Step
from sampler.config import SamplingConfig
from sampler.engines.base import Evaluation, Explains, Level, Processes
from sampler.statistics.distance import total_variation

STEPS_AT_ONCE = 64
LARGEST_VARIATION = 1e-5
"""Total variation that float32 rounding may cause between two right chains."""

Logits = NDArray[np.float32]
Mask = NDArray[np.bool_]
ChainInputs = tuple[Logits, list[list[int]], SamplingConfig, Logits | None]


@dataclass(frozen=True)
class Steps:
    """Consecutive steps of one run: (T, V) logits and noise, T histories, (T,) tokens."""

    request: int
    first: int
    config: SamplingConfig
    histories: list[list[int]]
    logits: Logits
    uncond_logits: Logits | None
    gumbel: Logits | None
    tokens: NDArray[np.int64]

    def inputs(self) -> ChainInputs:
        """Arguments of `process`."""
        return self.logits, self.histories, self.config, self.uncond_logits

    def only(self, index: int) -> "Steps":
        """One step by itself."""
        rows = slice(index, index + 1)
        return replace(
            self,
            first=self.first + index,
            histories=self.histories[rows],
            logits=self.logits[rows],
            uncond_logits=None if self.uncond_logits is None else self.uncond_logits[rows],
            gumbel=None if self.gumbel is None else self.gumbel[rows],
            tokens=self.tokens[rows],
        )

    def step(self, index: int, scores: Logits | None = None) -> Step | None:
        """One step by itself, for a crash file; scores: (V,) as the engine has them."""
        if self.gumbel is None:
            return None
        uncond = None if self.uncond_logits is None else self.uncond_logits[index]
        history, token = tuple(self.histories[index]), int(self.tokens[index])
        return Step(self.config, history, self.logits[index], uncond, self.gumbel[index], token, scores)

    def name(self, index: int) -> str:
        """Where a step stands, for a message."""
        return f"request {self.request}, step {self.first + index}"


def recorded_steps(evidence: Evidence) -> Iterator[Steps]:
    """All recorded steps, some at a time; nothing for an engine that records no logits."""
    for index, (request, generation) in enumerate(zip(evidence.requests, evidence.generations, strict=True)):
        record = generation.record
        if record is None or record.logits is None:
            continue
        for start in range(0, len(generation.tokens), STEPS_AT_ONCE):
            part = slice(start, min(start + STEPS_AT_ONCE, len(generation.tokens)))
            steps = range(part.start, part.stop)
            yield Steps(
                request=index,
                first=start,
                config=request.config,
                histories=[[*evidence.prefix, *generation.tokens[:step]] for step in steps],
                logits=record.logits[part, 0],
                uncond_logits=record.logits[part, 1] if record.logits.shape[1] == 2 else None,
                gumbel=np.stack([request.noise(step) for step in steps]) if request.noise else None,
                tokens=np.array(generation.tokens[part], dtype=np.int64),
            )


def _bounds(evidence: Evidence, steps: Steps) -> tuple[Mask, Mask]:
    """What must and what may be kept, (T, V) each; worked out once for all checks of a cell."""
    key = steps.request, steps.first
    if key not in evidence.known:
        bounds = evidence.reference.kept_bounds(*steps.inputs())
        evidence.known[key] = tuple(np.packbits(mask, axis=-1) for mask in bounds)
    must, may = (
        np.unpackbits(packed, axis=-1, count=steps.logits.shape[-1]).astype(np.bool_) for packed in evidence.known[key]
    )
    return must, may


def _nothing_recorded(evidence: Evidence, level: Level, stage: str) -> Finding:
    """The answer where there is no step to look at."""
    if any(generation.tokens for generation in evidence.generations):
        return Finding(level, stage, "unavailable", 0, "the engine records no logits")
    return Finding(level, stage, "unavailable", 0, "no run drew a single token")


def allowed(evidence: Evidence) -> Finding:
    """Every token drawn is one that the float64 reference keeps, or one in the grey zone.

    The stage that is named is the earliest in the order that removes a token that was drawn: what a later stage
    removes besides may follow from the first mistake.
    """
    checked = grey = 0
    wrong: list[_Removal] = []
    for steps in recorded_steps(evidence):
        must, may = _bounds(evidence, steps)
        rows = np.arange(len(steps.tokens))
        checked += len(rows)
        grey += int((may & ~must)[rows, steps.tokens].sum())
        outside = np.flatnonzero(~may[rows, steps.tokens]).tolist()
        if outside:
            states = evidence.reference.evaluate(*steps.inputs())
            wrong.extend(_removal(steps, states, index) for index in outside)
    if checked == 0:
        return _nothing_recorded(evidence, "draw", "draw")
    if not wrong:
        message = f"{checked} tokens drawn, all kept by the float64 chain ({grey} in the grey zone)"
        return Finding("draw", "draw", "passed", checked, message, statistic=0, bound=0)
    first = min(wrong, key=lambda removal: removal.place)
    message = f"{len(wrong)} of {checked} tokens drawn were not allowed; {first.message}"
    return Finding("draw", first.stage, "failed", checked, message, statistic=len(wrong), bound=0, step=first.step)


@dataclass(frozen=True)
class _Removal:
    """A drawn token that the reference removes. place: of the stage in the order."""

    stage: str
    place: int
    message: str
    step: Step | None


def _removal(steps: Steps, states: Sequence[Evaluation], index: int) -> _Removal:
    """Which stage of the reference removed the token of one step, and the figures for it."""
    token = int(steps.tokens[index])
    for place, (before, after) in enumerate(pairwise(states)):
        if before.kept[index, token] and not after.kept[index, token]:
            ratio = np.exp(before.scores[index, token] - before.scores[index].max())
            stage = "temperature" if after.stage == "greedy" else after.stage
            kept = np.flatnonzero(after.kept[index])
            message = (
                f"{steps.name(index)}: token {token} was drawn, {stage} removes it: {ratio:.3g} times as likely as "
                f"the best; {len(kept)} tokens are kept, {_some(kept)}"
            )
            return _Removal(stage, place, message, steps.step(index))
    message = f"{steps.name(index)}: token {token} was drawn, whose logit is -inf"
    return _Removal("draw", -1, message, steps.step(index))


def draws(evidence: Evidence) -> Finding:
    """Every token drawn is the one that the reference draws with the same noise, unless rounding may decide.

    Rounding may decide between tokens whose score plus noise is within the reach of float32 errors, and for a token
    in the grey zone whether it takes part.
    """
    checked = close = 0
    wrong: list[tuple[str, Step | None]] = []
    for steps in recorded_steps(evidence):
        if steps.gumbel is None:
            return Finding("draw", "draw", "unavailable", 0, "the engine does not take the suite's noise")
        must, may = _bounds(evidence, steps)
        race = _Race.of(evidence.reference, steps, must, may)
        bad = race.lost
        checked += len(bad)
        close += int(((race.best != steps.tokens) & ~bad).sum())
        for index in np.flatnonzero(bad).tolist():
            message = (
                f"{steps.name(index)}: token {steps.tokens[index]} was drawn, the reference draws {race.best[index]} "
                f"with the same noise, ahead by {race.gap[index]:.3g} (rounding explains {race.reach[index]:.1g})"
            )
            wrong.append((message, steps.step(index)))
    if checked == 0:
        return _nothing_recorded(evidence, "draw", "draw")
    if not wrong:
        message = f"{checked} draws equal the reference's with the same noise ({close} decided by rounding)"
        return Finding("draw", "draw", "passed", checked, message, statistic=0, bound=0)
    if evidence.ignores_noise():
        message = "the engine draws with noise of its own: other noise from the suite gives the same tokens"
        return Finding("draw", "draw", "unavailable", 0, message)
    message = f"{len(wrong)} of {checked} draws differ from the reference's; {wrong[0][0]}"
    return Finding("draw", "draw", "failed", checked, message, statistic=len(wrong), bound=0, step=wrong[0][1])


@dataclass(frozen=True)
class _Race:
    """Score plus noise at T steps. best: of the tokens that must be kept; gap: how far it is ahead of the token drawn.

    reach: how far rounding may reach; lost: whether the token drawn cannot have won; all (T,).
    """

    best: NDArray[np.int64]
    gap: NDArray[np.float64]
    reach: NDArray[np.float64]
    lost: Mask

    @classmethod
    def of(cls, reference: Explains, steps: Steps, must: Mask, may: Mask) -> "_Race":
        final = reference.evaluate(*steps.inputs(), reading="generous")[-1]
        rows = np.arange(len(steps.tokens))
        raced = final.scores + np.asarray(steps.gumbel)
        best = np.where(must, raced, -np.inf).argmax(axis=-1)
        with np.errstate(invalid="ignore"):
            gap = raced[rows, best] - raced[rows, steps.tokens]
        reach = final.error[rows, best] + final.error[rows, steps.tokens] + 1e-6 * np.abs(raced[rows, best])
        ran = must.any(axis=-1) & final.kept[rows, steps.tokens]
        lost = ~may[rows, steps.tokens] | (ran & (gap > reach))
        return cls(best, gap, reach, lost)


def chain(evidence: Evidence) -> Finding:
    """On the recorded logits, the distribution after the chain equals that of HuggingFace's processors."""
    if not isinstance(evidence.engine, Processes):
        return Finding("process", "order", "unavailable", 0, "the engine has no process()")
    oracle = evidence.oracle
    if not isinstance(oracle, Processes):
        return Finding("process", "order", "unavailable", 0, evidence.oracle_missing)
    checked = grey = 0
    largest, failure = 0.0, None
    for steps in recorded_steps(evidence):
        compared = ChainComparison(evidence.engine, oracle, evidence.reference, steps, _bounds(evidence, steps))
        if compared.wrote_input:
            message = "process() writes into the logits that it is given"
            return Finding("process", "purity", "failed", checked, message)
        checked += len(steps.tokens)
        grey += int((compared.must != compared.may).any(axis=-1).sum())
        largest = max(largest, float(compared.variation.max()))
        if failure is None and largest > LARGEST_VARIATION:
            index = int(np.argmax(compared.variation))
            failure = compared.culprit(index), compared.describe(index), steps.step(index, compared.ours[index])
    if checked == 0:
        return _nothing_recorded(evidence, "process", "order")
    figures: dict[str, Any] = {"statistic": largest, "bound": LARGEST_VARIATION, "detectable": LARGEST_VARIATION}
    versions = oracle.info.version
    if failure is None:
        message = (
            f"{checked} distributions equal those of {versions}: total variation at most {largest:.1e} "
            f"({grey} with a grey zone)"
        )
        return Finding("process", "order", "passed", checked, message, **figures)
    message = f"the distribution differs from that of {versions} from stage {failure[0]} on; {failure[1]}"
    return Finding("process", failure[0], "failed", checked, message, **figures, step=failure[2])


class ChainComparison:
    """An engine beside an oracle on the same steps, with the reference to say where rounding may decide.

    variation: (T,), total variation on the tokens that must be kept; 1 where the engine keeps what it may not keep,
    removes what it must keep, or answers with NaN or +inf.
    """

    def __init__(
        self,
        engine: Processes,
        oracle: Processes,
        reference: Explains,
        steps: Steps,
        bounds: tuple[Mask, Mask] | None = None,
    ) -> None:
        self._engine, self._oracle, self._reference, self._steps = engine, oracle, reference, steps
        inputs = steps.inputs()
        self.must, self.may = bounds or reference.kept_bounds(*inputs)
        lent = [None if rows is None else rows.copy() for rows in (steps.logits, steps.uncond_logits)]
        histories = [list(row) for row in steps.histories]
        self.ours = np.array(engine.process(np.asarray(lent[0]), histories, steps.config, lent[1]))
        given = [np.asarray(rows) for rows in (steps.logits, steps.uncond_logits) if rows is not None]
        returned = [rows for rows in lent if rows is not None]
        self.wrote_input = not all(map(np.array_equal, given, returned))
        self.theirs = oracle.process(*inputs)
        self.variation = self._variation()

    def _variation(self) -> NDArray[np.float64]:
        if self.ours.shape != self.theirs.shape:
            raise ValueError(f"process() gave scores of shape {self.ours.shape}, expected {self.theirs.shape}")
        kept = self.ours > -np.inf
        broken = (np.isnan(self.ours) | (self.ours == np.inf)).any(axis=-1)
        outside = broken | (self.must & ~kept).any(axis=-1) | (kept & ~self.may).any(axis=-1)
        result = np.zeros(len(self.ours))
        compared = ~outside & self.must.any(axis=-1)
        if compared.any():
            mine, other = (
                np.where(self.must, scores, -np.inf)[compared].astype(np.float64) for scores in (self.ours, self.theirs)
            )
            result[compared] = total_variation(mine, other)
        result[outside] = 1.0
        return result

    def culprit(self, index: int) -> str:
        """The stage after which the distributions first differ.

        `batch` for a row that is right by itself, `purity` where a chain of no stage at all is wrong already.
        """
        alone = ChainComparison(self._engine, self._oracle, self._reference, self._steps.only(index))
        if alone.variation[0] <= LARGEST_VARIATION:
            return "batch"
        order = self._steps.config.order
        for count in range(len(order) + 1):
            beginning = replace(self._steps, config=replace(self._steps.config, order=order[:count]))
            compared = ChainComparison(self._engine, self._oracle, self._reference, beginning)
            if compared.variation.max() > LARGEST_VARIATION:
                return order[count - 1] if count else "purity"
        return "order"

    def describe(self, index: int) -> str:
        """Kept sets first, then the worst token, as both sides have them."""
        ours, theirs, name = self.ours[index], self.theirs[index], self._steps.name(index)
        broken = np.flatnonzero(np.isnan(ours) | (ours == np.inf))
        if len(broken):
            return f"{name}: {len(broken)} scores are NaN or +inf, {_some(broken)}"
        more = np.flatnonzero((ours > -np.inf) & (theirs == -np.inf))
        less = np.flatnonzero((theirs > -np.inf) & (ours == -np.inf))
        sets = [f"it {verb} {_some(ids)}" for verb, ids in (("keeps also", more), ("removes", less)) if len(ids)]
        if sets:
            return f"{name}: {' and '.join(sets)}"
        mine, other = softmax(ours.astype(np.float64)), softmax(theirs.astype(np.float64))
        token = int(np.argmax(np.abs(mine - other)))
        return (
            f"{name}: the same tokens are kept, token {token} has p = {mine[token]:.6g} instead of "
            f"{other[token]:.6g} (total variation allowed {LARGEST_VARIATION:g})"
        )


def _some(ids: Sequence[int] | NDArray[np.int64], most: int = 6) -> str:
    shown = ", ".join(str(token) for token in list(ids)[:most])
    return f"{{{shown}{', ...' if len(ids) > most else ''}}}"
