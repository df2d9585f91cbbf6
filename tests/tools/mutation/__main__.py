"""Mutate and judge every mutation: `python -m tests.tools.mutation`; its options are shown by `--help`.

Exit code 0: every survivor is argued by name, unit tests see those that lie outside of the levels, and nothing else is
named there; 1: what is wrong is printed.
"""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.tools.mutation import report, session
from tests.tools.mutation.areas import AREAS, Area
from tests.tools.mutation.survivors import faults, read_arguments, unseen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.tools.mutation", description="One-line mutations of sampler/.")
    parser.add_argument("--area", choices=list(AREAS), help="only this part of the package")
    parser.add_argument("--file", action="append", default=[], help="only this module; may be repeated")
    parser.add_argument("--share", type=float, help="of all mutations, chosen by a hash of their names")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree at work")
    parser.add_argument("--results", type=Path, help="a file for results; what stands there is not redone")
    parser.add_argument("--write", action="store_true", help="write the report of each area")
    return parser.parse_args()


def main() -> int:
    options, console, start = _arguments(), Console(soft_wrap=True, markup=False, highlight=False), time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:6.0f} s  {text}")

    chosen = [area for area in AREAS.values() if options.area in (None, area.name)]
    found = [fault for area in chosen for fault in judge(area, options, console, say)]
    for fault in found:
        console.print(fault)
    console.print(f"{time.monotonic() - start:.0f} s, {len(found)} faults")
    return 1 if found else 0


def judge(area: Area, options: argparse.Namespace, console: Console, say: Callable[[str], None]) -> list[str]:
    share = area.share if options.share is None else options.share
    mutations = session.all_mutations(area, options.file, share)
    arguments = read_arguments(area.arguments)
    say(f"{len(mutations)} mutations of {area.name}")
    if not mutations:
        return []

    def told(result: session.Result) -> None:
        if options.results is not None:
            session.append(options.results, result)
        fate = f"killed by {result.by}" if result.killed else f"survives {result.survived[-1]}"
        say(f"{fate}: {result.name}")

    with session.copies(options.jobs) as copies:
        known = [] if options.results is None else session.read(options.results)
        results = session.run(copies, area, mutations, known, told)
        found = list(faults(results, arguments, everything=not options.file and share >= area.share))
        found += unseen(copies, mutations, arguments, say)
    console.print(report.table(area, report.tallies(area, mutations, results, arguments)))
    if options.write and not options.file:
        version = importlib.metadata.version("cosmic-ray")
        text = report.markdown(area, mutations, results, arguments, version, share)
        area.report.write_text(text, encoding="utf-8")
    return found


if __name__ == "__main__":
    sys.exit(main())
