"""The command `sampler check`; SciPy's statistics are imported where they are needed."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sampler.cli.options import (
    CheckSeed,
    Detect,
    Fixes,
    LimitLooping,
    LimitMissing,
    Memory,
    Rate,
    Strict,
    Timeout,
    check_limits,
    check_numbers,
)
from sampler.errors import ConfigError
from sampler.runtime.text import LONG, SHORT, visible

if TYPE_CHECKING:
    from rich.console import Console

    from sampler.checks.scoring.tolerance import Tolerance
    from sampler.engines.base import EngineInfo, Level
    from sampler.run.report import Report
    from sampler.run.scoring import Bounds
    from sampler.run.tokens import TokenFileRun


def check(
    engine: Annotated[
        str,
        typer.Argument(
            help="A known engine, `package.module:factory` or `file.py:factory`; or a log of token runs, - for stdin."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Another engine, to compare at predict and generate; for token runs, the file of the reference runs, "
            "or the model that made them: core, a folder of weights or a file in it, or an engine with predict().",
        ),
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
    limit_looping: LimitLooping = 0.02,
    limit_missing: LimitMissing = 0.02,
    detect: Detect = 0.2,
    runs: Annotated[int | None, typer.Option("--runs", help="Of token runs, score so many at most.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Score token runs for so long at most.")] = None,
    fix: Fixes = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="Of what wrote token runs: float32, float16 or bfloat16 [default: float32]."),
    ] = None,
    *,
    strict: Strict = False,
) -> int:
    """Run every check on an engine, or on the tokens that one wrote, and name the stage that is wrong."""
    from sampler.results.store.logs.opened import is_log
    from sampler.run.token_log import fixes_of
    from sampler.run.tokens import TokenFileRun

    check_numbers(false_alarm_rate, tolerance, seed)
    run_limits = check_limits(limit_looping, limit_missing, detect)
    if is_log(engine):
        bounds, allowed = _bounds(against, runs, minutes), _precision(against, precision)
        _check_token_options(level, tolerance)
        given = (Path(engine), against, fixes_of(fix), false_alarm_rate, run_limits, bounds, allowed)
        return _check_tokens(TokenFileRun(*given), json)
    if fix:
        raise ConfigError(f"--fix {fix} without a log", hint="it puts logs of token runs right")
    _bounds(None, runs, minutes)
    _precision(None, precision)
    levels = _levels(level)
    _check_against(against, levels)
    settings = {"levels": levels, "seed": seed, "rate": false_alarm_rate, "tolerance": tolerance, "strict": strict}
    return _check_engine(engine, against, json, timeout, memory, run_limits=run_limits, **settings)


def _check_engine(
    engine: str, against: str | None, json: Path | None, timeout: float | None, memory: float | None, **settings: Any
) -> int:
    from sampler.engines.limits import Limits
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.results.report.console import plain_console
    from sampler.run.conformance import check_engine

    console, limits = plain_console(), Limits(timeout, memory)
    with (
        check_report.written_at_the_end(json) as write,
        check_engine(engine, against, limits, **settings) as examination,
    ):
        alarms = f"at most {examination.rate:g} false alarms in all checks together"
        console.print(f"{_named(examination.info)}, seed {examination.seed}, {alarms}")
        if examination.against is not None:
            console.print(f"compared with {_named(examination.against[0].offer.info)}")
        start = time.perf_counter()
        with terminal.check_progress(console) as progress:
            report = examination.run(progress)
        write(report.as_json())
    return _show(console, report, time.perf_counter() - start, json)


def _named(info: "EngineInfo") -> str:
    """Name, version, device and precision of an engine."""
    name, version, device, dtype = (visible(text, SHORT) for text in (info.name, info.version, info.device, info.dtype))
    return f"{name} {version} ({device}, {dtype})"


def _check_against(against: str | None, levels: "tuple[Level, ...]") -> None:
    """Raise ConfigError where an engine cannot be compared as the user wants."""
    if against is None:
        return
    from sampler.results.store.logs.opened import is_log

    if is_log(against):
        raise ConfigError(f"--against {against} is a file of token runs", hint="compare an engine with an engine")
    if not {"predict", "generate"} & set(levels):
        hint = "engines are compared at predict and generate; process and draw have the reference"
        raise ConfigError(f"--against is not for --level {levels[0]}", hint=hint)


def _bounds(against: str | None, runs: int | None, minutes: float | None) -> "Bounds":
    """The bounds of scoring. Raises ConfigError where nothing is scored, or for a bound out of range."""
    from sampler.run.scoring import Bounds, is_model

    for name, value in (("--runs", runs), ("--minutes", minutes)):
        if value is not None and (against is None or not is_model(against)):
            hint = "it bounds the scoring of token runs under a model: sampler check TOKENS.jsonl --against core"
            raise ConfigError(f"{name} {value:g} without a model", hint=hint)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} {value:g}", hint="expected more than 0")
    return Bounds(runs, minutes)


def _precision(against: str | None, name: str | None) -> "Tolerance":
    """The precision class of scoring. Raises ConfigError for an unknown one, or where nothing is scored."""
    from sampler.checks.scoring.tolerance import SINGLE, TOLERANCES
    from sampler.run.scoring import is_model

    if name is None:
        return SINGLE
    if name not in TOLERANCES:
        raise ConfigError(f"--precision {name!r} is no precision", hint=f"precisions: {', '.join(TOLERANCES)}")
    if against is None or not is_model(against):
        hint = "it is that of the engine that wrote token runs: sampler check TOKENS.jsonl --against core"
        raise ConfigError(f"--precision {name} without a model", hint=hint)
    return TOLERANCES[name]


def _check_token_options(level: str | None, tolerance: float) -> None:
    if level not in (None, "generate"):
        raise ConfigError(f"--level {level} is not for token runs", hint="they are judged at level generate")
    if tolerance:
        raise ConfigError(f"--tolerance {tolerance} is not for token runs", hint="leave it out")


def _check_tokens(examination: "TokenFileRun", json: Path | None) -> int:
    from sampler.results.report import conformance as check_report
    from sampler.results.report import terminal
    from sampler.results.report.console import plain_console

    console, path, against, rate = plain_console(), examination.path, examination.against, examination.rate
    runs, reference = examination.read()
    with check_report.written_at_the_end(json) as write:
        scored = None if examination.model is None else _named(examination.model.info)
        for line in check_report.token_header(str(path), runs, against, reference, rate, scored):
            console.print(line)
        if examination.weights:
            console.print(f"weights {visible(examination.weights, LONG)}")
        for line in check_report.log_notes(examination.log.notes, examination.put_right.fixed):
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
    for line in check_report.lines(report.verdicts, report.diagnosis, report.meanings):
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
