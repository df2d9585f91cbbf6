"""The command `sampler report`, and the page that `sampler run` writes at its end."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sampler.errors import SamplerError
from sampler.results.report.console import error_console
from sampler.results.store.folder import PAGE, RUN, page_of
from sampler.run.recorder import Recorder


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run, with its run.jsonl.", metavar="DIR")]) -> int:
    """Write DIR/report.html again, from DIR/run.jsonl and the files beside it."""
    from sampler.results.report.html import write_report
    from sampler.results.store.folder import unfinished

    print(write_report(folder))  # noqa: T201 - a path alone, for other commands to take
    if unfinished(folder):
        error_console().print(f"{folder} holds the run before one that did not come to its end")
    return 0


def draw_page(folder: Path) -> None:
    """Write the page of a run; if that fails, say so in a line on stderr, and the run has no page."""
    from sampler.results.report.html import write_partial_report

    try:
        write_partial_report(folder)
    except Exception as error:  # noqa: BLE001 - the run itself is safe
        what = str(error) if isinstance(error, SamplerError) else f"{type(error).__name__}: {error}"
        error_console().print(f"no report.html: {what} (`sampler report {folder}` tries again)", style="yellow")


def show_place(console: Console, folder: Path, recorder: Recorder) -> None:
    """Say where the files of a run are, and on stderr what has not got its name yet."""
    console.print(f"written to {folder / RUN}")
    if recorder.unsettled:
        line = f"{recorder.unsettled}; the run is kept, `sampler report {folder}` tries again"
        error_console().print(line, style="yellow")
    if page_of(folder / PAGE) is not None:
        console.print(f"report: {folder / PAGE}")
    if recorder.removed:
        console.print(f"removed the crash files of an earlier run: {recorder.removed} (--out keeps runs apart)")
