"""Rows of the table: what was measured of ours and of a peer, their ratio, its goal, and the files they go to."""

import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

UPSTREAM = "chatterbox-tts 0.1.7"
"""The peer of whatever is generated."""

Measures = Mapping[tuple[str, str], Sequence[float]]
"""What the children of a comparison said, by side and measure: one figure for each turn."""


@dataclass(frozen=True)
class Figure:
    """One quantity that a side measures. of: which turn is taken, the best one for what a machine can do at most."""

    side: str
    measure: str
    of: Literal["median", "largest"] = "median"

    def value(self, turns: Sequence[float]) -> float:
        """The figure of all turns."""
        return max(turns) if self.of == "largest" else statistics.median(turns)


@dataclass(frozen=True)
class Row:
    """A line of the table. peer: None where ours stands alone. better: which end of the unit is fast.

    ceiling: a ratio above it cannot be, and says that the peer was measured on a busy machine.
    """

    name: str
    ours: Figure
    unit: str
    peer: Figure | None = None
    peer_name: str | None = None
    goal: float | None = None
    better: Literal["less", "more"] = "less"
    ceiling: float = math.inf

    def __post_init__(self) -> None:
        if self.goal is not None and self.peer is None:
            raise ValueError(f"{self.name} has the goal {self.goal} and no peer")


@dataclass(frozen=True)
class Result:
    """A row with its figures: medians over the turns, and from the least to the largest of them.

    ratio: how many times as fast as the peer, whatever the unit; above 1 ours is faster.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str | None
    unit: str
    ratio: float | None
    goal: float | None
    spread: Mapping[str, tuple[float, float]]
    ceiling: float = math.inf

    @property
    def fault(self) -> str:
        """What is wrong with the ratio, or nothing; one that is not a number is under any goal."""
        if self.goal is None or self.ratio is None:
            return ""
        named = f"{self.name}: {self.ratio:.2f} times {self.peer_name}"
        if self.ratio > self.ceiling:
            return f"{named}, which cannot be: {self.peer_name} was measured on a busy machine"
        return "" if self.ratio >= self.goal else f"{named}, goal {self.goal:g}"

    def as_json(self) -> dict[str, Any]:
        """The object of `benchmarks.json`."""
        names = ("name", "ours", "peer", "peer_name", "unit", "ratio", "goal")
        return {name: getattr(self, name) for name in names} | {"spread": dict(self.spread)}


def judge(row: Row, measures: Measures) -> Result:
    """The result of a row. Raises KeyError where a side did not say what the row needs."""
    ours = measures[row.ours.side, row.ours.measure]
    spread = {"ours": (min(ours), max(ours))}
    value, peer, ratio = row.ours.value(ours), None, None
    if row.peer is not None:
        theirs = measures[row.peer.side, row.peer.measure]
        spread["peer"] = (min(theirs), max(theirs))
        peer = row.peer.value(theirs)
        ratio = peer / value if row.better == "less" else value / peer
    return Result(row.name, value, peer, row.peer_name, row.unit, ratio, row.goal, spread, row.ceiling)


def faults(results: Sequence[Result]) -> list[str]:
    """What to say of the rows whose ratio is under its goal, or beyond what can be."""
    return [each.fault for each in results if each.fault]


def table(results: Sequence[Result], title: str) -> Table:
    """All rows, with the least and the largest of their turns behind the medians."""
    made = Table(title=title, title_justify="left")
    for name in ("", "ours", "peer", "", "unit", "ratio", "goal"):
        made.add_column(name, justify="left" if not name or name == "unit" else "right")
    for each in results:
        made.add_row(
            each.name,
            _figure(each.ours, each.spread["ours"]),
            "" if each.peer is None else _figure(each.peer, each.spread["peer"]),
            each.peer_name or "",
            each.unit,
            "" if each.ratio is None else f"{each.ratio:.2f}",
            "" if each.goal is None else f"{each.goal:g}",
            style="red" if each.fault else None,
        )
    return made


def _figure(value: float, spread: tuple[float, float]) -> str:
    return f"{_short(value)} ({_short(spread[0])}..{_short(spread[1])})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(results: Sequence[Result], path: Path) -> None:
    """Write `benchmarks.json` at once: either the whole file is new, or the old one stays."""
    text = json.dumps([each.as_json() for each in results], indent=1) + "\n"
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
