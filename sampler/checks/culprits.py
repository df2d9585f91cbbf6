"""Putting culprits of several questions together: one a stage, the most likely first."""

from collections.abc import Sequence
from dataclasses import replace

from sampler.checks.base import Finding
from sampler.checks.order_diagnosis import Culprit
from sampler.config import ALL_STAGES

STATEFUL = frozenset(
    {"process/properties/twice-the-same", "process/properties/first-call", "process/properties/keeps-its-answers"}
)
"""What an engine remembers of earlier calls explains whatever else is wrong."""


def name_stages(findings: dict[str, Finding], culprits: Sequence[Culprit], known: dict[str, set[str]]) -> None:
    """Put the stage of its culprit into each failure, else one that was found wrong before; known: by cell."""
    for name, finding in findings.items():
        if finding.outcome not in ("failed", "errored"):
            continue
        culprit = next((each for each in culprits if name in each.cases), None)
        before = sorted(known.get(name.rsplit("/", 1)[0], set()), key=ALL_STAGES.index)
        if culprit is not None or before:
            findings[name] = replace(finding, stage=culprit.stage if culprit else before[0])


def with_properties(culprits: Sequence[Culprit], looked: dict[str, Finding]) -> list[Culprit]:
    """Add what the properties show: written inputs first; the others only where no cell has shown anything."""
    failed = {name: finding for name, finding in looked.items() if finding.outcome == "failed"}
    result = list(culprits)
    harm = "process/properties/writes-nothing"
    if harm in failed:
        result.insert(0, Culprit("purity", f"purity: {failed[harm].message}", (harm,)))
    for name, finding in failed.items():
        same = next((index for index, each in enumerate(result) if each.stage == finding.stage), None)
        if name == harm:
            continue
        if same is not None:
            result[same] = replace(result[same], cases=(*result[same].cases, name))
        elif not result or name in STATEFUL:
            entry = Culprit(finding.stage, f"{finding.stage}: {finding.message}", (name,))
            result.insert(0 if name in STATEFUL else len(result), entry)
    return result


def merged(before: Sequence[Culprit], found: Sequence[Culprit]) -> list[Culprit]:
    """Join culprits of the same stage, the earlier explanation first."""
    result = list(before)
    for culprit in found:
        same = next((index for index, each in enumerate(result) if each.stage == culprit.stage), None)
        if same is None:
            result.append(culprit)
        else:
            result[same] = replace(result[same], cases=(*result[same].cases, *culprit.cases))
    return result
