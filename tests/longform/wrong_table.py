"""Every wrong and right generator beside reference runs: docs/evidence/wrong-generators.md.

Run by `tox -e wrong-generators` as `python -m tests.longform.wrong_table --write`. Exit code 1 where one is not caught,
a right one is accused, or right runs are accused more often than the budget says.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tests.longform import right_runs
from tests.longform.right_runs import Alarms
from tests.longform.wrong_runs import Seen, compare_right, compare_wrong
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS, WRONG_GENERATORS

ABOUT = """
Made by `tox -e wrong-generators`: Finch on the MLX core with one defect each, from
`tests/wrong_engines/wrong_generators`, at T = 0.8, min-p 0.05, penalty 1.2 and guidance 0.5. Its runs stand beside as
many reference runs of the same texts, at a rate of 1e-6 for all questions together. *By* is the question that sees it
most clearly; *does* and *plan sees* are in the unit of `sampler plan --texts N --runs M`, which announces *plan sees*
before a run is made: a share of runs, or of pairs of runs of one text ([tokens.md](../tokens.md)). Where a lie does
less than that it was caught all the same. *Same noise*: whether a run with the noise of one of upstream's is upstream's
token for token, or at which step it parts. *Stage first* is the first of the diagnosis. Figures may differ a little on
a machine that rounds otherwise."""
DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence" / "wrong-generators.md"


@dataclass(frozen=True)
class Row:
    """One line of the table: what is left of `Seen` once the runs are gone."""

    name: str
    plan: str
    cells: Sequence[str]
    caught: bool
    by_runs: bool
    accused: bool


def row_of(seen: Seen) -> Row:
    question = next(iter(seen.expected or seen.failed), "")
    shown = [""] * 4
    if question:
        shown = [seen.stage, question, f"{seen.does(question):.2f}", f"{seen.announced[question].detects:.2f}"]
    verdict = ("yes" if seen.by_runs else "by upstream's noise") if seen.caught else "NO"
    fault = seen.wrong.fault if seen.wrong else ""
    cells = (f"`{seen.name}`", fault, seen.plan.name, verdict, *shown, shown_shared(seen))
    return Row(seen.name, seen.plan.name, cells, seen.caught, seen.by_runs, accused=bool(question))


def shown_shared(seen: Seen) -> str:
    """At which step the first run with upstream's noise parts from upstream's."""
    if seen.shared is None:
        return ""
    step = re.search(r"parts at step (\d+)", seen.shared.message)
    return f"parts at step {step[1]}" if step else "the same"


class Totals:
    """What is promised, and whether it is kept."""

    def __init__(self, wrong: Sequence[Row], right: Sequence[Row], alarms: Sequence[Alarms]) -> None:
        self.wrong, self.right, self.alarms = wrong, right, alarms
        self.missed = [row for row in wrong if not row.caught]
        self.accused = [row for row in right if row.accused]
        self.good = not self.missed and not self.accused and all(each.good for each in alarms)

    def lines(self) -> Iterator[str]:
        runs = [row for row in self.wrong if row.caught and row.by_runs]
        noise = [row for row in self.wrong if row.caught and not row.by_runs]
        total = len(self.wrong)
        yield f"{len(runs) + len(noise)} of {total} wrong generators are caught{_names(self.missed)}"
        yield f"{len(runs)} of them by whole runs with noise of their own, with the runs of their plan"
        yield f"{len(noise)} by upstream's noise alone: whole runs do not show them on these texts{_names(noise)}"
        yield f"{len(self.accused)} of {len(self.right)} right generators are accused{_names(self.accused)}"
        yield from map(str, self.alarms)


def _names(rows: Sequence[Row]) -> str:
    return f": {', '.join(row.name for row in rows)}" if rows else ""


def document(totals: Totals) -> str:
    names = ("wrong generator", "lie", "texts", "caught", "stage first", "by", "does", "plan sees", "same noise")
    lines = [
        "# Wrong and right generators",
        "",
        *textwrap.wrap(ABOUT.strip(), 119),
        "",
        *(f"- {line}" for line in totals.lines()),
        "",
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row.cells)} |" for row in totals.wrong),
        "",
        "| right generator | what is other | texts | accused |",
        "|---|---|---|---|",
    ]
    for row in totals.right:
        why = RIGHT_GENERATORS[row.name].why
        lines.append(f"| `{row.name}` | {why} | {row.plan} | {'YES' if row.accused else 'no'} |")
    return "\n".join(lines) + "\n"


def row_named(name: str) -> Row:
    wrong = WRONG_GENERATORS.get(name)
    return row_of(compare_wrong(wrong) if wrong else compare_right(RIGHT_GENERATORS[name]))


def gathered(names: Sequence[str], processes: int, console: Console) -> list[Row]:
    rows = []
    with ProcessPoolExecutor(processes) as pool:
        for row in pool.map(row_named, names):
            console.print(" | ".join(row.cells))
            rows.append(row)
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.longform.wrong_table", description=__doc__)
    parser.add_argument("names", nargs="*", help="Generators [default: all].")
    parser.add_argument("--write", action="store_true", help=f"Write {DOCUMENT.name}.")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args(arguments)
    console = Console(width=200 if not sys.stdout.isatty() else None, markup=False, highlight=False)
    wrong = [name for name in WRONG_GENERATORS if name in chosen.names or not chosen.names]
    right = [name for name in RIGHT_GENERATORS if name in chosen.names or not chosen.names]
    rows = [gathered(names, chosen.processes, console) for names in (wrong, right)]
    count = () if chosen.names else (right_runs.cheap, right_runs.of_finch)
    totals = Totals(*rows, [alarms(processes=chosen.processes) for alarms in count])
    console.print(*totals.lines(), sep="\n")
    if chosen.write and not chosen.names:
        DOCUMENT.write_text(document(totals), encoding="utf-8")
        console.print(f"written to docs/{DOCUMENT.name}")
    return 0 if totals.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
