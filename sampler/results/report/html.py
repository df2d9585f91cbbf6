"""A run as one page that needs no network: what was asked, what came out, and how to see a failure again."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from sampler.checks.verdict import OUTCOMES
from sampler.results.report import words
from sampler.results.report.cells import CellVerdicts, cells_of, reasons_of
from sampler.results.report.figures import inline_svg
from sampler.results.report.grid import grid_of
from sampler.results.report.plots import Loop, RasterRow, attention_map, token_raster
from sampler.results.store.attachments import PICTURED, AttentionRun, Recorded, TokenRun, read_recorded
from sampler.results.store.run_file import ReportError, Run, read_run
from sampler.runtime.files import whole_file

REPORT: Final = "report.html"
MOST_RUNS: Final = 24
"""Rows of a raster: more could not be told apart on a page."""

MOST_LOOPS: Final = 12
"""Loops that are spelled out under a raster."""

PAGE_SIZE: Final = (7.5, 6.0)
"""Inches of a map in a page, at most."""

FindLoops = Callable[[Sequence[int]], Sequence[Loop]]
"""Tokens of a run -> its loops."""


@dataclass(frozen=True)
class Picture:
    """A picture in a page. svg: an `<svg>` element, drawn by us."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Entry:
    """A cell as the page shows it. anchor: id of its element. notes: why a picture is missing."""

    cell: CellVerdicts
    anchor: str
    title: str
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()


def write_report(folder: Path, find_loops: FindLoops | None = None) -> Path:
    """Render `folder/report.html` from run.jsonl and the files beside it; the same files give the same bytes.

    find_loops: marks loops in the rasters. Raises ReportError for a run.jsonl that cannot be trusted, OutputError.
    """
    run = read_run(folder / "run.jsonl")
    for name in ("engine", "matrix"):
        if not isinstance(run.header.get(name), dict):
            raise ReportError(f"{folder / 'run.jsonl'} names no {name} in its header", hint="was it edited?")
    path = folder / REPORT
    with whole_file(path) as write:
        page = render(run, read_recorded(folder, run.footer.get("files", {})), find_loops)
        write(page.encode("utf-8", "backslashreplace"))
    return path


def render(run: Run, recorded: Recorded, find_loops: FindLoops | None = None) -> str:
    """The page of a run as HTML."""
    cells = cells_of(run.verdicts)
    anchors = {cell.id: f"c{index}" for index, cell in enumerate(cells)}
    failing = [cell for cell in cells if cell.failing]
    pictured = [cell.id for cell in failing if cell.id in recorded.runs][:PICTURED]
    entries = [
        Entry(cell, anchors[cell.id], title_of(cell), *_pictures(cell, anchors[cell.id], recorded, find_loops))
        if cell.id in pictured
        else Entry(cell, anchors[cell.id], title_of(cell))
        for cell in cells
    ]
    page: str = _template().render(
        run=run,
        matrix=run.header["matrix"].get("name", ""),
        why=run.header.get("why", ""),
        outcome=words.outcome_of(cells),
        outcomes=tuple(reversed(OUTCOMES)),
        summary=words.summary(run, cells),
        facts=words.facts(run),
        details=words.details(run),
        grid=grid_of(cells),
        anchors=anchors,
        failing=[entry for entry in entries if entry.cell.failing],
        others=[entry for entry in entries if not entry.cell.failing],
        reasons=reasons_of(run.verdicts),
        questions=_questions(run),
        crashes=run.footer.get("crashes", {}),
        pictured=pictured,
        missing=recorded.missing,
        marks_loops=find_loops is not None,
        **_vocabulary(),
    )
    return page


def _vocabulary() -> dict[str, Any]:
    return {"signs": words.SIGNS, "meanings": words.MEANINGS, "columns": words.COLUMNS, "figures_of": words.figures}


def _template() -> Any:
    """The page's template; jinja2 is imported when the first page is rendered."""
    import jinja2

    folder = resources.files("sampler.results.report") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")


def title_of(cell: CellVerdicts) -> str:
    """A cell in words: the values of its axes, or what stands in place of them."""
    return ", ".join(f"{axis} {value}" for axis, value in cell.axes.items()) or cell.id.partition("/")[2]


def _questions(run: Run) -> Mapping[str, str]:
    """What each check of the run asks, as the run wrote it down."""
    known = run.header.get("checks", {})
    return {verdict.check: known[verdict.check] for verdict in run.verdicts if known.get(verdict.check)}


def _pictures(
    cell: CellVerdicts, anchor: str, recorded: Recorded, find_loops: FindLoops | None
) -> tuple[list[Picture], list[str]]:
    """Raster and attention map of a cell, and notes on what is not there."""
    runs = recorded.runs[cell.id]
    pictures = [_raster(runs[:MOST_RUNS], anchor, find_loops)]
    notes = [] if len(runs) <= MOST_RUNS else [f"The raster has the first {MOST_RUNS} of {len(runs)} requests."]
    attention = recorded.attention.get(cell.id)
    traced = next((run for run in runs if attention is not None and run.request == attention.request), None)
    if attention is not None and traced is not None:
        pictures.append(_map(attention, traced, anchor))
    else:
        notes.append("No attention map: the engine recorded no attention, or other tokens came out when asked again.")
    return pictures, notes


def _raster(runs: Sequence[TokenRun], anchor: str, find_loops: FindLoops | None) -> Picture:
    rows = [
        RasterRow(
            f"{run.request}  {run.prompt}" if isinstance(run.prompt, str) else str(run.request),
            run.tokens,
            run.stop_reason,
            find_loops(run.tokens) if find_loops else (),
        )
        for run in runs
    ]
    found = [
        f"request {run.request}, {loop.extent} tokens from step {loop.onset}"
        for run, row in zip(runs, rows, strict=True)
        for loop in row.loops
    ]
    more = f"; and {len(found) - MOST_LOOPS} more" if len(found) > MOST_LOOPS else ""
    marked = f" Loops: {'; '.join(found[:MOST_LOOPS])}{more}." if found else ""
    caption = f"Tokens of {words.many(len(runs), 'request')}, step by step.{marked}"
    return Picture(_safe(inline_svg(token_raster(rows), f"{anchor}r", caption)), caption)


def _map(attention: AttentionRun, run: TokenRun, anchor: str) -> Picture:
    figure = attention_map(
        attention.attention, run.tokens, run.stop_reason, attention.pieces, attention.flags, size=PAGE_SIZE
    )
    caption = f"Attention of request {run.request} over its text, step by step."
    return Picture(_safe(inline_svg(figure, f"{anchor}a", caption)), caption)


def _safe(svg: str) -> str:
    """Mark an element of ours as markup; matplotlib has escaped the letters in it."""
    from markupsafe import Markup

    return Markup(re.sub(r"\n\s*", "\n", svg))  # noqa: S704
