"""Whether the records of a cell are evidence: complete, of this model, this run and this step, before the chain."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from sampler.checks.scoring.named import Named
from sampler.checks.steps.alternatives import Suspect, explained
from sampler.checks.steps.coverage import broken_steps, gaps, recorded_logits
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.plausible import (
    chain_applied,
    follows_the_prompt,
    same_rows,
    tells_nothing,
)
from sampler.checks.steps.precision import Precision
from sampler.checks.steps.recorded import nothing_recorded
from sampler.checks.steps.teacher import forced
from sampler.checks.verdict import Finding
from sampler.engines.base import Predicts
from sampler.errors import Unsupported

LEVEL: Final = "generate"
STAGE: Final = "cache"
"""Of a verdict that passes: what teacher forcing tests most are the cache and the positions."""


def records(evidence: Evidence) -> Finding:
    """The finding about the records of a cell, asked once."""
    if "records" not in evidence.findings:
        evidence.findings["records"] = _records(evidence)
    return evidence.findings["records"]


def _records(evidence: Evidence) -> Finding:
    """Every drawn token has a recorded step, and the record is the logits of the model before the chain.

    Where the model is known, its logits for the same prompt and tokens are compared, as total variation within the
    tolerance of the records' precision. Without it records are compared with each other: two runs of one prompt begin
    with the same logits, guidance makes a difference, no stage of the chain was applied before.
    """
    if not any(len(logits) for _, logits in recorded_logits(evidence)):
        return nothing_recorded(evidence, LEVEL, STAGE)
    precision = evidence.precision
    broken = _broken(evidence)
    if broken is not None:
        return broken
    compared, whole, note = None, False, "no model is known to compare them with"
    if evidence.model is not None:
        try:
            compared, whole = _compared(evidence, evidence.model, precision)
        except Unsupported as error:
            note = f"{evidence.model_name} cannot predict them: {error}"
    if compared is not None and compared.outcome == "failed":
        return compared
    for ask in () if whole else _QUESTIONS if compared is None else _OF_OTHERS:
        answer = ask(evidence)
        if answer is not None:
            return answer
    finding = compared or _passed(evidence, note)
    missing = gaps(evidence)
    if missing:
        message = f"{'; '.join(missing)}; {finding.message}"
        return replace(finding, outcome="inconclusive", reason="not_recorded", message=message + precision.note)
    return replace(finding, message=finding.message + precision.note)


_QUESTIONS: Final[tuple[Callable[[Evidence], Finding | None], ...]] = (
    chain_applied,
    same_rows,
    follows_the_prompt,
    tells_nothing,
)
"""What records say without a model. Each returns a finding that is no pass, or None."""

_OF_OTHERS: Final = (chain_applied, follows_the_prompt)
"""What is asked as well where a model was compared with a part of the requests."""


def _passed(evidence: Evidence, note: str) -> Finding:
    steps = sum(len(logits) for _, logits in recorded_logits(evidence))
    return Finding(LEVEL, STAGE, "passed", steps, f"{steps} recorded steps contradict nothing; {note}")


def _broken(evidence: Evidence) -> Finding | None:
    """A finding for logits from which nothing can be drawn."""
    for index, logits in recorded_logits(evidence):
        broken = broken_steps(logits)
        if broken.any():
            step = int(np.argmax(broken))
            message = (
                f"request {index}, step {step}: the recorded logits have NaN, +inf or no finite value, from which no "
                f"token can be drawn ({int(broken.sum())} of {len(broken)} steps)"
            )
            return Finding(LEVEL, "purity", "failed", len(broken), message, request=index)
    return None


def _compared(evidence: Evidence, model: Predicts, precision: Precision) -> tuple[Finding, bool]:
    """The records beside the model's logits, passed or failed; and whether all of them were compared."""
    runs = forced(evidence, model)
    distances = np.concatenate([run.distance for run in runs])
    largest, typical = float(distances.max()), float(np.median(distances))
    whole = len(distances) == sum(len(logits) for _, logits in recorded_logits(evidence))
    subset = (
        "" if len(runs) == len(evidence.generations) else f" of {len(runs)} of {len(evidence.generations)} requests"
    )
    figures: dict[str, Any] = {"statistic": largest, "bound": precision.largest, "detectable": precision.largest}
    if precision.covers(distances):
        message = (
            f"{len(distances)} recorded steps{subset} are those of {evidence.model_name}: total variation at most "
            f"{largest:.1e}, median {typical:.1e}"
        )
        return Finding(LEVEL, STAGE, "passed", len(distances), message, **figures), whole
    bound = precision.largest if largest > precision.largest else precision.typical
    run = next(run for run in runs if (run.distance > bound).any())
    step = int(np.argmax(run.distance > bound))
    named = explained(Suspect(evidence, model, run, runs, precision)) or _unexplained(step)
    message = (
        f"the recorded logits are not those of {evidence.model_name}: {named.text}; request {run.request} differs "
        f"first at step {step}, total variation {run.distance[step]:.3g} (allowed {bound:g}); "
        f"{int((distances > bound).sum())} of {len(distances)} steps{subset} differ{precision.note}"
    )
    failed = Finding(LEVEL, named.stage, "failed", len(distances), message, **figures, request=run.request)
    return failed, whole


def _unexplained(step: int) -> Named:
    if step == 0:
        return Named("position", "they differ before any token was fed")
    return Named("cache", f"they are right before step {step}, and other tokens or states were fed then")
