"""Suites turn a matrix and an engine into verdicts; one runner for all of them, with sinks for its events."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from sampler.checks.verdict import Verdict
from sampler.errors import MatrixError
from sampler.matrix.matrix import Group
from sampler.run.events import CaseResult, Emit, Event, Finished, Judged, Sink, Started
from sampler.run.header import header
from sampler.run.session import Session


class Suite(Protocol):
    """A matrix, an engine and their checks. groups: cells or groups of cells with verdicts."""

    session: Session

    @property
    def groups(self) -> Sequence[Group]: ...  # in the order in which they are judged

    @property
    def checks(self) -> Mapping[str, str]:
        """What each check tests, as a sentence, by its name."""

    @property
    def expected_requests(self) -> int:
        """The number of requests in a run, repeated ones included."""

    def prepare(self, jobs: int = 1) -> None:
        """Load everything and validate every request, so that errors show before the first cell."""

    def together(self, group: Group) -> Sequence[Group]:
        """The groups whose cells are generated together with those of a group, including itself."""

    def generate(self, groups: Sequence[Group], emit: Emit) -> None:
        """Generate the cells of some groups together; failures are left to `result`."""

    def result(self, group: Group, emit: Emit) -> CaseResult:
        """The verdicts of one group; generates what is still missing."""

    def results(self, emit: Emit, jobs: int = 1) -> None:
        """Emit the events of a run of all groups. jobs: number of generating processes, if the engine allows it."""


def suite_of(session: Session) -> Suite:
    """The suite of a matrix; the long-form one is imported on demand, since SciPy's distributions take a second."""
    if session.matrix.longform is not None:
        from sampler.run.longform import LongformSuite

        return LongformSuite(session)
    from sampler.run.steps import StepSuite

    return StepSuite(session)


def find_group(suite: Suite, name: str) -> Group:
    """A group by its name. Raises MatrixError."""
    found = next((group for group in suite.groups if group.name == name), None)
    if found is None:
        path, first = suite.session.matrix.path, suite.session.matrix.cases[0].cell
        raise MatrixError(f"{path} has no cell {name!r}", hint=f"the first one is {first!r}")
    return found


def ignore_event(event: Event) -> None:
    """Ignore the events of a run."""


def run_suite(suite: Suite, sinks: Sequence[Sink], jobs: int = 1) -> list[Verdict]:
    """Run all groups of a prepared suite; every sink takes every event. Returns the verdicts."""
    verdicts: list[Verdict] = []
    tokens, start = 0, time.perf_counter()

    def emit(event: Event) -> None:
        nonlocal tokens
        if isinstance(event, Judged):
            verdicts.extend(event.result.verdicts)
            tokens += event.result.tokens
        for sink in sinks:
            sink.take(event)

    emit(Started(header(suite.session, suite.checks), suite.expected_requests))
    suite.results(emit, jobs)
    emit(Finished(verdicts, tokens, time.perf_counter() - start))
    return verdicts
