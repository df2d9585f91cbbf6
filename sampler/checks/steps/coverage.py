"""Which drawn tokens have a recorded step that can be judged; where one has none, no check of records may pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import wraps

import numpy as np
from numpy.typing import NDArray

from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.forced import unflagged_end
from sampler.checks.verdict import Finding
from sampler.requests import Logits

MOST_NAMED = 3
"""Requests that a message names."""


def recorded_logits(evidence: Evidence) -> Iterator[tuple[int, Logits]]:
    """Request and logits (T, rows, V) of every run that has some."""
    for index, generation in enumerate(evidence.generations):
        if generation.record is not None and generation.record.logits is not None:
            yield index, generation.record.logits


def common_start(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two runs begin with alike."""
    pairs = zip(left, right, strict=False)
    return next((step for step, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))


def judged_steps(evidence: Evidence, index: int) -> NDArray[np.bool_]:
    """For each recorded step of a request, whether it can be judged; empty without a record."""
    if index not in evidence.judged:
        evidence.judged[index] = _judged_steps(evidence, index)
    return evidence.judged[index]


def _judged_steps(evidence: Evidence, index: int) -> NDArray[np.bool_]:
    record = evidence.generations[index].record
    if record is None or record.logits is None or _lacks_guidance(evidence, index):
        return np.zeros(0, dtype=np.bool_)
    judged = ~broken_steps(record.logits)
    if unflagged_end(evidence, index) and len(judged) == len(evidence.generations[index].tokens):
        judged[-1:] = False  # an analyzer may have forced it, whatever the logits were
    return judged


def broken_steps(logits: Logits) -> NDArray[np.bool_]:
    """Steps of logits (T, rows, V) from which nothing can be drawn: NaN, +inf, or no finite logit in a row."""
    invalid = (np.isnan(logits) | (logits == np.inf)).any(axis=(1, 2))
    empty = np.isfinite(logits).sum(axis=2) == 0
    return np.asarray(invalid | empty.any(axis=1))


def gaps(evidence: Evidence) -> list[str]:
    """What of the drawn tokens cannot be judged, a sentence a kind; empty if all can."""
    kinds: dict[str, list[str]] = {}
    for index, generation in enumerate(evidence.generations):
        count, record = len(generation.tokens), generation.record
        judged = judged_steps(evidence, index)
        if judged.sum() == count:
            continue
        if record is None or record.logits is None:
            kinds.setdefault("recorded no logits", []).append(f"request {index}")
        elif _lacks_guidance(evidence, index):
            kinds.setdefault(NO_GUIDANCE, []).append(f"request {index}")
        elif len(judged) < count:
            kinds.setdefault("not recorded", []).append(f"request {index}, steps {len(judged)} to {count - 1}")
        else:
            kinds.setdefault("cannot be judged", []).append(f"request {index}, step {int(np.argmin(judged))}")
    total = len(evidence.generations)
    return [_sentence(what, places, total) for what, places in kinds.items()]


NO_GUIDANCE = "recorded no unconditional logits, so that guidance cannot be followed"


def _sentence(what: str, places: list[str], total: int) -> str:
    if len(places) == total and "step" not in places[0]:
        return f"the engine {what}"
    more = f" and {len(places) - MOST_NAMED} more" if places[MOST_NAMED:] else ""
    return f"{what}: {'; '.join(places[:MOST_NAMED])}{more}"


def _lacks_guidance(evidence: Evidence, index: int) -> bool:
    record = evidence.generations[index].record
    if record is None or record.logits is None:
        return False
    return evidence.guided(index) and record.logits.shape[1] == 1


def within_records(check: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
    """A check of recorded steps that is inconclusive in place of passed where some of the steps cannot be judged."""

    @wraps(check)
    def limited(evidence: Evidence) -> Finding:
        finding = check(evidence)
        if finding.outcome != "passed":
            return finding
        missing = gaps(evidence)
        note = evidence.precision.note
        if not missing:
            return replace(finding, message=finding.message + note)
        message = f"{finding.message}{note}; but {'; '.join(missing)}: any token may have been drawn there"
        return replace(finding, outcome="inconclusive", reason="not_recorded", message=message)

    return limited
