"""Compare speed with the peers: `python -m tests.benchmarks [--only NAME] [--json FILE] [--quick] [--threads N]`.

Exit code 0: every ratio reaches its goal; 1: the rows that do not, and sides that failed, are named.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks import analyzer, chain, finch, full_size, growth, loops, matrices, network, scoring
from tests.benchmarks.rows import Result, table, write
from tests.benchmarks.runner import ChildError, Comparison, Settings, compare

MODULES = (chain, analyzer, loops, finch, growth, matrices, scoring, network, full_size)
COMPARISONS: tuple[Comparison, ...] = tuple(module.COMPARISON for module in MODULES)


def _arguments(comparisons: Sequence[Comparison], given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    names = [comparison.name for comparison in comparisons]
    parser.add_argument("--only", action="append", choices=names, help="only this comparison; may be repeated")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the rows are written")
    parser.add_argument("--quick", action="store_true", help="fewer turns, shorter measurements, the same goals")
    parser.add_argument("--threads", type=int, default=2, help="of either side (default: 2)")
    options = parser.parse_args(given)
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: expected 1 or more")
    if not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: {options.json.parent} is no folder")
    return options


def main(given: Sequence[str] | None = None, comparisons: Sequence[Comparison] = COMPARISONS) -> int:
    options, start = _arguments(comparisons, given), time.monotonic()
    console = Console(soft_wrap=True, markup=False, highlight=False)
    settings = Settings(options.threads, options.quick)

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:6.0f} s  {text}")

    results: list[Result] = []
    wrong: list[str] = []
    for comparison in comparisons:
        if options.only is None or comparison.name in options.only:
            try:
                results += compare(comparison, settings, say)
            except ChildError as error:
                wrong.append(str(error))
                say(str(error))
    write(results, options.json)
    title = f"{settings.threads} threads a side; medians (least..largest) over processes in turn"
    Console(width=max(160, console.width)).print(table(results, title))
    wrong += [each.fault for each in results if each.fault]
    for fault in wrong:
        console.print(fault)
    say(f"{len(results)} rows in {options.json}, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
