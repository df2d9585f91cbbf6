"""The command `sampler check`; SciPy's statistics are imported where they are needed."""

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampler.cli.options import CheckSeed, Memory, Rate, Strict, Timeout, check_numbers
from sampler.errors import ConfigError
from sampler.runtime.text import SHORT, visible

if TYPE_CHECKING:
    from rich.console import Console

    from sampler.engines.base import Level
    from sampler.run.report import Report


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
    seed: CheckSeed = 0,
    false_alarm_rate: Rate = 1e-6,
    timeout: Timeout = None,
    memory: Memory = None,
    *,
    strict: Strict = False,
) -> int:
    """Run every check on an engine, or on the tokens that one wrote, and name the stage that is wrong."""
    if engine.endswith(".jsonl"):
        check_numbers(false_alarm_rate, tolerance, seed)
        return _check_tokens(Path(engine), against, level, tolerance, json, false_alarm_rate)
    from sampler.engines.isolation import Isolated
    from sampler.engines.limits import Limits
    from sampler.engines.registry import load_known
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.results.report.console import plain_console
    from sampler.run.conformance import ConformanceRun

    levels = _levels(level)
    check_numbers(false_alarm_rate, tolerance, seed)
    if against is not None:
        hint = "it goes with a file of token runs; levels process and draw have the reference"
        raise ConfigError(f"--against {against} is not possible for an engine yet", hint=hint)
    console = plain_console()
    with check_report.written_at_the_end(json) as write:
        client = Isolated(functools.partial(load_known, engine), Limits(timeout, memory))
        try:
            info = client.offer.info
            console.print(
                f"{visible(info.name, SHORT)} {visible(info.version, SHORT)} "
                f"({visible(info.device, SHORT)}, {visible(info.dtype, SHORT)}), seed {seed}, "
                f"at most {false_alarm_rate:g} false alarms in all checks together"
            )
            start = time.perf_counter()
            examination = ConformanceRun(client, engine, levels, seed, false_alarm_rate, tolerance, strict=strict)
            with terminal.check_progress(console) as progress:
                report = examination.run(progress)
        finally:
            client.close()
        write(report.as_json())
    return _show(console, report, time.perf_counter() - start, json)


def _check_tokens(
    path: Path, against: str | None, level: str | None, tolerance: float, json: Path | None, rate: float
) -> int:
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.results.report.console import plain_console
    from sampler.run.tokens import TokenFileRun

    if level not in (None, "generate"):
        raise ConfigError(f"--level {level} is not for token runs", hint="they are judged at level generate")
    if tolerance:
        raise ConfigError(f"--tolerance {tolerance} is not for token runs", hint="leave it out")
    console = plain_console()
    examination = TokenFileRun(path, against, rate)
    runs, reference = examination.read()
    with check_report.written_at_the_end(json) as write:
        for line in check_report.token_header(str(path), runs, against, reference, rate):
            console.print(line)
        start = time.perf_counter()
        with terminal.check_progress(console) as progress:
            report = examination.run(runs, reference, progress)
        write(report.as_json())
    return _show(console, report, time.perf_counter() - start, json, answers=True)


def _show(console: "Console", report: "Report", seconds: float, json: Path | None, *, answers: bool = False) -> int:
    from sampler.checks.verdict import exit_code
    from sampler.results.report import conformance as check_report

    console.print(check_report.table(report.verdicts))
    for line in check_report.lines(report.verdicts, report.diagnosis, report.info.dialect):
        console.print(line)
    if answers:
        for line in check_report.answers(report.verdicts):
            console.print(line)
    console.print(
        f"{visible(report.info.name, SHORT)} {report.outcome}; {len(report.verdicts)} verdicts in {seconds:.1f} s"
    )
    if json is not None:
        console.print(f"written to {json}")
    return exit_code(report.outcome)


def _levels(level: str | None) -> "tuple[Level, ...]":
    from sampler.run.conformance import LEVELS

    if level is None:
        return LEVELS
    found = next((each for each in LEVELS if each == level), None)
    if found is None:
        raise ConfigError(f"--level {level!r} is no level", hint=f"levels: {', '.join(LEVELS)}")
    return (found,)
