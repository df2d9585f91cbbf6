"""Merge the causes of several levels: one per stage, the most likely first."""

from collections.abc import Sequence
from dataclasses import replace

from sampler.checks.conformance.diagnosis.alternatives.padding import PADDING
from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.verdict import Finding
from sampler.stages import ALL_STAGES

PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
"""Stages that share `penalty_window`."""

STATEFUL = frozenset(
    {"process/properties/twice-the-same", "process/properties/first-call", "process/properties/keeps-its-answers"}
)
"""An engine that remembers earlier calls explains all other failures."""


def name_stages(findings: dict[str, Finding], causes: Sequence[Cause], known: dict[str, set[str]]) -> None:
    """Set the stage of each failure to that of its cause, else to one known to be wrong; known: by cell."""
    for name, finding in findings.items():
        if finding.outcome not in ("failed", "errored"):
            continue
        cause = next((cause for cause in causes if name in cause.cases), None)
        before = sorted(known.get(name.rsplit("/", 1)[0], set()), key=ALL_STAGES.index)
        if cause is not None or before:
            findings[name] = replace(finding, stage=cause.stage if cause else before[0])


def with_properties(causes: Sequence[Cause], properties: dict[str, Finding]) -> list[Cause]:
    """Add failed properties: written inputs first; the others only if there is no other cause."""
    failed = {name: finding for name, finding in properties.items() if finding.outcome == "failed"}
    result = list(causes)
    harm = "process/properties/writes-nothing"
    if harm in failed:
        result.insert(0, Cause("purity", f"purity: {failed[harm].message}", (harm,)))
    for name, finding in failed.items():
        same = next((index for index, cause in enumerate(result) if cause.stage == finding.stage), None)
        if name == harm:
            continue
        if same is not None:
            result[same] = replace(result[same], cases=(*result[same].cases, name))
        elif not result or name in STATEFUL:
            entry = Cause(finding.stage, f"{finding.stage}: {finding.message}", (name,))
            result.insert(0 if name in STATEFUL else len(result), entry)
    return result


def merged(before: Sequence[Cause], found: Sequence[Cause]) -> list[Cause]:
    """Merge causes of the same stage, the earlier explanation first."""
    result = list(before)
    for cause in found:
        same = next((index for index, other in enumerate(result) if other.stage == cause.stage), None)
        if same is None:
            result.append(cause)
        else:
            result[same] = replace(result[same], cases=(*result[same].cases, *cause.cases))
    return result


def one_cause(causes: Sequence[Cause]) -> list[Cause]:
    """Causes of stages alone; columns of a padded vocabulary, or a window of several penalties, are one cause."""
    groups: dict[str, list[Cause]] = {}
    for cause in causes:
        groups.setdefault(_shared(cause) or cause.explanation, []).append(cause)
    return [group[0] if len(group) == 1 else _together(group) for group in groups.values()]


def _shared(cause: Cause) -> str:
    """What a cause has in common with those of other stages; empty if nothing."""
    if PADDING in cause.explanation:
        return PADDING
    what = cause.explanation.partition(": ")[2]
    return what if "window" in what and cause.stage in PENALTIES else ""


def _together(group: Sequence[Cause]) -> Cause:
    """One cause of several stages: of their common code, or of the first penalty."""
    stage = group[0].stage if group[0].stage in PENALTIES else "purity"
    stages = ", ".join(cause.stage for cause in group)
    cases = tuple(case for cause in group for case in cause.cases)
    return Cause(stage, f"{stage}: {group[0].explanation.partition(': ')[2]}, in {stages}", cases)
