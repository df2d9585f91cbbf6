"""The command `sampler plan`: what will be tested and what that detects, before anything runs."""

import functools
from typing import TYPE_CHECKING, Annotated

import typer

from sampler.cli.options import CheckSeed, Rate, check_numbers
from sampler.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


def plan(
    matrix: Annotated[
        str | None, typer.Argument(help="A shipped matrix or a .toml file [default: the plan of `sampler check`].")
    ] = None,
    texts: Annotated[
        int | None, typer.Option("--texts", help="For a file of token runs: how many texts it will have.", min=1)
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", help="Runs of each text, on either side.", min=1)] = None,
    seed: CheckSeed = 0,
    false_alarm_rate: Rate = 1e-6,
) -> int:
    """Print what will be tested, how often, and what that detects, before anything runs."""
    from sampler.checks.conformance.draw.plan import DrawPlan
    from sampler.matrix.matrix import find_matrix, load_matrix
    from sampler.results.report import conformance as check_report
    from sampler.results.report.console import plain_console
    from sampler.run.conformance import detectable
    from sampler.run.plan import duration, pooled_power, prospects, scoring_power
    from sampler.run.report import SHARES

    console = plain_console()
    if texts is not None or runs is not None:
        check_numbers(false_alarm_rate, 0.0, seed)
        return _plan_tokens(console, matrix, texts, runs, false_alarm_rate)
    if matrix is not None:
        loaded = load_matrix(find_matrix(matrix))
        if loaded.longform:
            console.print(check_report.longform_plan(prospects(loaded)))
            console.print(scoring_power(loaded))
        else:
            console.print(check_report.matrix_plan(loaded))
            console.print(pooled_power(loaded))
        console.print(duration(loaded))
        return 0
    check_numbers(false_alarm_rate, 0.0, seed)
    made = DrawPlan(seed, false_alarm_rate * SHARES["draw"])
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
