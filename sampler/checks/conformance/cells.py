"""Compare a chain with the reference, cell by cell: each stage alone, then together, on rows that expose mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.judge import Blame, Judge
from sampler.checks.conformance.probes import NOT_EMPTY, ProbeSet
from sampler.checks.conformance.severity import in_words, measured
from sampler.checks.conformance.ties import AT_TIES, without_ties
from sampler.checks.verdict import Finding, Outcome
from sampler.config import SamplingConfig
from sampler.errors import Unsupported
from sampler.stages import STAGES, Stage

Array = NDArray[np.float64]

MOST_SPLIT = 2
"""So many calls of a cell that raise for every row are sent again row by row."""


@dataclass(frozen=True)
class ProbeResult:
    """The answers to a cell's probes. comparisons: those possible. blame: a cause of failures other than a stage."""

    cell: ProbeSet
    comparisons: Sequence[Comparison]
    refused: Sequence[Unsupported]
    blame: Blame = None
    severity: float | None = None
    """The largest total variation on ordinary rows, None where nothing fails or nothing ordinary was answered."""

    @property
    def failing(self) -> list[Comparison]:
        return [comparison for comparison in self.comparisons if comparison.wrong.any()]

    @property
    def outcome(self) -> Outcome:
        """Failed if scores are wrong, errored if there are none, skipped if the engine supports no probe."""
        if not self.comparisons:
            return "skipped"
        if any(not comparison.failure for comparison in self.failing):
            return "failed"
        return "errored" if self.failing else "passed"

    def finding(self, stage: str) -> Finding:
        """The cell's verdict; stage: the one to name."""
        if not self.comparisons:
            return Finding.skipped("process", stage, self.refused[0])
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
            severity = in_words(self.severity)
            return f"{wrong} of {rows} rows are wrong; {shown.describe(row)}{severity and f'; {severity}'}"
        grey = sum(int((one.expected.must != one.expected.may).any(axis=-1).sum()) for one in self.comparisons)
        refused = f"; not tested: {self.refused[0].message}" if self.refused else ""
        if any(one.probe.name.endswith(NOT_EMPTY) for one in self.comparisons):
            refused += "; without empty histories, which it refuses"
        left_out = f"; without {', '.join(self.left_out)}, which it lacks" if self.left_out else ""
        tied = [one for one in self.comparisons if one.at_ties.any()]
        if tied:
            count, row = sum(int(one.at_ties.sum()) for one in tied), int(np.argmax(tied[0].at_ties))
            what = f"{AT_TIES}: {count} of {rows} rows differ, and only at exact ties or an exact mass, which"
            return f"{what} fails under --strict alone: {tied[0].describe(row)}{left_out}{refused}"
        return f"{rows} rows equal the reference ({grey} with a grey zone){left_out}{refused}"

    @property
    def at_ties(self) -> "ProbeResult":
        """The result as under --strict, with only the probes in which rows differ at ties and nowhere else."""
        right = [one for one in self.comparisons if not one.failure and not one.wrong.any()]
        tied = any(one.at_ties.any() for one in right)
        return replace(self, comparisons=[replace(one, tied=None) for one in right] if tied else ())

    @property
    def left_out(self) -> list[Stage]:
        """Stages of the cell that were off in the probes because the engine lacks them."""
        tested = {stage for one in self.comparisons for stage in one.probe.config.active_stages()}
        wanted = {stage for probe in self.cell.probes for stage in probe.config.active_stages()}
        return [stage for stage in STAGES if stage in wanted - tested]


def _worst(comparison: Comparison) -> float:
    """Largest total variation; over whole rows where the kept tokens differ."""
    return float(np.where(comparison.wrong, _severity(comparison), comparison.variation).max())


def _severity(comparison: Comparison) -> Array:
    return np.ones(len(comparison.probe.logits)) if comparison.failure else comparison.total


def ask_cell(judge: Judge, cell: ProbeSet) -> ProbeResult:
    """Send the probes of a cell, without those the engine does not support.

    A config that ended its process or hung is not sent again, and two of them end the cell.
    """
    comparisons: list[Comparison] = []
    refused: list[Unsupported] = []
    broken: set[SamplingConfig] = set()
    for probe in cell.probes:
        try:
            config = judge.asked(probe.config)
            if config in broken:
                continue
            comparison = judge.compare(probe if config == probe.config else probe.with_config(config))
        except Unsupported as error:
            refused.append(error)
            continue
        comparisons += _answered_rows(judge, comparison, comparisons)
        if comparison.answer.failure in ("hung", "died"):
            broken.add(config)
        if len(broken) > 1:
            judge.broken.update(cell.stages if len(cell.stages) == 1 and _none_answered(comparisons) else ())
            break
    if not judge.strict:
        comparisons = [without_ties(judge, one) for one in comparisons]
    failing = [one for one in comparisons if one.wrong.any()]
    severity = measured(judge, cell, failing) if failing else None
    result = ProbeResult(cell, comparisons, refused, severity=severity)
    wrong = next((one for one in result.failing if not one.failure), None)
    return result if wrong is None else replace(result, blame=judge.blame(wrong))


def _none_answered(comparisons: Sequence[Comparison]) -> bool:
    return all(one.answer.failure in ("hung", "died") for one in comparisons)


def _answered_rows(judge: Judge, comparison: Comparison, before: Sequence[Comparison]) -> list[Comparison]:
    """The comparison; where it raised, also one of its other rows without an empty history, or of each row alone."""
    if comparison.answer.failure != "raised":
        return [comparison]
    filled = comparison.probe.with_filled_histories()
    found = [comparison]
    if filled is not None:
        found.append(judge.compare(filled))
        if not found[-1].failure:  # it refuses an empty history where this stage is on, which is not asked then
            return found[-1:]
    count = len(comparison.probe.logits)
    hopeless = sum(one.answer.failure == "raised" and len(one.probe.logits) > 1 for one in before)
    if not found[-1].failure or count == 1 or hopeless >= MOST_SPLIT:
        return found
    alone = [judge.compare(comparison.probe.only([row])) for row in range(count)]
    raised = sum(bool(one.failure) for one in alone)
    return alone if 0 < raised < count else found
