"""The command line: thin commands over `sampler.run.session`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from sampler.checks.verdict import Step, Verdict
from sampler.cli.check import check, check_numbers, plan
from sampler.cli.errors import shows_errors
from sampler.cli.report import report, show_report
from sampler.cli.say import say
from sampler.cli.trace import trace
from sampler.errors import ConfigError
from sampler.matrix.matrix import find_matrix, load_matrix, shipped_matrices
from sampler.results.report import terminal
from sampler.results.store.crash import remove_crashes, write_crashes
from sampler.results.store.run_file import write_run
from sampler.run import header as run_file
from sampler.run.recorder import about, recorded_run
from sampler.run.replay import LEVELS, replay_case, replay_check, replay_crash
from sampler.run.session import Session
from sampler.run.suite import expected_requests, run_matrix
from sampler.runtime import blas
from sampler.runtime.doctor import diagnose
from sampler.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
Seed = Annotated[int, typer.Option("--seed", help="Seed of the run; a nightly run takes its run number.")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Engine: core, `package.module:factory` or `file.py:factory`.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Folder with upstream's own files, or the weights file in it.")
]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(f"sampler {__version__}")
        raise typer.Exit


@app.callback()
def sampler(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Stochastic-sampling and long-form regression checks for autoregressive token generators."""


@app.command(epilog="Example: `sampler run stochastic --seed 7 --out runs/seven`")
@shows_errors
def run(
    matrix: Annotated[str, typer.Argument(help="A shipped matrix or a .toml file.")] = "stochastic",
    engine: EngineName = None,
    weights: Weights = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for run.jsonl [default: runs/MATRIX].")] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", help="Processes that generate the cells of a long-form matrix.", min=1)
    ] = 1,
) -> int:
    """Run a matrix: generate every cell and check what came out."""
    console = terminal.plain_console()
    session = Session(load_matrix(find_matrix(matrix)), seed, engine, weights)
    folder = out or Path("runs") / session.matrix.name
    session.prepare(jobs)
    header = run_file.header(session) | about(session)
    console.print(f"{session.matrix.name}: {session.matrix.why}")
    name = header["engine"]["name"]
    console.print(
        f"engine {f'{engine} ({name})' if engine else name}, seed {seed}, BLAS {header['blas']}, {header['oracle']}"
    )
    verdicts: list[Verdict] = []
    crashes: list[tuple[Verdict, Step]] = []
    tokens, start = 0, time.perf_counter()
    with (
        write_run(folder, header) as writer,
        recorded_run(session, folder) as recorder,
        terminal.run_progress(console, expected_requests(session)) as progress,
    ):
        for result in run_matrix(session, progress.step, progress.cell, jobs):
            tokens += result.tokens
            verdicts.extend(result.verdicts)
            crashes.extend(
                (verdict, result.steps[verdict.check]) for verdict in result.verdicts if verdict.check in result.steps
            )
            for verdict in result.verdicts:
                writer.verdict(verdict)
            recorder.add(result)
        seconds = time.perf_counter() - start
        files = write_crashes(folder, crashes)
        writer.write("footer", run_file.footer(verdicts, tokens, seconds) | recorder.finish(files))
    removed = remove_crashes(folder, keep=files.values())
    table = terminal.longform_table if session.matrix.longform else terminal.verdict_table
    console.print(table(verdicts))
    for note in terminal.verdict_notes(verdicts, files):
        console.print(note)
    console.print(terminal.summary_line(verdicts, tokens, seconds))
    console.print(f"written to {folder / 'run.jsonl'}")
    show_report(console, folder)
    if removed:
        console.print(f"removed the crash files of an earlier run: {removed} (--out keeps runs apart)")
    return run_file.exit_code(verdicts)


@app.command(epilog="Example: `sampler replay smoke/temperature:0.8+cfg_weight:0.5/allowed --seed 0`")
@shows_errors
def replay(
    case: Annotated[str, typer.Argument(help="matrix/cell/check, matrix/cell, or a crash file (.json).")],
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the run that failed [default: 0].")] = None,
    engine: EngineName = None,
    weights: Weights = None,
    matrix: Annotated[
        Path | None, typer.Option("--matrix", help="The matrix file, if it is not a shipped one.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="BLAS threads of the run [default: as set here].")
    ] = None,
    false_alarm_rate: Annotated[float, typer.Option("--false-alarm-rate", help="That of the check.")] = 1e-6,
    tolerance: Annotated[float, typer.Option("--tolerance", help="That of the check.")] = 0.0,
) -> int:
    """Show one verdict again, of `sampler run` or of `sampler check`."""
    console = terminal.plain_console()
    if threads is not None:
        blas.use_threads(threads)
    if case.endswith(".json"):
        if seed is not None or engine or weights or matrix or threads:
            raise ConfigError(f"{case} holds all that is needed", hint="leave the options out")
        recorded, verdicts = replay_crash(Path(case))
        console.print(f"recorded: {recorded['case']} (stage {recorded['stage']}): {recorded['message']}")
    elif case.split("/")[0] in LEVELS and matrix is None:
        if weights:
            raise ConfigError(f"{case} is a case of `sampler check`", hint="leave --weights out")
        check_numbers(false_alarm_rate, tolerance, seed or 0)
        verdicts = replay_check(case, seed or 0, engine, false_alarm_rate, tolerance)
    else:
        verdicts = replay_case(case, seed or 0, engine, weights, matrix)
    if not case.endswith(".json"):
        console.print(f"engine {engine or 'core'}, BLAS {blas.prepare().name}")
    console.print(terminal.verdict_table(verdicts))
    for verdict in verdicts:
        console.print(f"{verdict.check}: {verdict.outcome} (stage {verdict.stage}): {verdict.message}")
    return run_file.exit_code(verdicts)


app.command(epilog="Example: `sampler check mlx-lm --level process --json report.json`")(shows_errors(check))
app.command(epilog="Example: `sampler report runs/stochastic`")(shows_errors(report))
app.add_typer(trace, name="trace")
app.command(epilog="Example: `sampler plan stochastic`, or `sampler plan --texts 16 --runs 20`")(shows_errors(plan))
app.command(epilog='Example: `sampler say "Come and see." -o see.wav`')(shows_errors(say))


@app.command("list", epilog="Example: `sampler list smoke`")
@shows_errors
def list_(
    matrix: Annotated[str | None, typer.Argument(help="A matrix whose cells are to be listed.")] = None,
) -> int:
    """List the shipped matrices with their reasons, or the cells of one."""
    console = terminal.plain_console()
    if matrix is not None:
        for case in load_matrix(find_matrix(matrix)).cases:
            console.print(f"{case.id}  {f'{case.variant}: ' if case.variant else ''}{case.config}")
        return 0
    for path in shipped_matrices():
        loaded = load_matrix(path)
        console.print(f"{loaded.name} ({len(loaded.cases)} cells): {loaded.why}")
    return 0


@app.command(epilog="Example: `sampler doctor`")
@shows_errors
def doctor() -> int:
    """Show versions, device, BLAS and speed."""
    console = terminal.plain_console()
    found = diagnose()
    for name, value in found.facts:
        console.print(f"{name:14}{value}")
    console.print(f"{'speed':14}{found.gigaflops:.0f} billion float32 operations a second")
    for hint in found.hints:
        console.print(f"hint: {hint}", style="yellow")
    return 0


def main() -> None:
    """Entry point of the `sampler` command."""
    app()
