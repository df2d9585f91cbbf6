"""Generate blocks of a long-form matrix in several processes, since MLX computes a CPU stream on one thread.

A block depends only on the matrix, so it is the same in every process.
"""

import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
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
from sampler.run.groups import alphas_of
from sampler.run.session import Session

Run = tuple[Path, int, str | None, Path | None, Limits]
"""Matrix file, seed, engine, weights and limits."""


@functools.cache
def _cells(path: Path, *session: Any) -> Cells:
    return Cells(Session(load_matrix(path), *session))


def _end_with_the_tool() -> None:
    """In a worker: end it when the tool has ended, however that was; the workers hold each other's pipes open.

    An interrupt from the terminal is for the tool, which then ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tool = multiprocessing.parent_process()
    assert tool is not None  # noqa: S101 - a worker has one

    def wait() -> None:
        multiprocessing.connection.wait([tool.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _generate(run: Run, names: Sequence[str]) -> dict[str, CellRuns]:
    """In a worker: a block, scored, without its requests, whose noise the caller creates again."""
    cells = _cells(*run)
    cases = [case for case in cells.session.matrix.cases if case.cell in names]
    alphas = alphas_of(cells.session.matrix)
    cells.generate_block(cases, ignore_step)
    for case in cases:
        cells.runs_of(case, ignore_step)
    return {case.cell: replace(cells.scored_of(case, alphas[case.cell].get("evidence")), requests=()) for case in cases}


def generate_blocks(session: Session, jobs: int) -> Iterator[dict[str, CellRuns]]:
    """All cells, block by block, from `jobs` processes. If a process dies, its cells are errored."""
    run = (session.matrix.path.resolve(), session.seed, session.engine_name, session.weights, session.limits)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _end_with_the_tool) as pool:
        waiting: dict[Future[dict[str, CellRuns]], tuple[Case, ...]] = {
            pool.submit(_generate, run, [case.cell for case in block]): block
            for block in blocks_of(session.matrix.cases)
        }
        try:
            for done in as_completed(waiting):
                block, error = waiting[done], done.exception()
                if error is None:
                    yield {case.cell: _with_requests(session, case, done.result()[case.cell]) for case in block}
                else:
                    problem = Finding.errored("generate", "draw", error)
                    yield {case.cell: CellRuns(problem=problem) for case in block}
        except BaseException:  # an interrupted run waits for no block
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


def _with_requests(session: Session, case: Case, runs: CellRuns) -> CellRuns:
    return runs if runs.problem else replace(runs, requests=tuple(session.requests(case)))
