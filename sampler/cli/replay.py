"""The command `sampler replay`: one verdict again."""

from pathlib import Path
from typing import Annotated

import typer

from sampler.checks.verdict import exit_code, overall
from sampler.cli.options import (
    Detect,
    EngineName,
    LimitLooping,
    LimitMissing,
    Memory,
    Strict,
    Timeout,
    Weights,
    check_limits,
    check_numbers,
)
from sampler.engines.limits import Limits
from sampler.errors import ConfigError
from sampler.results.report import terminal
from sampler.results.report.console import plain_console
from sampler.run.replay import LEVELS, replay_case, replay_check, replay_crash
from sampler.runtime import blas
from sampler.runtime.text import LONG, SHORT, visible


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
    against: Annotated[str | None, typer.Option("--against", help="The engine that the check compared with.")] = None,
    timeout: Timeout = None,
    memory: Memory = None,
    limit_looping: LimitLooping = 0.02,
    limit_missing: LimitMissing = 0.02,
    detect: Detect = 0.2,
    *,
    strict: Strict = False,
) -> int:
    """Show one verdict again, of `sampler run` or of `sampler check`."""
    console, limits = plain_console(), Limits(timeout, memory)
    if threads is not None:
        blas.use_threads(threads)
    if case.endswith(".json"):
        if seed is not None or engine or weights or matrix or threads or limits.options:
            raise ConfigError(f"{case} holds all that is needed", hint="leave the options out")
        crash, verdicts = replay_crash(Path(case))
        console.print(
            f"recorded: {visible(crash['case'], SHORT)} (stage {crash['stage']}): {visible(crash['message'], LONG)}"
        )
    elif case.split("/")[0] in LEVELS and matrix is None:
        if weights:
            raise ConfigError(f"{case} is a case of `sampler check`", hint="leave --weights out")
        check_numbers(false_alarm_rate, tolerance, seed or 0)
        run_limits = check_limits(limit_looping, limit_missing, detect)
        settings = {"rate": false_alarm_rate, "tolerance": tolerance, "strict": strict, "run_limits": run_limits}
        verdicts = replay_check(case, seed or 0, engine, limits, against, **settings)
    else:
        verdicts = replay_case(case, seed or 0, engine, weights, matrix, limits)
    if not case.endswith(".json"):
        console.print(f"engine {engine or 'core'}, BLAS {blas.prepare().name}")
    console.print(terminal.verdict_table(verdicts))
    for verdict in verdicts:
        console.print(f"{verdict.check}: {verdict.outcome} (stage {verdict.stage}): {visible(verdict.message, LONG)}")
    return exit_code(overall(verdicts))
