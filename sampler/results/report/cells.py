"""Verdicts by cell: what every table of a run is made of."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from sampler.checks.verdict import Outcome, Verdict, worst
from sampler.matrix.matrix import ALL


@dataclass(frozen=True)
class CellVerdicts:
    """All verdicts of one cell, in order. id: matrix/cell."""

    id: str
    verdicts: tuple[Verdict, ...]

    @cached_property
    def outcome(self) -> Outcome:
        return worst([verdict.outcome for verdict in self.verdicts])

    @cached_property
    def axes(self) -> Mapping[str, str]:
        """The value of each axis, as the id spells it."""
        return axes_of(self.id)

    @property
    def together(self) -> bool:
        """Whether this is all cells together."""
        return self.id.partition("/")[2] == ALL

    @property
    def failing(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.bad]

    @property
    def stages(self) -> list[str]:
        """Stages that were found wrong, each once; a check that stopped early has found none."""
        return list(dict.fromkeys(verdict.stage for verdict in self.verdicts if verdict.outcome == "failed"))


def cell_of(verdict: Verdict) -> str:
    """The id of the cell, matrix/cell, that a verdict belongs to."""
    return verdict.id.place


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


@dataclass(frozen=True)
class OpenQuestion:
    """What was not answered, and why. checks: their names with the number of verdicts, as `chain (4)`."""

    outcome: Outcome
    message: str
    checks: tuple[str, ...]


def open_questions(verdicts: Iterable[Verdict]) -> list[OpenQuestion]:
    """Verdicts that are inconclusive or skipped, together where their outcome and message are the same."""
    left = [verdict for verdict in verdicts if verdict.outcome in ("inconclusive", "skipped")]
    groups: dict[tuple[Outcome, str], Counter[str]] = {}
    for verdict in left:
        groups.setdefault((verdict.outcome, verdict.message), Counter())[verdict.check] += 1
    return [
        OpenQuestion(outcome, message, tuple(f"{check} ({count})" for check, count in checks.items()))
        for (outcome, message), checks in groups.items()
    ]
