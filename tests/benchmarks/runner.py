"""Runs the sides of a comparison in processes of their own, in turn: A B A B, so that a slow minute meets both."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.rows import Measures, Result, Row, judge

ROOT = Path(__file__).parents[2]
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
LAST_LINES = 12
"""Of what a child that fails has written."""


class ChildError(Exception):
    """A side ended with an error, or said nothing that can be read."""


@dataclass(frozen=True)
class Comparison:
    """What is compared. module: has a function for each side in `SIDES`.

    turns: sides in the order in which their processes run; quick_turns: the same for `--quick`.
    """

    name: str
    module: str
    turns: tuple[str, ...]
    quick_turns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Settings:
    """threads: of every side's products, kernels and torch. quick: fewer and shorter measurements."""

    threads: int = 2
    quick: bool = False


def compare(comparison: Comparison, settings: Settings, say: Callable[[str], None]) -> list[Result]:
    """Run all turns and judge the rows. Raises ChildError for the first side that fails."""
    measures = measure(comparison, settings, say)
    try:
        return [judge(row, measures) for row in comparison.rows]
    except KeyError as error:
        side, name = error.args[0]
        raise ChildError(f"{comparison.name}: the side {side} measured no {name!r}") from error


def measure(comparison: Comparison, settings: Settings, say: Callable[[str], None]) -> Measures:
    """What every side says in every turn."""
    turns = comparison.quick_turns if settings.quick else comparison.turns
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, side in enumerate(turns, start=1):
        say(f"{comparison.name}: {side} ({number} of {len(turns)})")
        for name, value in run_side(comparison.module, side, settings):
            found[side, name].append(value)
    return dict(found)


def run_side(module: str, side: str, settings: Settings) -> Sequence[tuple[str, float]]:
    """One process of a side; what it measured, by name."""
    command = [sys.executable, "-m", "tests.benchmarks.child", module, side, *(["--quick"] if settings.quick else [])]
    result = subprocess.run(
        command, cwd=ROOT, env=environment(settings.threads), capture_output=True, text=True, check=False
    )
    if result.returncode:
        last = "\n".join(result.stderr.strip().splitlines()[-LAST_LINES:])
        raise ChildError(f"{module}: the side {side} ended with exit code {result.returncode}\n{last}")
    try:
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return [(str(line["measure"]), float(line["value"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ChildError(f"{module}: what the side {side} says cannot be read: {error}") from error


def environment(threads: int) -> dict[str, str]:
    """Of a child: the same number of threads for whatever makes its products, and no network."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **variables, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
