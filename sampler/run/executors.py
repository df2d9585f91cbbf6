"""Generate blocks of a long-form matrix in several processes, since MLX computes a CPU stream on one thread.

A block depends only on the matrix, so it is the same in every process.
"""

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from sampler.checks.verdict import Finding
from sampler.engines.calls import ignore_step
from sampler.engines.limits import Limits
from sampler.matrix.matrix import Case, load_matrix
from sampler.run.blocks import blocks_of
from sampler.run.cells import CellRuns, Cells
from sampler.run.session import Session

Run = tuple[Path, int, str | None, Path | None, Limits]
"""Matrix file, seed, engine, weights and limits."""


@functools.cache
def _cells(path: Path, *session: Any) -> Cells:
    return Cells(Session(load_matrix(path), *session))


def _generate(run: Run, names: Sequence[str]) -> dict[str, CellRuns]:
    """In a worker: a block without its requests, whose noise the caller creates again."""
    cells = _cells(*run)
    cases = [case for case in cells.session.matrix.cases if case.cell in names]
    cells.generate_block(cases, ignore_step)
    return {case.cell: replace(cells.runs_of(case, ignore_step), requests=()) for case in cases}


def generate_blocks(session: Session, jobs: int) -> Iterator[dict[str, CellRuns]]:
    """All cells, block by block, from `jobs` processes. If a process dies, its cells are errored."""
    run = (session.matrix.path.resolve(), session.seed, session.engine_name, session.weights, session.limits)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[dict[str, CellRuns]], tuple[Case, ...]] = {
            pool.submit(_generate, run, [case.cell for case in block]): block
            for block in blocks_of(session.matrix.cases)
        }
        for done in as_completed(waiting):
            block, error = waiting[done], done.exception()
            if error is None:
                runs = done.result()
                yield {case.cell: replace(runs[case.cell], requests=tuple(session.requests(case))) for case in block}
            else:
                problem = Finding.errored("generate", "draw", error)
                yield {case.cell: CellRuns(problem=problem) for case in block}
