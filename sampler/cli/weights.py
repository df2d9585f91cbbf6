"""The commands `sampler weights ...`: folders of weights."""

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from sampler.cli.errors import shows_errors
from sampler.results.report.console import plain_console
from sampler.runtime.files import write_whole
from sampler.runtime.text import LONG, visible

weights = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="What a folder of weights holds.")


@weights.callback()
def group() -> None:
    """What a folder of weights holds."""


@weights.command(epilog="Example: `sampler weights info ~/chatterbox`, or `sampler weights info DIR --json -`")
@shows_errors
def info(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder that `--weights` would name, or a file in it.")
    ],
    json: Annotated[
        Path | None, typer.Option("--json", help="File for the same facts as JSON; `-` writes them to standard output.")
    ] = None,
) -> int:
    """Say what a folder of weights is and what a run would use of it. The exit code is 2 if no run can use it."""
    from sampler.weights.info import facts_of, lines_of

    facts = facts_of(folder)
    if json is not None and str(json) == "-":
        typer.echo(json_.dumps(facts, indent=1))
        return 0
    if json is not None:
        write_whole(json, json_.dumps(facts, indent=1) + "\n")
    console = plain_console()
    for name, sentence in lines_of(facts):
        console.print(f"{name:10} {visible(sentence, LONG)}", soft_wrap=True)
    return 0
