"""Runs the sides of a comparison in processes of their own, in turn: A B A B, so that a slow minute meets both."""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.others import DisturbedError, Others, own_and, wait_for_calm
from tests.benchmarks.rows import DISTURBED, Measures, Result, Row, judge

ROOT = Path(__file__).parents[2]
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
ATTEMPTS = 3
LAST_LINES = 12  # of what a child that fails has written


class ChildError(Exception):
    """A side ended with an error, or said nothing that can be read."""


@dataclass(frozen=True)
class Comparison:
    """What is compared. module: has a function for each side in `SIDES`. turns: sides as their processes run."""

    name: str
    module: str
    turns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Settings:
    """threads: of every side's products, kernels and torch. quick: fewer and shorter measurements."""

    threads: int = 2
    quick: bool = False


def compare(comparison: Comparison, settings: Settings, say: Callable[[str], None]) -> list[Result]:
    measures = measure(comparison, settings, say)
    try:
        return [judge(row, measures) for row in comparison.rows]
    except KeyError as error:
        side, name = error.args[0]
        raise ChildError(f"{comparison.name}: the side {side} measured no {name!r}") from error


def measure(comparison: Comparison, settings: Settings, say: Callable[[str], None]) -> Measures:
    """A turn during which others are at work is measured again, ATTEMPTS times at most; then it has no figures."""
    turns = list(dict.fromkeys(comparison.turns)) if settings.quick else comparison.turns
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, side in enumerate(turns, start=1):
        say(f"{comparison.name}: {side} ({number} of {len(turns)})")
        figures = _undisturbed(comparison.module, side, settings, say)
        if figures is None:
            say("  this turn has no figures")
            found.setdefault((side, DISTURBED), [])
        for name, value in figures or ():
            found[side, name].append(value)
    return dict(found)


def _undisturbed(
    module: str, side: str, settings: Settings, say: Callable[[str], None]
) -> list[tuple[str, float]] | None:
    """The figures of a turn that others left alone; None if they never do."""
    for attempt in range(1, ATTEMPTS + 1):
        if attempt > 1 and not wait_for_calm():
            return None
        figures = []
        try:
            for name, value in run_side(module, side, settings):
                figures.append((name, value))
                say(f"  {name}: {value:.4g}")
        except DisturbedError as error:
            say(f"  {error}: attempt {attempt} of {ATTEMPTS} does not count")
            continue
        return figures
    return None


def run_side(module: str, side: str, settings: Settings) -> Iterator[tuple[str, float]]:
    command = [sys.executable, "-m", "tests.benchmarks.child", module, side, *(["--quick"] if settings.quick else [])]
    name = f"{module}: the side {side}"
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=environment(settings.threads), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child,
    ):
        try:
            others = Others(partial(own_and, child.pid))
            for said in _read(child.stdout or (), name):
                others.check()
                yield said
        except BaseException:  # also where nobody reads on: a side does not outlive the command
            child.kill()
            raise
        if child.wait():
            errors.seek(0)
            last = "".join(errors.readlines()[-LAST_LINES:]).rstrip()
            raise ChildError(f"{name} ended with exit code {child.returncode}\n{last}")


def _read(lines: Iterable[str], name: str) -> Iterator[tuple[str, float]]:
    try:
        for line in lines:
            said = json.loads(line)
            yield str(said["measure"]), float(said["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise ChildError(f"{name} says what cannot be read: {error}") from error


def environment(threads: int) -> dict[str, str]:
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **variables, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
