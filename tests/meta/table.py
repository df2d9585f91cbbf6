"""`sampler check` over every wrong and every right engine: caught, stage named first, explanation.

Run by `tox -e meta` as `python -m tests.meta.table`, which writes docs/evidence/wrong-engines.md.
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sampler.engines.base import Level
from sampler.engines.calls import Answer, Call, EngineClient, Offer, OnStep, ignore_step
from sampler.engines.isolation import Isolated, Local
from sampler.engines.load import load_engine
from sampler.run.conformance import ConformanceRun
from sampler.run.report import Report
from tests.wrong_engines import AT_TIES, FACTORIES, RIGHT, WRONG

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence" / "wrong-engines.md"
ENDLESS = frozenset({"hangs", "exits", "draw_hangs", "draw_exits"})
"""Engines that hang or end their process: asked in a process of their own, and slow by nature."""

BAD = ("disagrees", "errored")
MOST_CALLS = 2_500
"""Of a wrong engine in one run at level `process`. A right one gets 300 to 800, by its stages; a diagnosis that asks
three times as many asks again what it was told. Calls are counted: seconds depend on what else the machine does."""

SHARE_NAMED = 0.95


@dataclass(frozen=True)
class Row:
    """What `sampler check` says of one engine. sees: the smallest discrepancy of frequencies that its draws show.

    named, explanation: first in the diagnosis; in_draws: the stage named first at level `draw` alone.
    """

    name: str
    outcome: str
    named: str
    explanation: str
    calls: int
    sees: float | None = None
    in_draws: str = ""

    @property
    def wrong(self) -> bool:
        return self.name in WRONG

    @property
    def hidden(self) -> str:
        """Why no level that it offers can detect the fault; empty where one can."""
        if not self.wrong or self.accused:
            return ""
        entry = WRONG[self.name]
        if not entry.seen:
            return "no level client for this"
        if entry.total_variation is not None and self.sees is not None and entry.total_variation < self.sees:
            return f"this level cannot see it (sees >= {self.sees:.3f})"
        return ""

    @property
    def accused(self) -> bool:
        return self.outcome in BAD

    @property
    def caught(self) -> str:
        return "yes" if self.accused else self.hidden or ("NO" if self.wrong else "agrees")

    @property
    def right_stages(self) -> tuple[str, ...]:
        return (WRONG[self.name].stage, *WRONG[self.name].also)

    @property
    def expected(self) -> str:
        entry = WRONG[self.name]
        return f"{entry.stage} ({', '.join(entry.also)})" if entry.also else entry.stage


def look(name: str) -> Row:
    """Test one engine at one level after the other.

    What `sampler check` names first for both levels is what `process` names, or else what `draw` names.
    """
    process, calls = _examined(name, "process")
    draw, _ = _examined(name, "draw")
    first = process if process.diagnosis or process.outcome in BAD else draw
    named = first.diagnosis[0].stage if first.diagnosis else ""
    outcomes = {process.outcome, draw.outcome}
    outcome = next(each for each in (*BAD, "agrees", "inconclusive", "skipped") if each in outcomes)
    both = "skipped" not in outcomes and name in WRONG and "draw" in WRONG[name].seen
    in_draws = (draw.diagnosis[0].stage if draw.diagnosis else draw.outcome) if both else ""
    return Row(name, outcome, named, _explained(first), calls, _smallest(draw), in_draws)


def _examined(name: str, level: Level) -> tuple[Report, int]:
    """The report of a new engine at one level, and how many calls it got."""
    if name in ENDLESS:
        # By file, since the process of an engine knows nothing of the module that this one was started with.
        client: EngineClient = Isolated(functools.partial(load_engine, f"tests/miniatures.py:{name}", {}))
    else:
        client = Local(FACTORIES[name]())
    counted = Counted(client)
    try:
        return ConformanceRun(counted, name, (level,), strict=name in AT_TIES).run(), counted.calls
    finally:
        if isinstance(client, Isolated):
            client.close()


@dataclass
class Counted:
    """A client that counts its calls."""

    client: EngineClient
    calls: int = 0

    @property
    def offer(self) -> Offer:
        return self.client.offer

    def ask(self, call: Call, on_step: OnStep = ignore_step) -> Answer:
        self.calls += 1
        return self.client.ask(call, on_step)


def _explained(report: Report) -> str:
    if report.diagnosis:
        return report.diagnosis[0].explanation
    bad = [verdict for verdict in report.verdicts if verdict.outcome in ("failed", "errored")]
    return f"no diagnosis: {bad[0].case}: {bad[0].message}" if bad else ""


def _smallest(report: Report) -> float | None:
    shown = (each for each in report.verdicts if (each.level, each.check) == ("draw", "frequencies"))
    return min((each.detectable for each in shown if each.detectable is not None), default=None)


class Totals:
    """The figures under the table, and whether they are good enough."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows, self.right = rows, [row for row in rows if not row.wrong]
        self.timed = [row for row in rows if row.wrong and row.name not in ENDLESS]
        self.slow = [row for row in self.timed if row.calls > MOST_CALLS]
        self.visible = [row for row in rows if row.wrong and not row.hidden]
        self.caught = [row for row in self.visible if row.accused]
        self.missed = [row for row in self.visible if not row.accused]
        self.misnamed = [row for row in self.caught if row.named not in row.right_stages]
        self.wronged = [row for row in self.right if row.accused]
        self.share_named = 1 - len(self.misnamed) / max(1, len(self.caught))
        self.good = not (self.missed or self.wronged or self.slow) and self.share_named >= SHARE_NAMED

    def lines(self) -> Iterator[str]:
        caught, hidden = len(self.caught), len(self.rows) - len(self.right) - len(self.visible)
        yield f"{caught} of {len(self.visible)} wrong engines whose fault shows are caught{_names(self.missed)}"
        yield f"{hidden} wrong engines have a fault that does not show at the levels that they offer"
        itself = sum(row.named == WRONG[row.name].stage for row in self.caught)
        either = f"{itself} the expected one, {caught - len(self.misnamed) - itself} one of those in brackets"
        yield f"{self.share_named:.1%} of those caught have the right stage first: {either}{_names(self.misnamed)}"
        yield self._draws_alone()
        yield f"{len(self.wronged)} of {len(self.right)} right engines are accused{_names(self.wronged)}"

    def _draws_alone(self) -> str:
        """What level draw says of those that offer both levels and whose fault its draws show."""
        shown = [row for row in self.visible if row.in_draws]
        agrees = sum(row.in_draws == "agrees" for row in shown)
        right = sum(row.in_draws in row.right_stages for row in shown)
        counts = f"{right} have the right stage first, {len(shown) - right - agrees} another one, {agrees} agree"
        return f"level draw alone, which tests a few distributions, has an answer for {len(shown)} of them: {counts}"


def _names(rows: Sequence[Row]) -> str:
    return f": {', '.join(row.name for row in rows)}" if rows else ""


def document(totals: Totals) -> str:
    """docs/evidence/wrong-engines.md: what does not depend on the machine."""
    lines = [
        "# Wrong and right engines under `sampler check`",
        "",
        "Made by `tox -e meta`, seed 0, levels process and draw: the engines of `tests/wrong_engines/`.",
        "A change here is a change of what `sampler check` finds. *Expected* names the stage that should come first,",
        "and in brackets those that would be right as well; *draws alone* is the stage named first at `--level draw`.",
        "",
        *(f"- {line}" for line in totals.lines()),
        "",
        "| wrong engine | offers | caught | expected | named first | draws alone | explanation |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in totals.rows:
        if row.wrong:
            offers = ", ".join(WRONG[row.name].offers)
            cells = (f"`{row.name}`", offers, row.caught, row.expected, row.named, row.in_draws, _plain(row))
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| right engine | outcome |", "|---|---|"]
    lines += [f"| `{row.name}` | {row.outcome} |" for row in totals.rows if not row.wrong]
    return "\n".join(lines) + "\n"


def _plain(row: Row) -> str:
    """The explanation as one cell of a table; without figures where they are not the same in every run."""
    text = row.explanation.replace("|", "\\|")
    if row.name in VARYING:
        text = text.split(":")[0]
    return text if len(text) <= 200 else f"{text[:197]}..."


VARYING = frozenset({"seed_is_the_clock", "seed_is_not_used", "draw_does_not_use_the_seed"})
"""Engines whose answers no seed decides."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.meta.table", description=__doc__)
    parser.add_argument("names", nargs="*", help="Engines [default: all].")
    parser.add_argument("--write", action="store_true", help=f"Write {DOCUMENT.name}.")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    console = Console(width=200 if not sys.stdout.isatty() else None, markup=False, highlight=False)
    names = chosen.names or [*WRONG, *RIGHT]
    with ProcessPoolExecutor(chosen.processes) as pool:
        rows = list(pool.map(look, names))
    totals = Totals(rows)
    console.print(document(totals))
    if totals.timed:
        slowest = max(totals.timed, key=lambda row: row.calls)
        calls = f"{slowest.calls:,} calls of at most {MOST_CALLS:,}{_names(totals.slow)}"
        console.print(f"most work at level process: {slowest.name}, {calls}")
    if chosen.write and not chosen.names:
        DOCUMENT.write_text(document(totals), encoding="utf-8")
        console.print(f"written to docs/{DOCUMENT.name}")
    return 0 if totals.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
