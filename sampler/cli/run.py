"""The command `sampler run`: a suite, with a folder and a terminal as sinks of its events."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sampler.checks.verdict import exit_code, overall
from sampler.cli.options import EngineName, Memory, RunSeed, Timeout, Weights
from sampler.cli.report import draw_page, show_place
from sampler.engines.capabilities import layout_of
from sampler.engines.limits import Limits
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.results.report import terminal
from sampler.results.report.console import plain_console
from sampler.run.events import CellStarted, Event, Finished, Progress, Started
from sampler.run.recorder import recorded
from sampler.run.session import Session
from sampler.run.suite import run_suite, suite_of
from sampler.runtime import blas
from sampler.runtime.text import LONG, SHORT, visible


class Screen:
    """Shows the progress of a run, and at its end the number of tokens and the time."""

    def __init__(self, progress: terminal.RunProgress) -> None:
        self._progress = progress
        self.summary = ""

    def take(self, event: Event) -> None:
        match event:
            case Started(requests=requests):
                self._progress.start(requests)
            case CellStarted(cell=cell):
                self._progress.cell(cell)
            case Progress(tokens=tokens, finished=finished):
                self._progress.step(tokens, finished)
            case Finished():
                self.summary = terminal.summary_line(event.verdicts, event.tokens, event.seconds)


def run(
    matrix: Annotated[str, typer.Argument(help="A shipped matrix or a .toml file.")] = "stochastic",
    engine: EngineName = None,
    weights: Weights = None,
    seed: RunSeed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for run.jsonl [default: runs/MATRIX].")] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", help="Processes that generate the cells of a long-form matrix.", min=1)
    ] = 1,
    timeout: Timeout = None,
    memory: Memory = None,
) -> int:
    """Run a matrix: generate the tokens of every cell and check them."""
    console = plain_console()
    session = Session(load_matrix(find_matrix(matrix)), seed, engine, weights, Limits(timeout, memory))
    with closing(session):
        return _run(session, out or Path("runs") / session.matrix.name, jobs, console)


def _run(session: Session, folder: Path, jobs: int, console: Console) -> int:
    suite = suite_of(session)
    with recorded(session, folder, draw_page) as recorder:
        suite.prepare(jobs)
        for line in _opening(session):
            console.print(line)
        with terminal.run_progress(console) as progress:
            screen = Screen(progress)
            verdicts = run_suite(suite, [screen, recorder], jobs)
    console.print(terminal.table_of(verdicts))
    for note in (*terminal.limit_lines(verdicts), *terminal.verdict_notes(verdicts, recorder.crashes)):
        console.print(note)
    console.print(screen.summary)
    show_place(console, folder, recorder)
    return exit_code(overall(verdicts))


def _opening(session: Session) -> Iterator[str]:
    """The lines before a run: the reason for the matrix, the engine and what it is compared with."""
    yield f"{session.matrix.name}: {visible(session.matrix.why, LONG)}"
    oracle, missing = session.oracle
    own, given = visible(session.engine.info.name, SHORT), session.engine_name
    name = f"{given} ({own})" if given else own
    compared = oracle.info.version if oracle else missing
    layout = layout_of(session.engine)
    if session.weights and layout:
        yield f"weights {visible(layout, LONG)}"
    yield f"engine {name}, seed {session.seed}, BLAS {blas.prepare().name}, {compared}"
