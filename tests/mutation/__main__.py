"""Mutate the chain and judge every mutation: `python -m tests.mutation [--write] [--file NAME] [--results FILE]`.

Exit code 0: every survivor is argued in survivors.toml, unit tests see those that lie outside of the levels, and
nothing else is named there; 1: what is wrong is printed.
"""

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.mutation import report, session, unit
from tests.mutation.survivors import faults, read_arguments

SHARE = 0.35
"""What is judged without an option, so that a run takes a quarter of an hour."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Mutations of sampler/chain/.")
    parser.add_argument("--file", action="append", default=[], help="only this module of the chain; may be repeated")
    parser.add_argument("--share", type=float, default=SHARE, help="of all mutations, chosen by a hash of their names")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree at work")
    parser.add_argument(
        "--results", type=Path, help="a file that results are added to; what stands there is not redone"
    )
    parser.add_argument("--write", action="store_true", help="write docs/mutation.md")
    return parser.parse_args()


def main() -> int:
    """Judge, print, write where asked, and say what is wrong."""
    options, console, start = _arguments(), Console(soft_wrap=True, markup=False, highlight=False), time.monotonic()
    mutations, arguments = session.all_mutations(options.file, options.share), read_arguments()
    console.print(f"{len(mutations)} mutations")

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:6.0f} s  {text}")

    def told(result: session.Result) -> None:
        if options.results is not None:
            session.append(options.results, result)
        fate = f"killed by {result.by}" if result.killed else f"survives {result.survived[-1]}"
        say(f"{fate}: {result.name}")

    with session.copies(options.jobs) as copies:
        known = [] if options.results is None else session.read(options.results)
        results = session.run(copies, mutations, known, told)
        found = list(faults(results, arguments, everything=not options.file and options.share >= SHARE))
        found += unit.unseen(copies, mutations, arguments, say)
    console.print(report.table(report.tallies(mutations, results, arguments)))
    if options.write and not options.file:
        version = importlib.metadata.version("cosmic-ray")
        report.REPORT.write_text(
            report.markdown(mutations, results, arguments, version, options.share), encoding="utf-8"
        )
    for fault in found:
        console.print(fault)
    console.print(f"{len(mutations)} mutations in {time.monotonic() - start:.0f} s, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
