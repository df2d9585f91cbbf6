"""The commands `sampler weights ...`: folders of weights."""

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from sampler.cli.errors import shows_errors
from sampler.results.report.console import plain_console
from sampler.runtime.files import write_whole
from sampler.runtime.text import LONG, visible

weights = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Look into a folder of weights.")


@weights.callback()
def group() -> None:
    """Look into a folder of weights."""


@weights.command(epilog="Example: `sampler weights info ~/chatterbox`, or `sampler weights info DIR --json -`")
@shows_errors
def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder as `--weights` takes it, or a file in it.")],
    json: Annotated[Path | None, typer.Option("--json", help="File for the same as JSON; `-` is stdout.")] = None,
) -> int:
    """Say what a folder of weights is and what of it would be used; 2 if a run could not use it."""
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
