"""Verdicts by cell: what every table of a run is made of."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from sampler.checks.verdict import Outcome, Verdict, worst


@dataclass(frozen=True)
class CellVerdicts:
    """All verdicts of one cell, in order. id: matrix/cell."""

    id: str
    verdicts: tuple[Verdict, ...]

    @cached_property
    def outcome(self) -> Outcome:
        """The worst outcome of its checks."""
        return worst([verdict.outcome for verdict in self.verdicts])

    @cached_property
    def axes(self) -> Mapping[str, str]:
        """The value of each axis, as the id spells it."""
        return axes_of(self.id)

    @property
    def failing(self) -> list[Verdict]:
        """The verdicts that failed or errored."""
        return [verdict for verdict in self.verdicts if verdict.outcome in ("failed", "errored")]

    @property
    def stages(self) -> list[str]:
        """Stages that were found wrong, each once; a check that broke off has found none."""
        return list(dict.fromkeys(verdict.stage for verdict in self.verdicts if verdict.outcome == "failed"))


def cell_of(verdict: Verdict) -> str:
    """The id of the cell, matrix/cell, that a verdict belongs to."""
    return verdict.case.rsplit("/", 1)[0]


def axes_of(cell: str) -> dict[str, str]:
    """The axes that a cell id spells out: `temperature:0.8+top_p:1.0`."""
    parts = (part.partition(":") for part in cell.split("/", 1)[-1].split("+"))
    return {name: value for name, colon, value in parts if colon}


def cells_of(verdicts: Iterable[Verdict]) -> list[CellVerdicts]:
    """The cells of a run in the order in which they come."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(cell_of(verdict), []).append(verdict)
    return [CellVerdicts(cell, tuple(group)) for cell, group in groups.items()]


def reasons_of(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    """Why verdicts are unavailable: for each reason the checks that gave it, with how often, as `chain (4)`."""
    counts = Counter((verdict.check, verdict.message) for verdict in verdicts if verdict.outcome == "unavailable")
    reasons: dict[str, list[str]] = {}
    for (check, reason), count in counts.items():
        reasons.setdefault(reason, []).append(f"{check} ({count})")
    return reasons
