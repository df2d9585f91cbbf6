"""Put the same tokens to scoring and to its rivals: `python -m tests.duel`; its options are shown by `--help`."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.duel import page
from tests.duel.measure import Duel
from tests.duel.rows import ROWS
from tests.duel.tokens import SETS, TOKENS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.duel", description="Scoring and its rivals on the same tokens.")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="one set of few tokens")
    parser.add_argument("--tokens", type=Path, required=True, help="folder for the tokens, which are made once")
    parser.add_argument("--write", action="store_true", help="write docs/evidence/duel.md and duel.svg")
    return parser.parse_args()


def main() -> int:
    chosen, console, start = arguments(), Console(soft_wrap=True, markup=False, highlight=False), time.monotonic()
    chosen.tokens.mkdir(parents=True, exist_ok=True)
    duel = Duel(chosen.tokens, *((1, 600) if chosen.quick else (SETS, TOKENS)))
    rows = []
    for row in ROWS:
        if chosen.only in row.name:
            rows.append(duel.measured(row))
            console.print(page.line(rows[-1]), f"{time.monotonic() - start:.0f} s")
    console.print(*page.goals(rows), sep="\n")
    if chosen.write:
        page.write(rows, duel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
