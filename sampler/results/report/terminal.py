"""What a run looks like on a terminal: progress, table, failures."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sampler.checks.verdict import ABSOLUTE, OUTCOMES, SCORED, SHARE_OF_RUNS, SUPERIORITY_OF_RUNS, Outcome, Verdict
from sampler.matrix.matrix import ALL
from sampler.results.report.cells import cell_of, cells_of, open_questions
from sampler.runtime.text import LONG, SHORT, visible

WHOLE_RUNS = ("same", "complete", "loops")
"""Checks that only matrices of whole runs have."""

STYLES: Mapping[Outcome, str] = {
    "passed": "green",
    "failed": "bold red",
    "errored": "bold magenta",
    "inconclusive": "yellow",
    "skipped": "cyan",
}


class RunProgress:
    """Progress of a run: finished requests, tokens a second, time left, the cell that runs now."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, rate="")
        self._tokens = 0

    def start(self, requests: int) -> None:
        self._progress.update(self._task, total=requests)

    def cell(self, name: str) -> None:
        self._progress.update(self._task, description=visible(name, SHORT))

    def step(self, tokens: int, finished: int) -> None:
        self._tokens += tokens
        elapsed = self._progress.tasks[0].elapsed or 0.0
        rate = f"{self._tokens / elapsed:,.0f} tokens/s" if elapsed > 1 else ""
        self._progress.update(self._task, rate=rate, advance=finished)


@contextmanager
def run_progress(console: Console) -> Iterator[RunProgress]:
    """Show progress while a run goes on; nothing where the output is no terminal."""
    columns = (
        SpinnerColumn(), MofNCompleteColumn(), TextColumn("requests"), BarColumn(bar_width=20),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.description}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield RunProgress(progress)


@contextmanager
def check_progress(console: Console) -> Iterator[Callable[[Verdict], None]]:
    """Show which case was answered last, and how many; nothing where the output is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.completed} verdicts"), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda verdict: progress.update(task, advance=1, description=visible(verdict.case, SHORT))


def plain_table(*columns: str, left: Sequence[str]) -> Table:
    """A table without lines. left: the columns of words, which are aligned left and wrapped to fit."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        words = name in left
        table.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def table_of(verdicts: Sequence[Verdict]) -> Table:
    """The verdicts of a run: whole runs are summed up by group, steps have a column for each check."""
    whole_runs = any(verdict.check in WHOLE_RUNS for verdict in verdicts)
    return longform_table(verdicts) if whole_runs else verdict_table(verdicts)


def limit_lines(verdicts: Iterable[Verdict]) -> list[Text]:
    """What the absolute limits allowed: of all cells together, and wherever a run loops or never ends.

    Then how many tokens were scored, of step runs, whose table has no column for it.
    """
    given = list(verdicts)
    lines = [
        Text(f"{cell_of(verdict)}: {verdict.message}")
        for verdict in given
        if verdict.check in ABSOLUTE and verdict.outcome == "passed" and (verdict.statistic or verdict.id.cell == ALL)
    ]
    scored = ("impossible", "evidence")
    possible, fitting = ([one for one in given if one.check == check and one.outcome == "passed"] for check in scored)
    if possible:
        counts = [sum(one.n for one in some) for some in (possible, fitting)]
        cells = f"{len(possible)} {'cell' if len(possible) == 1 else 'cells'}"
        lines.append(Text(f"scored under the model: {counts[0]:,} tokens of {cells} are possible, {counts[1]:,} fit"))
    return lines


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """One row a cell: a column for each axis, the worst outcome, then each check with what it counted.

    The limits on all cells together are no row, and scoring is no column: `limit_lines` has them.
    """
    cells = [cell for cell in cells_of(verdicts) if not cell.together]
    axes = list(dict.fromkeys(axis for cell in cells for axis in cell.axes))
    found = dict.fromkeys(verdict.check for cell in cells for verdict in cell.verdicts)
    checks = [check for check in found if check not in SCORED]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for axis in axes:
        table.add_column(axis.replace("_", "\n"), no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        table.add_column(check, overflow="fold", justify="right")
    for cell in cells:
        row = {verdict.check: verdict for verdict in cell.verdicts}
        shown = [_count(row[check]) if check in row else Text("") for check in checks]
        outcome = Text(cell.outcome, style=STYLES[cell.outcome])
        table.add_row(*(cell.axes.get(axis, "") for axis in axes), outcome, *shown)
    return table


def longform_table(verdicts: Iterable[Verdict]) -> Table:
    """One row for all cells, for each axis and for each cell: what was found, and what is detectable.

    share: the smallest share of runs, of all questions that count runs; superiority: of those that compare them.
    """
    columns = ("cells", "verdict", "runs", "passed", "detects\na share", "detects\nsuperiority", "else")
    table = plain_table(*columns, left=("cells", "verdict", "else"))
    for cell in cells_of(verdicts):
        passed = [verdict for verdict in cell.verdicts if verdict.outcome == "passed"]
        others = [f"{verdict.check} {verdict.outcome}" for verdict in cell.verdicts if verdict.outcome != "passed"]
        known = [f"{verdict.check} known to be bad" for verdict in passed if verdict.known]
        table.add_row(
            cell.id.split("/", 1)[-1], Text(cell.outcome, style=STYLES[cell.outcome]),
            f"{max(verdict.n for verdict in cell.verdicts if verdict.check not in SCORED):,}",
            f"{len(passed)} of {len(cell.verdicts)}",
            _range(v.detectable for v in passed if v.unit == SHARE_OF_RUNS),
            _range(v.detectable for v in passed if v.unit == SUPERIORITY_OF_RUNS),
            Text(", ".join([*others, *known])),
        )  # fmt: skip
    return table


def _range(values: Iterable[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return f"{known[0]:.2f} to {known[-1]:.2f}" if known else ""


def _count(verdict: Verdict) -> Text:
    """How much a passed check tested, a dash where one could not run, the outcome where it failed."""
    shown = {"passed": f"{verdict.n:,}", "skipped": "-"}.get(verdict.outcome, verdict.outcome)
    return Text(shown, style=STYLES[verdict.outcome])


def verdict_notes(
    verdicts: Sequence[Verdict],
    crashes: Mapping[str, Path] = MappingProxyType({}),
    sentence: Callable[[str], str] = lambda check: "",
) -> list[Text]:
    """Every failure with its lines to reproduce it, then what was not answered and why, each reason once.

    crashes: the crash file of a case id, where there is one. sentence: what a check asks.
    """
    notes = []
    for verdict in verdicts:
        if verdict.bad:
            place = f"{visible(verdict.case, SHORT)} (stage {visible(verdict.stage, SHORT)})"
            note = Text(f"{verdict.outcome} {place}\n", style=STYLES[verdict.outcome])
            lines = [sentence(verdict.check), verdict.message, f"Reproduce with: {verdict.reproduce}"]
            note.append("\n".join(f"  {visible(line, LONG)}" for line in lines if line), style="default")
            if verdict.case in crashes:
                command = visible(shlex.join(["sampler", "replay", str(crashes[verdict.case])]))
                note.append(f"\n  or, without the engine: {command}", style="default")
            notes.append(note)
    for question in open_questions(verdicts):
        message, checks = visible(question.message, LONG), visible(", ".join(question.checks), LONG)
        text = f"{question.outcome}: {message}: {checks}"
        notes.append(Text(text, style=STYLES[question.outcome]))
    return notes


def summary_line(verdicts: Sequence[Verdict], tokens: int, seconds: float) -> str:
    """Cells by outcome, what holds for all of them together, tokens, speed."""
    together = [cell for cell in cells_of(verdicts) if cell.together]
    cells = [cell for cell in cells_of(verdicts) if not cell.together]
    counts = Counter(cell.outcome for cell in cells)
    parts = [f"{counts[outcome]} {outcome}" for outcome in reversed(OUTCOMES) if counts[outcome]]
    speed = f"{tokens:,} tokens in {seconds:.0f} s ({tokens / max(seconds, 1e-9):,.0f} tokens/s)"
    pooled = "".join(f"; {cell.id.partition('/')[2]}: {cell.outcome}" for cell in together)
    return f"{len(cells)} cells: {', '.join(parts)}{pooled}; {speed}"
