"""The command `sampler report`, and the page that `sampler run` writes at its end."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sampler.errors import SamplerError


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run, with its run.jsonl.", metavar="DIR")]) -> int:
    """Write DIR/report.html again, from DIR/run.jsonl and the files beside it."""
    from sampler.results.report.html import write_report

    print(write_report(folder))  # noqa: T201 - a path alone, for other commands to take
    return 0


def show_report(console: Console, folder: Path) -> None:
    """Write the page of a run that is complete; if that fails, say so in a line and keep no page of an earlier run."""
    from sampler.results.report.html import REPORT, write_report

    try:
        path = write_report(folder)
    except Exception as error:  # noqa: BLE001 - the run itself is safe
        (folder / REPORT).unlink(missing_ok=True)
        what = str(error) if isinstance(error, SamplerError) else f"{type(error).__name__}: {error}"
        console.print(f"no report.html: {what} (`sampler report {folder}` tries again)", style="yellow")
    else:
        console.print(f"report: {path}")
