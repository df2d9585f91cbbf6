"""Calibrate every statistical check: `python -m tests.tools.calibration`; its options are shown by `--help`.

Exit code 0: every stated rate holds; 1: the faults are printed.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console

from tests.tools.calibration.checks import CELLS, measure
from tests.tools.calibration.rates import Row, all_faults
from tests.tools.calibration.report import markdown, table, whole_runs

REPORT = Path(__file__).parents[3] / "docs" / "evidence" / "calibration.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.tools.calibration", description="False alarms, tails and power.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replicates", type=int, default=20_000)
    parser.add_argument("--only", default="", help="checks whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/evidence/calibration.md")
    return parser.parse_args()


def calibrate(only: str, seed: int, replicates: int, jobs: int) -> list[Row]:
    chosen = [cell for cell in CELLS if only in cell[0].name]
    with ProcessPoolExecutor(jobs) as pool:
        return [task.result() for task in [pool.submit(measure, *cell, seed, replicates) for cell in chosen]]


def main() -> int:
    arguments, console, start = _arguments(), Console(soft_wrap=True, markup=False, highlight=False), time.monotonic()
    rows = calibrate(arguments.only, arguments.seed, arguments.replicates, arguments.jobs)
    whole = whole_runs()
    console.print(table(rows))
    if arguments.write:
        REPORT.write_text(markdown(rows, whole, arguments.seed), encoding="utf-8")
    faults = all_faults(rows)
    if whole.accused:
        faults.append(f"{whole.accused} of {whole.runs} whole runs accuse the reference")
    for fault in faults:
        console.print(fault)
    console.print(f"{len(rows)} rows in {time.monotonic() - start:.0f} s, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
