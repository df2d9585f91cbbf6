"""Runs of a matrix in this process and without a folder: one cell of it, or all of it."""

from dataclasses import dataclass, field

from sampler.checks.verdict import Verdict
from sampler.run.events import CaseResult, CellStarted, Event, Judged, Progress
from sampler.run.session import Session
from sampler.run.suite import find_group, ignore_event, run_suite, suite_of


def result_of(session: Session, cell: str) -> CaseResult:
    """The result of one cell, or of one group of cells."""
    suite = suite_of(session)
    return suite.result(find_group(suite, cell), ignore_event)


def verdicts_of(session: Session, cell: str) -> dict[str, Verdict]:
    """The verdicts of one cell, by check."""
    return {verdict.check: verdict for verdict in result_of(session, cell).verdicts}


@dataclass
class Seen:
    """A sink that keeps what it is given."""

    results: list[CaseResult] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    finished: int = 0

    def take(self, event: Event) -> None:
        match event:
            case Judged(result):
                self.results.append(result)
            case CellStarted(cell):
                self.cells.append(cell)
            case Progress(_, finished):
                self.finished += finished

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {verdict.case: verdict for result in self.results for verdict in result.verdicts}


def run_all(session: Session, jobs: int = 1) -> Seen:
    suite, seen = suite_of(session), Seen()
    suite.prepare(jobs)
    run_suite(suite, [seen], jobs)
    return seen
