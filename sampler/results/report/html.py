"""A run as one page that needs no network: what was tested, the results, and how to reproduce a failure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from sampler.checks.scoring.summary import Answer, ScoreSummary
from sampler.checks.verdict import OUTCOMES, overall
from sampler.loops import find_loops
from sampler.results.report import scoring, words
from sampler.results.report.cells import CellVerdicts, cells_of, open_questions
from sampler.results.report.figures import inline_svg
from sampler.results.report.grid import grid_of
from sampler.results.report.plots import RasterRow, attention_map, token_raster
from sampler.results.store.attachments import PICTURED, AttentionRun, Recorded, read_recorded
from sampler.results.store.folder import PAGE, RUN, claimed, place_files, unsettled
from sampler.results.store.run_file import Run, read_run
from sampler.results.store.tokens import TokenLine
from sampler.runtime.files import partial_of, whole_file, write_partial
from sampler.runtime.text import LONG, visible

MOST_RUNS: Final = 24
"""Rows of a raster: more cannot be distinguished on a page."""

MOST_SCORED: Final = 16
"""Cells that passed whose pictures of scoring are shown."""

MOST_LOOPS: Final = 12
"""Loops that are spelled out under a raster."""

PAGE_SIZE: Final = (7.5, 6.0)
"""Inches of a map in a page, at most."""


@dataclass(frozen=True)
class Picture:
    """A picture in a page. svg: an `<svg>` element, drawn by us."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Entry:
    """A cell as the page shows it. anchor: id of its element. notes: why a picture is missing.

    scored: its tokens under the engine's model; answers: the alternatives, in the order of the table.
    """

    cell: CellVerdicts
    anchor: str
    title: str
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    scored: ScoreSummary | None = None
    answers: Sequence[Answer] = ()


def write_report(folder: Path) -> Path:
    """Render `folder/report.html` from run.jsonl and the files beside it; the same files give the same bytes.

    Raises ReportError for a run.jsonl that cannot be trusted, OutputError, also while a run writes into the folder.
    """
    with claimed(folder, create=False):
        if unsettled(folder):
            place_files(folder)
        run = read_run(folder / RUN)
        with whole_file(folder / PAGE) as write:
            write(_page(folder, run))
    return folder / PAGE


def write_partial_report(folder: Path) -> None:
    """Render the page of a run whose files are complete and have no names yet. Raises ReportError, OutputError."""
    write_partial(folder / PAGE, _page(folder, read_run(partial_of(folder / RUN))))


def _page(folder: Path, run: Run) -> bytes:
    return render(run, read_recorded(folder, run.footer.get("files", {}))).encode("utf-8", "backslashreplace")


def render(run: Run, recorded: Recorded) -> str:
    """The page of a run as HTML."""
    cells = cells_of(run.verdicts)
    anchors = {cell.id: f"c{index}" for index, cell in enumerate(cells)}
    failing = [cell for cell in cells if cell.failing]
    pictured = [cell.id for cell in failing if cell.id in recorded.runs][:PICTURED]
    scored = [cell.id for cell in cells if cell.id in recorded.scored and not cell.failing][:MOST_SCORED]
    entries = [_entry(cell, anchors[cell.id], recorded, pictured, scored) for cell in cells]
    page: str = _template().render(
        run=run,
        matrix=run.header["matrix"].get("name", ""),
        why=run.header.get("why", ""),
        whole=overall(run.verdicts),
        outcomes=tuple(reversed(OUTCOMES)),
        summary=words.summary(run, cells),
        facts=words.facts(run),
        details=words.details(run),
        grid=grid_of(cells),
        anchors=anchors,
        failing=[entry for entry in entries if entry.cell.failing],
        others=[entry for entry in entries if not entry.cell.failing],
        open_questions=open_questions(run.verdicts),
        questions=_questions(run),
        crashes=run.footer.get("crashes", {}),
        pictured=pictured,
        missing=recorded.missing,
        **_vocabulary(),
    )
    return page


def _vocabulary() -> dict[str, Any]:
    return {
        "signs": words.SIGNS,
        "colours": words.COLOURS,
        "meanings": words.MEANINGS,
        "columns": words.COLUMNS,
        "figures_of": words.figures,
    }


def _template() -> Any:
    """The page's template; jinja2 is imported when the first page is rendered."""
    import jinja2

    folder = resources.files("sampler.results.report") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")


def _shown(value: object) -> object:
    """Every text of the page but our own markup, with escapes for what does not show itself."""
    return visible(value, LONG) if type(value) is str else value


def title_of(cell: CellVerdicts) -> str:
    """A cell in words: the values of its axes, or what stands in place of them."""
    return ", ".join(f"{axis} {value}" for axis, value in cell.axes.items()) or cell.id.partition("/")[2]


def _questions(run: Run) -> Mapping[str, str]:
    """What each check of the run tests, from its header."""
    asked = run.header.get("checks", {})
    return {verdict.check: asked.get(verdict.check, "") for verdict in run.verdicts}


def _entry(
    cell: CellVerdicts, anchor: str, recorded: Recorded, pictured: Sequence[str], scored: Sequence[str]
) -> Entry:
    """A cell. pictured, scored: the ids of those that failed, and passed, with pictures."""
    pictures, notes = _pictures(cell, anchor, recorded) if cell.id in pictured else ([], [])
    summary = recorded.scored.get(cell.id) if cell.id in (*pictured, *scored) else None
    if summary is None:
        return Entry(cell, anchor, title_of(cell), pictures, notes)
    pictures += [
        Picture(_safe(inline_svg(figure, f"{anchor}{letter}", caption)), caption)
        for figure, letter, caption in scoring.drawn(summary)
    ]
    return Entry(cell, anchor, title_of(cell), pictures, notes, summary, scoring.answers(summary))


def _pictures(cell: CellVerdicts, anchor: str, recorded: Recorded) -> tuple[list[Picture], list[str]]:
    """Raster and attention map of a cell, and notes on what is not there."""
    runs = recorded.runs[cell.id]
    pictures = [_raster(runs[:MOST_RUNS], anchor, recorded.scored.get(cell.id))]
    notes = [] if len(runs) <= MOST_RUNS else [f"The raster has the first {MOST_RUNS} of {len(runs)} requests."]
    attention = recorded.attention.get(cell.id)
    traced = next((run for run in runs if attention is not None and run.request == attention.request), None)
    if attention is not None and traced is not None:
        pictures.append(_map(attention, traced, anchor))
    else:
        notes.append("No attention map: the engine recorded no attention, or it drew other tokens when asked again.")
    return pictures, notes


def _raster(runs: Sequence[TokenLine], anchor: str, scored: ScoreSummary | None) -> Picture:
    removed = scored.impossible if scored else ()
    rows = [
        RasterRow(
            f"{run.request}  {run.prompt}" if isinstance(run.prompt, str) else str(run.request),
            run.tokens,
            run.stop_reason,
            tuple({(loop.onset, loop.extent): loop for loop in find_loops(run.tokens)}.values()),
            [one.step for one in removed if one.run == run.request and one.step < len(run.tokens)],
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
    marked += f" {scoring.impossible(scored)}" if scored and scored.count else ""
    caption = f"Tokens of {words.many(len(runs), 'request')}, step by step.{marked}"
    return Picture(_safe(inline_svg(token_raster(rows), f"{anchor}r", caption)), caption)


def _map(attention: AttentionRun, run: TokenLine, anchor: str) -> Picture:
    figure = attention_map(
        attention.attention, run.tokens, run.stop_reason, attention.pieces, attention.flags, size=PAGE_SIZE
    )
    caption = f"Attention of request {run.request} over its text, step by step."
    return Picture(_safe(inline_svg(figure, f"{anchor}a", caption)), caption)


def _safe(svg: str) -> str:
    """Mark an element of ours as markup; matplotlib has escaped the letters in it."""
    from markupsafe import Markup

    return Markup(re.sub(r"\n\s*", "\n", svg))  # noqa: S704
