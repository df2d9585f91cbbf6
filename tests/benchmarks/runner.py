"""Runs the sides of a comparison in processes of their own, in turn: A B A B, so that a slow minute meets both."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.rows import Measures, Result, Row, judge

ROOT = Path(__file__).parents[2]
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
OTHERS = 0.2  # cores
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
    turns = list(dict.fromkeys(comparison.turns)) if settings.quick else comparison.turns
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, side in enumerate(turns, start=1):
        say(f"{comparison.name}: {side} ({number} of {len(turns)})")
        with others_at_work(say):
            for name, value in run_side(comparison.module, side, settings):
                found[side, name].append(value)
                say(f"  {name}: {value:.4g}")
    return dict(found)


@contextmanager
def others_at_work(say: Callable[[str], None]) -> Iterator[None]:
    """Say so where others used more than a fifth of a core meanwhile: threads that wait for each other then crawl."""
    start, busy, own = time.monotonic(), _busy(), _own()
    yield
    others = (_busy() - busy - (_own() - own)) / (time.monotonic() - start)
    if others > OTHERS:
        say(f"  others used {others:.1f} cores meanwhile: these figures say little")


def _busy() -> float:
    """Processor seconds of the whole machine, what the host took from it included."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - sum(getattr(times, name, 0.0) for name in ("iowait", "guest", "guest_nice"))


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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
            yield from _read(child.stdout or (), name)
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
