"""Blocks of a long-form matrix generated in processes of their own: MLX computes a CPU stream on one thread.

A block is a function of the matrix, so that it comes out the same in whatever process.
"""

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from sampler.checks.verdict import Finding
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import Case, load_matrix
from sampler.run.blocks import blocks_of
from sampler.run.cells import CellRuns, Cells
from sampler.run.references import References
from sampler.run.session import Session

Asked = tuple[Path, int, str | None, Path | None]


@functools.cache
def _cells(asked: Asked) -> Cells:
    path, seed, engine_name, weights = asked
    session = Session(load_matrix(path), seed, engine_name, weights)
    engine = session.engine
    core = engine.generator.checkpoint.checksum if isinstance(engine, CoreEngine) else None
    return Cells(session, References(session.matrix, core))


def _generate(asked: Asked, names: Sequence[str]) -> dict[str, CellRuns]:
    """In a worker: a block without its requests, whose noise the caller makes anew."""
    cells = _cells(asked)
    cases = [case for case in cells.session.matrix.cases if case.cell in names]
    cells.generate_block(cases)
    return {case.cell: replace(cells.runs_of(case), requests=()) for case in cases}


def generate_blocks(session: Session, jobs: int) -> Iterator[dict[str, CellRuns]]:
    """All cells, block by block as they come out of `jobs` processes. A process that dies is its cells' error."""
    asked = (session.matrix.path.resolve(), session.seed, session.engine_name, session.weights)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[dict[str, CellRuns]], tuple[Case, ...]] = {
            pool.submit(_generate, asked, [case.cell for case in block]): block
            for block in blocks_of(session.matrix.cases)
        }
        for done in as_completed(waiting):
            block, error = waiting[done], done.exception()
            if error is None:
                made = done.result()
                yield {case.cell: replace(made[case.cell], requests=tuple(session.requests(case))) for case in block}
            else:
                message = f"{type(error).__name__}: {error}"
                problem = Finding("generate", "draw", "errored", 0, message)
                yield {case.cell: CellRuns(problem=problem) for case in block}
