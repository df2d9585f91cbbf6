"""Whether an engine's chain gives the scores of an independent implementation, on the logits that a run recorded."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.scoring.bounds import seen_bounds
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.recorded import (
    Mask,
    kept_bounds,
    nothing_recorded,
    one_step,
    recorded_steps,
)
from sampler.checks.verdict import Finding, some_ids
from sampler.engines.base import Evaluation, Explains, Processes, call_process
from sampler.engines.capabilities import knows_context, needs_context, process_rows
from sampler.engines.rules import rules_of, written
from sampler.errors import Unsupported
from sampler.requests import Logits, Steps
from sampler.stages import ALL_STAGES
from sampler.statistics.distance import UNSEEN, drawable, total_variation

LARGEST_VARIATION = 1e-5
"""Total variation that float32 rounding may cause between two correct chains."""


def chain(evidence: Evidence) -> Finding:
    """On the recorded logits, the distribution after the chain equals that of HuggingFace's processors."""
    if not isinstance(evidence.engine, Processes):
        return Finding.skipped("process", "order", "no_method", "the engine has no process()")
    oracle = evidence.oracle
    if not isinstance(oracle, Processes):
        return Finding.skipped("process", "order", "missing_package", evidence.oracle_missing)
    rules = rules_of(evidence.engine.info.dialect, evidence.engine.info.rules)
    stage = needs_context(evidence.requests[0].config, rules)
    if stage and not knows_context(evidence.engine):
        message = f"{stage} needs the keyword `context`, which process() does not take"
        return Finding.skipped("process", stage, "unsupported", message)
    checked = grey = 0
    largest, bound, failure, rounded = 0.0, LARGEST_VARIATION, None, Rounded()
    slack = evidence.precision.said and evidence.precision.rounding > 0
    for steps in recorded_steps(evidence):
        bounds = kept_bounds(evidence, steps)
        compared = ChainComparison(evidence.engine, oracle, evidence.reference, steps, bounds, slack=slack)
        if compared.wrote_input:
            message = "process() writes into the logits that it is given"
            return Finding("process", "purity", "failed", checked, message)
        if compared.doubtful.any():
            index = int(np.argmax(compared.doubtful))
            message = f"{oracle.info.version} and the float64 reference disagree; {compared.describe_doubt(index)}"
            return Finding(
                "process", "order", "errored", checked, message, request=steps.request, step=one_step(steps, index)
            )
        checked += int(compared.answered.sum())
        grey += int((compared.must != compared.may).any(axis=-1).sum())
        largest = max(largest, float(compared.variation.max()))
        bound = max(bound, float(compared.allowed.max()))
        rounded.add(compared)
        if failure is None and compared.wrong.any():
            index = int(np.argmax(compared.variation * compared.wrong))
            step = one_step(steps, index, compared.ours[index])
            failure = compared.wrong_stage(index), compared.describe(index), steps.request, step
    if checked == 0:
        return nothing_recorded(evidence, "process", "order")
    figures: dict[str, Any] = {"statistic": largest, "bound": bound, "detectable": bound}
    versions = f"the float64 reference with {written(rules)}" if rules else oracle.info.version
    if failure is None:
        message = (
            f"{checked} distributions equal those of {versions}: total variation at most {largest:.1e} "
            f"({grey} with a grey zone){rounded.note}"
        )
        return Finding("process", "order", "passed", checked, message, **figures)
    stage, shown, request, step = failure
    message = f"the distribution differs from that of {versions}; {shown}{rounded.note}"
    return Finding("process", stage, "failed", checked, message, **figures, request=request, step=step)


class ChainComparison:
    """Compare an engine with an oracle on the same steps; the reference defines where rounding may decide.

    variation: (T,), total variation on the tokens that must be kept; 1 if the engine keeps or removes a wrong token, or
    answers with NaN or +inf. doubtful: bool (T,), the same for the oracle. rounded: rows where the oracle errs by
    rounding alone, and how; the reference, which computes in log space in float64, takes its place there. slack:
    whether the engine may round as the reference allows for, in lower precision.
    """

    def __init__(
        self,
        engine: Processes,
        oracle: Processes,
        reference: Explains,
        steps: Steps,
        bounds: tuple[Mask, Mask] | None = None,
        *,
        slack: bool = False,
    ) -> None:
        self._engine, self._oracle, self._reference, self.steps = engine, oracle, reference, steps
        self.must, self.may = bounds or seen_bounds(reference, steps)
        uncond = None if steps.uncond_logits is None else steps.uncond_logits.copy()
        histories = [list(row) for row in steps.history]
        lent = replace(steps, logits=steps.logits.copy(), history=histories, uncond_logits=uncond)
        self.ours, self.answered = process_rows(engine, lent)
        same = np.array_equal(lent.logits, steps.logits)
        self.wrote_input = not (same and (uncond is None or np.array_equal(uncond, np.asarray(steps.uncond_logits))))
        self.theirs = call_process(oracle, steps)
        if self.ours.shape != self.theirs.shape:
            raise ValueError(f"process() gave scores of shape {self.ours.shape}, expected {self.theirs.shape}")
        self.doubtful = self._outside(self.theirs, 0.0)
        self.rounded: dict[int, str] = {}
        grey = self.doubtful | (self.must != self.may).any(axis=-1)
        if grey.any():
            self._correct(np.flatnonzero(grey))
        self.variation = self._variation()
        self._slack = slack
        self.allowed = LARGEST_VARIATION + (_rounding(reference.evaluate(steps)[-1]) if slack else np.zeros(len(steps)))
        self.wrong = np.asarray(self.variation > self.allowed)

    def _correct(self, rows: NDArray[np.intp]) -> None:
        """Put the reference in place of the oracle in rows where that keeps other tokens by float32 rounding alone.

        So it is in the grey zone, where the tokens in question have no probability, and where the oracle agrees in
        float64.
        """
        steps = self.steps.only(rows.tolist())
        exact = self._reference.evaluate(steps)[-1].scores.astype(np.float32)
        theirs = self.theirs[rows]
        same = ~self.doubtful[rows]
        valid = np.flatnonzero(~same & (theirs < np.inf).all(axis=-1))
        same[valid] = total_variation(theirs[valid], exact[valid]) <= LARGEST_VARIATION
        precise = getattr(self._oracle, "in_float64", None)
        if precise is not None and not same.all():
            kept = call_process(precise(), steps) > -np.inf
            same |= ~((self.must[rows] & ~kept) | (kept & ~self.may[rows])).any(axis=-1)
        for row, ours, other in zip(rows[same], exact[same] > -np.inf, theirs[same] > -np.inf, strict=True):
            if not np.array_equal(ours, other):
                more, less = np.flatnonzero(other & ~ours), np.flatnonzero(ours & ~other)
                pairs = (("keeps also", more), ("removes", less))
                self.rounded[int(row)] = (
                    f"it {' and '.join(f'{verb} {some_ids(ids)}' for verb, ids in pairs if len(ids))}"
                )
        self.theirs[rows[same]], self.doubtful[rows[same]] = exact[same], False

    def _outside(self, scores: Logits, unseen: float = UNSEEN) -> Mask:
        """Rows with NaN or +inf, without a token that must be kept, or with one that may not be.

        unseen: how far below the best a token counts as removed; 0 for -inf alone.
        """
        broken = (np.isnan(scores) | (scores == np.inf)).any(axis=-1)
        lowest = scores.max(axis=-1, keepdims=True) - unseen if unseen else -np.inf
        kept = (scores > -np.inf) & (scores >= lowest)
        return np.asarray(broken | (self.must & ~kept).any(axis=-1) | (kept & ~self.may).any(axis=-1))

    def _variation(self) -> NDArray[np.float64]:
        outside = self._outside(self.ours) & self.answered
        result = np.where(outside, 1.0, 0.0)
        compared = ~outside & ~self.doubtful & self.must.any(axis=-1) & self.answered
        if compared.any():
            mine, other = (
                np.where(self.must, scores, -np.inf)[compared].astype(np.float64) for scores in (self.ours, self.theirs)
            )
            result[compared] = total_variation(mine, other)
        return result

    def wrong_stage(self, index: int) -> str:
        """The cause of one wrong row: `batch` if it is right alone, `purity` if it is wrong without any active stage.

        Else the stage that is wrong alone, on the reference's scores before it; `order` if there is none.
        """
        row = self.steps.only([index])
        if not self._differs(row):
            return "batch"
        config = row.config
        try:
            if self._differs(row.with_config(config.without(ALL_STAGES))):
                return "purity"
            for stage, before in zip(config.order, self._reference.evaluate(row), strict=False):
                if stage in config.active_stages() and self._differs(row.before(stage, before.scores)):
                    return stage
        except Unsupported:  # an engine need not support every config
            return "order"
        return "order"

    def _differs(self, steps: Steps) -> bool:
        compared = ChainComparison(self._engine, self._oracle, self._reference, steps, slack=self._slack)
        return bool(compared.wrong.any())

    def describe_doubt(self, index: int) -> str:
        """How the oracle differs from the reference."""
        kept = self.theirs[index] > -np.inf
        more, less = np.flatnonzero(kept & ~self.may[index]), np.flatnonzero(self.must[index] & ~kept)
        return f"{self.steps.name(index)}: it keeps also {some_ids(more)} and removes {some_ids(less)}"

    def describe(self, index: int) -> str:
        """Describe a wrong row: the kept tokens as sets first, then the worst token on both sides."""
        ours, theirs, name = drawable(self.ours[index]), drawable(self.theirs[index]), self.steps.name(index)
        broken = np.flatnonzero(np.isnan(ours) | (ours == np.inf))
        if len(broken):
            return f"{name}: {len(broken)} scores are NaN or +inf, {some_ids(broken)}"
        more = np.flatnonzero((ours > -np.inf) & (theirs == -np.inf))
        less = np.flatnonzero((theirs > -np.inf) & (ours == -np.inf))
        sets = [f"it {verb} {some_ids(ids)}" for verb, ids in (("keeps also", more), ("removes", less)) if len(ids)]
        if sets:
            return f"{name}: {' and '.join(sets)}"
        mine, other = softmax(ours), softmax(theirs)
        token = int(np.argmax(np.abs(mine - other)))
        return (
            f"{name}: the same tokens are kept, token {token} has p = {mine[token]:.6g} instead of "
            f"{other[token]:.6g} (total variation allowed {LARGEST_VARIATION:g})"
        )


@dataclass
class Rounded:
    """The rows where the oracle errs by rounding, for a message."""

    count: int = 0
    first: str = ""

    def add(self, compared: ChainComparison) -> None:
        self.count += len(compared.rounded)
        for row, text in compared.rounded.items():
            self.first = self.first or f"{compared.steps.name(row)}: {text}"

    @property
    def note(self) -> str:
        if not self.count:
            return ""
        steps = "one step" if self.count == 1 else f"{self.count} steps"
        return f"; at {steps} float32 rounding makes that keep other tokens, where the reference decides: {self.first}"


def _rounding(final: Evaluation) -> NDArray[np.float64]:
    """Total variation that the possible errors of the scores can cause, (T,)."""
    return np.asarray(np.minimum(1.0, (softmax(final.scores, axis=-1) * final.error).sum(axis=-1)))
