"""The commands `sampler tokens ...`: files of token runs."""

from pathlib import Path
from typing import Annotated

import typer

from sampler.cli.errors import shows_errors
from sampler.cli.options import Fixes
from sampler.results.report.console import plain_console
from sampler.runtime.text import LONG, visible

tokens = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Logs of tokens that an engine drew.")


@tokens.callback()
def group() -> None:
    """Logs of tokens that an engine drew."""


@tokens.command(epilog="Example: `sampler tokens convert server.log -o port.jsonl --fix bos --against core`")
@shows_errors
def convert(
    log: Annotated[
        str, typer.Argument(metavar="LOG", help="JSON in any form, or answers of servers; - is standard input.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The TOKENS.jsonl to write.")],
    fix: Fixes = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Reference runs or a model, as for `check`: they say how right runs begin and end."
        ),
    ] = None,
) -> int:
    """Read a log, say what was translated, and write it as TOKENS.jsonl."""
    from sampler.results.report.conformance import log_notes
    from sampler.results.store.logs.reading import write_lines
    from sampler.run.token_log import fixes_of
    from sampler.run.tokens import TokenFileRun

    console = plain_console()
    run = TokenFileRun(Path(log), against, fixes_of(fix))
    write_lines(out, run.lines)
    for line in log_notes(run.log.notes, run.put_right.fixed):
        console.print(line)
    for fault in run.put_right.left:
        console.print(visible(fault.sentence, LONG))
    count, texts = len(run.lines), len({line.group for line in run.lines})
    console.print(f"{count:,} runs of {texts:,} texts, {sum(len(line.tokens) for line in run.lines):,} tokens")
    console.print(f"written to {out}")
    return 0
