"""Suites: what turns a matrix and an engine into verdicts; one runner for all of them, with sinks for its events."""

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
    """A matrix and an engine under some checks. groups: what has verdicts of its own: a cell, or cells together."""

    session: Session

    @property
    def groups(self) -> Sequence[Group]:
        """In the order in which they are judged."""
        ...

    @property
    def checks(self) -> Mapping[str, str]:
        """By the name of a check what it asks, as a sentence."""
        ...

    @property
    def expected_requests(self) -> int:
        """How many requests a run will have served, those that are repeated among them."""
        ...

    def prepare(self, jobs: int = 1) -> None:
        """Load everything and look at every request, so that what is wrong shows before the first cell."""
        ...

    def together(self, group: Group) -> Sequence[Group]:
        """The groups whose cells are generated at once with those of a group, itself among them."""
        ...

    def generate(self, groups: Sequence[Group], emit: Emit) -> None:
        """Generate the cells of some groups that are generated together; what fails is left to `result`."""
        ...

    def result(self, group: Group, emit: Emit) -> CaseResult:
        """The verdicts of one group; what it needs and was not generated yet is generated."""
        ...

    def results(self, emit: Emit, jobs: int = 1) -> None:
        """Emit what happens in a run of all groups. jobs: processes that generate, where the engine allows it."""
        ...


def suite_of(session: Session) -> Suite:
    """The suite that a matrix asks for; that of long form loads SciPy's distributions, which takes a second."""
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
    """Nobody wants to know."""


def run_suite(suite: Suite, sinks: Sequence[Sink], jobs: int = 1) -> list[Verdict]:
    """Run all groups of a suite that is prepared; every sink takes every event. Returns the verdicts."""
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
