"""Running a matrix of either kind, cell by cell."""

from collections.abc import Iterator

from sampler.run.blocks import block_of, count
from sampler.run.events import CaseResult
from sampler.run.session import OnCell, OnStep, Session


def run_matrix(session: Session, on_step: OnStep, on_cell: OnCell, jobs: int = 1) -> Iterator[CaseResult]:
    """Run a matrix of either kind; on_cell is told of each cell. jobs: processes, for a long-form matrix."""
    if session.matrix.longform:
        from sampler.run.longform import LongFormRun  # its statistics load SciPy's distributions, which takes a second

        yield from LongFormRun(session, on_step, jobs).results(on_cell)
        return
    for case in session.matrix.cases:
        on_cell(case.cell)
        session.generate_together(block_of(session.matrix.cases, case), on_step)
        yield session.run(case, on_step)


def expected_requests(session: Session) -> int:
    """How many requests a run will have served, those that are repeated among them."""
    if session.matrix.longform:
        from sampler.run.cells import SHARED

        again = SHARED if session.matrix.longform.reference else 0
    else:
        again = 2
    return sum(count(case) + again for case in session.matrix.cases)
