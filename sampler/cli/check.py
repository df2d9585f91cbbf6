"""The commands `sampler check` and `sampler plan`; SciPy's statistics are imported where they are needed."""

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampler.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from sampler.engines.base import Level
    from sampler.run.conformance import Report

Rate = Annotated[
    float, typer.Option("--false-alarm-rate", help="How often all checks together may accuse a right engine.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the inputs and of the draws.")]


def check(
    engine: Annotated[
        str,
        typer.Argument(
            help="A known engine, `package.module:factory` or `file.py:factory`; or a file of token runs (.jsonl)."
        ),
    ],
    against: Annotated[
        str | None, typer.Option("--against", help="For a file of token runs: the file of the reference runs.")
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", help="process, draw, predict or generate [default: all].")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Total variation that is allowed beyond rounding, 0 to 1.")
    ] = 0.0,
    json: Annotated[Path | None, typer.Option("--json", help="File for the report.")] = None,
    seed: Seed = 0,
    false_alarm_rate: Rate = 1e-6,
) -> int:
    """Put an engine, or the tokens that one wrote, under every check and say which stage is wrong."""
    if engine.endswith(".jsonl"):
        check_numbers(false_alarm_rate, tolerance, seed)
        return _check_tokens(Path(engine), against, level, tolerance, json, false_alarm_rate)
    from sampler.engines.isolation import Isolated
    from sampler.engines.registry import load_known
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.run.conformance import ConformanceRun

    levels = _levels(level)
    check_numbers(false_alarm_rate, tolerance, seed)
    if against is not None:
        hint = "it goes with a file of token runs; levels process and draw have the reference"
        raise ConfigError(f"--against {against} is not possible for an engine yet", hint=hint)
    console = terminal.plain_console()
    with check_report.written_at_the_end(json) as write:
        client = Isolated(functools.partial(load_known, engine))
        try:
            info = client.offer.info
            console.print(
                f"{info.name} {info.version} ({info.device}, {info.dtype}), seed {seed}, "
                f"at most {false_alarm_rate:g} false alarms in all checks together"
            )
            start = time.perf_counter()
            examination = ConformanceRun(client, engine, levels, seed, false_alarm_rate, tolerance)
            with terminal.check_progress(console) as progress:
                report = examination.run(progress)
        finally:
            client.close()
        write(report.as_json())
    _show(console, report, time.perf_counter() - start)
    if json is not None:
        console.print(f"written to {json}")
    return report.exit_code


def _check_tokens(
    path: Path, against: str | None, level: str | None, tolerance: float, json: Path | None, rate: float
) -> int:
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.run.tokens import TokenFileRun

    if level not in (None, "generate"):
        raise ConfigError(f"--level {level} is not for token runs", hint="they are judged at level generate")
    if tolerance:
        raise ConfigError(f"--tolerance {tolerance} is not for token runs", hint="leave it out")
    console = terminal.plain_console()
    examination = TokenFileRun(path, against, rate)
    runs, reference = examination.read()
    with check_report.written_at_the_end(json) as write:
        for line in check_report.token_header(str(path), runs, against, reference, rate):
            console.print(line)
        start = time.perf_counter()
        with terminal.check_progress(console) as progress:
            report = examination.run(runs, reference, progress)
        write(report.as_json())
    _show(console, report, time.perf_counter() - start, answers=True)
    if json is not None:
        console.print(f"written to {json}")
    return report.exit_code


def _show(console: "Console", report: "Report", seconds: float, *, answers: bool = False) -> None:
    from sampler.results.report import conformance as check_report

    console.print(check_report.table(report.verdicts))
    for line in check_report.lines(report.verdicts, report.diagnosis, report.info.dialect):
        console.print(line)
    if answers:
        for line in check_report.answers(report.verdicts):
            console.print(line)
    console.print(f"{report.info.name} {report.outcome}; {len(report.verdicts)} verdicts in {seconds:.1f} s")


def _levels(level: str | None) -> "tuple[Level, ...]":
    from sampler.run.conformance import LEVELS

    if level is None:
        return LEVELS
    found = next((each for each in LEVELS if each == level), None)
    if found is None:
        raise ConfigError(f"--level {level!r} is no level", hint=f"levels: {', '.join(LEVELS)}")
    return (found,)


def check_numbers(rate: float, tolerance: float, seed: int) -> None:
    """Raise ConfigError for an option of `sampler check` that is out of range."""
    from sampler.statistics.judgement import checked_rate

    try:
        checked_rate("--false-alarm-rate", rate)
    except ValueError as error:
        raise ConfigError(str(error), hint="1e-6 is the default") from error
    if not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance {tolerance} is no total variation", hint="expected a number from 0 to 1")
    if seed < 0:
        raise ConfigError(f"--seed {seed} is negative", hint="expected 0 or more")


def plan(
    matrix: Annotated[
        str | None, typer.Argument(help="A shipped matrix or a .toml file [default: the plan of `sampler check`].")
    ] = None,
    texts: Annotated[
        int | None, typer.Option("--texts", help="For a file of token runs: how many texts it will have.", min=1)
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", help="Runs of each text, on either side.", min=1)] = None,
    seed: Seed = 0,
    false_alarm_rate: Rate = 1e-6,
) -> int:
    """Print what will be asked, how often, and what it can see, before anything runs."""
    from sampler.checks.conformance.draw.plan import DrawPlan
    from sampler.matrix.matrix import find_matrix, load_matrix
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.run.conformance import detectable
    from sampler.run.plan import prospects

    console = terminal.plain_console()
    if texts is not None or runs is not None:
        check_numbers(false_alarm_rate, 0.0, seed)
        return _plan_tokens(console, matrix, texts, runs, false_alarm_rate)
    if matrix is not None:
        loaded = load_matrix(find_matrix(matrix))
        console.print(
            check_report.longform_plan(prospects(loaded)) if loaded.longform else check_report.matrix_plan(loaded)
        )
        return 0
    check_numbers(false_alarm_rate, 0.0, seed)
    made = DrawPlan(seed, false_alarm_rate)
    console.print(check_report.draw_plan(made, functools.partial(detectable, made)))
    console.print(check_report.draw_plan_total(made))
    return 0


def _plan_tokens(console: "Console", matrix: str | None, texts: int | None, runs: int | None, rate: float) -> int:
    from sampler.checks.longform.power import announced
    from sampler.results.report import conformance as check_report

    if matrix is not None or texts is None or runs is None:
        given = f"--texts {texts} --runs {runs}" + (f" with the matrix {matrix}" if matrix else "")
        raise ConfigError(given, hint="a plan of token runs needs both numbers, and no matrix")
    found = announced(texts, runs, rate)
    console.print(check_report.token_plan(found.values()))
    for line in check_report.token_plan_notes(found.values(), texts, runs, rate):
        console.print(line)
    return 0
