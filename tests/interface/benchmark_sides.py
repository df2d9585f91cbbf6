"""Sides of made-up comparisons: each writes down that it ran, and measures what its module says."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.clock import threads

LOG = "BENCHMARK_LOG"
"""Environment variable: the file in which sides write down their turns."""


def _note(name: str) -> int:
    path = Path(os.environ[LOG])
    before = path.read_text(encoding="utf-8").split().count(name) if path.exists() else 0
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    return before


def _works(name: str, *figures: float) -> Callable[..., Iterator[tuple[str, float]]]:
    def side(*, quick: bool) -> Iterator[tuple[str, float]]:
        print("what a library prints is no figure")  # noqa: T201
        yield "time", figures[_note(name)]
        yield "threads", float(threads())
        yield "quick", float(quick)

    return side


def crashes(*, quick: bool) -> Iterator[tuple[str, float]]:
    yield "time", 1.0
    raise RuntimeError("the kettle is empty")


def leaves(*, quick: bool) -> Iterator[tuple[str, float]]:
    os._exit(3)
    yield "time", 1.0


def chatters(*, quick: bool) -> Iterator[tuple[str, float]]:
    yield "time", "long"


SIDES = {
    "ours": _works("ours", 2.0, 1.0, 9.0),
    "peer": _works("peer", 6.0, 5.0, 4.0),
    "crashes": crashes,
    "leaves": leaves,
    "chatters": chatters,
}
