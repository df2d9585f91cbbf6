"""Cells of a long-form matrix generated in processes of their own: MLX computes a CPU stream on one thread.

A cell is a block of its own, so that it comes out the same in whatever process.
"""

import functools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from sampler.checks.base import Finding
from sampler.longform import CellRuns, LongFormRun
from sampler.matrix import load_matrix
from sampler.run import Session

Asked = tuple[Path, int, str | None, Path | None]


@functools.cache
def _longform(asked: Asked) -> LongFormRun:
    path, seed, engine_name, weights = asked
    return LongFormRun(Session(load_matrix(path), seed, engine_name, weights))


def _generate(asked: Asked, cell: str) -> CellRuns:
    """In a worker: the cell without its requests, whose noise the caller makes anew."""
    longform = _longform(asked)
    case = next(each for each in longform.matrix.cases if each.cell == cell)
    return replace(longform.generate(case), requests=())


def generate_cells(session: Session, jobs: int) -> Iterator[tuple[str, CellRuns]]:
    """All cells as they come out of `jobs` processes. A process that dies is the cell's error."""
    asked = (session.matrix.path.resolve(), session.seed, session.engine_name, session.weights)
    cases = {case.cell: case for case in session.matrix.cases}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[CellRuns], str] = {pool.submit(_generate, asked, cell): cell for cell in cases}
        for done in as_completed(waiting):
            cell = waiting[done]
            error = done.exception()
            if error is None:
                yield cell, replace(done.result(), requests=tuple(session.requests(cases[cell])))
            else:
                message = f"{type(error).__name__}: {error}"
                yield cell, CellRuns(problem=Finding("generate", "draw", "errored", 0, message))
