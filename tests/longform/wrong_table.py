"""Every wrong and right generator beside reference runs: docs/evidence/wrong-generators.md.

Run by `tox -e wrong-generators` as `python -m tests.longform.wrong_table --write`. Exit code 1 where one is not caught,
a right one is accused, or right runs are accused more often than the budget says.
"""

import argparse
import hashlib
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.longform import right_runs
from tests.longform.right_runs import Alarms
from tests.longform.wrong_runs import Seen, look_at_right, look_at_wrong
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
HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "sampler"
DOCUMENT = HERE.parents[1] / "docs" / "evidence" / "wrong-generators.md"


@dataclass(frozen=True)
class Row:
    """One line of the table: what is left of `Seen` once the runs are gone."""

    name: str
    lie: str
    plan: str
    runs: int
    tokens: int
    stage: str
    question: str
    does: float
    sees: float
    further: list[str]
    caught: bool
    by_runs: bool
    shared: str
    unseen: str
    seconds: float

    @property
    def verdict(self) -> str:
        """By what it is caught."""
        if not self.caught:
            return "NO"
        return "yes" if self.by_runs else "by upstream's noise"

    @property
    def line(self) -> str:
        """For the terminal."""
        head = f"{self.name} [{self.plan}, {self.tokens} tokens, {self.seconds:.1f} s of CPU time]"
        if not self.question:
            return f"{head}: caught {self.verdict}, whole runs show nothing; {self.shared}"
        by = f"{self.question} {self.does:.2f}, plan sees {self.sees:.2f}; {' '.join(self.further)}; {self.shared}"
        return f"{head}: caught {self.verdict}, {self.stage}: {by}"

    @property
    def cells(self) -> list[str]:
        """Cells of the document, which are the same for every run of one version on one machine."""
        if not self.question:
            return [f"`{self.name}`", self.lie, self.plan, self.verdict, "", "", "", "", self.shared]
        shown = [self.question, f"{self.does:.2f}", f"{self.sees:.2f}"]
        return [f"`{self.name}`", self.lie, self.plan, self.verdict, self.stage, *shown, self.shared]


def row_of(seen: Seen) -> Row:
    question = next(iter(seen.expected or seen.failed), "")
    return Row(
        name=seen.name,
        lie=seen.wrong.lie.removeprefix("Lie: ") if seen.wrong else "",
        plan=seen.plan.name,
        runs=len(seen.runs),
        tokens=sum(len(run.tokens) for run in seen.runs),
        stage=seen.stage,
        question=question,
        does=seen.does(question) if question else 0.0,
        sees=seen.plan_said[question].sees if question else 1.0,
        further=[each for each in seen.failed if each != question],
        caught=seen.caught,
        by_runs=seen.by_runs,
        shared=shown_shared(seen),
        unseen=seen.wrong.unseen if seen.wrong else "",
        seconds=seen.seconds,
    )


def shown_shared(seen: Seen) -> str:
    """At which step the first run with upstream's noise parts from upstream's."""
    if seen.shared is None:
        return ""
    step = re.search(r"parts at step (\d+)", seen.shared.message)
    return f"parts at step {step[1]}" if step else "the same"


def wrong_row(name: str) -> Row:
    return row_of(look_at_wrong(WRONG_GENERATORS[name]))


def right_row(name: str) -> Row:
    return row_of(look_at_right(RIGHT_GENERATORS[name]))


@dataclass(frozen=True)
class Totals:
    """What is promised, and whether it is kept."""

    wrong: Sequence[Row]
    right: Sequence[Row]
    alarms: Sequence[Alarms]

    @property
    def missed(self) -> list[Row]:
        return [row for row in self.wrong if not row.caught]

    @property
    def accused(self) -> list[Row]:
        return [row for row in self.right if row.question]

    def lines(self) -> Iterator[str]:
        runs = [row for row in self.wrong if row.caught and row.by_runs]
        noise = [row for row in self.wrong if row.caught and not row.by_runs]
        total = len(self.wrong)
        yield f"{len(runs) + len(noise)} of {total} wrong generators are caught{_names(self.missed)}"
        yield f"{len(runs)} of them by whole runs with noise of their own, with the runs of their plan"
        yield f"{len(noise)} by upstream's noise alone: whole runs do not show them on these texts{_names(noise)}"
        yield f"{len(self.accused)} of {len(self.right)} right generators are accused{_names(self.accused)}"
        yield from map(str, self.alarms)

    @property
    def good(self) -> bool:
        """Whether the promise of the table is kept."""
        return not self.missed and not self.accused and all(each.good for each in self.alarms)


def _names(rows: Sequence[Row]) -> str:
    return f": {', '.join(row.name for row in rows)}" if rows else ""


def document(totals: Totals) -> str:
    """docs/evidence/wrong-generators.md."""
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
        why = RIGHT_GENERATORS[row.name].why.removeprefix("No lie: ")
        lines.append(f"| `{row.name}` | {why} | {row.plan} | {'YES' if row.question else 'no'} |")
    return "\n".join(lines) + "\n"


def made_of(name: str) -> str:
    """A name for all that a row depends on: weights, reference runs, sampler's own code and the lie's."""
    entry = WRONG_GENERATORS.get(name) or RIGHT_GENERATORS[name]
    lie = Path(sys.modules[entry.factory.__module__].__file__ or "")
    files = [*sorted(PACKAGE.rglob("*.safetensors")), *sorted(PACKAGE.rglob("*.py"))]
    files += [lie, lie.with_name("table.py"), HERE / "wrong_runs.py"]
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def made(name: str, work: Path | None) -> Row:
    """The row of a generator; with a folder it is kept there, so that an interrupted command goes on."""
    make = wrong_row if name in WRONG_GENERATORS else right_row
    if work is None:
        return make(name)
    path = work / f"{name}-{made_of(name)[:12]}.json"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(make(name))), encoding="utf-8")
    return Row(**json.loads(path.read_text(encoding="utf-8")))


def gathered(names: Sequence[str], work: Path | None, processes: int, console: Console) -> list[Row]:
    """One row after the other, as they are made."""
    rows = []
    with ProcessPoolExecutor(processes) as pool:
        for row in pool.map(partial(made, work=work), names):
            console.print(row.line)
            rows.append(row)
    return rows


def main(arguments: Sequence[str]) -> int:
    """Print the table and the totals; 1 where the promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.longform.wrong_table", description=__doc__)
    parser.add_argument("names", nargs="*", help="Generators [default: all].")
    parser.add_argument("--write", action="store_true", help=f"Write {DOCUMENT.name}.")
    parser.add_argument("--work", type=Path, help="Folder for finished rows, so that the command can be interrupted.")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args(arguments)
    console = Console(width=200 if not sys.stdout.isatty() else None, markup=False, highlight=False)
    wrong = [name for name in WRONG_GENERATORS if name in chosen.names or not chosen.names]
    right = [name for name in RIGHT_GENERATORS if name in chosen.names or not chosen.names]
    rows = [gathered(names, chosen.work, chosen.processes, console) for names in (wrong, right)]
    count = () if chosen.names else (right_runs.cheap, right_runs.of_finch)
    totals = Totals(*rows, [alarms(processes=chosen.processes) for alarms in count])
    for line in totals.lines():
        console.print(line)
    if chosen.write and not chosen.names:
        DOCUMENT.write_text(document(totals), encoding="utf-8")
        console.print(f"written to docs/{DOCUMENT.name}")
    return 0 if totals.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
