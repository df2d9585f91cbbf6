"""Rows of the table: what was measured of ours and of a peer, their ratio, its goal, and the files they go to."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from sampler.runtime.files import write_whole

UPSTREAM = "chatterbox-tts 0.1.7"  # the peer of whatever is generated

DISTURBED = "disturbed"

Measures = Mapping[tuple[str, str], Sequence[float]]
"""What the children of a comparison said, by side and measure: one figure for each turn.

A side that others disturbed in at least one turn, however often it began anew, has the measure DISTURBED.
"""


@dataclass(frozen=True)
class Figure:
    """One quantity that a side measures. of: which turn is taken, the best one for what a machine can do at most."""

    side: str
    measure: str
    of: Literal["median", "largest"] = "median"

    def value(self, turns: Sequence[float]) -> float:
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

    ratio: how many times as fast as the peer, whatever the unit; above 1 ours is faster. ours: None where others were
    at work in every turn of a side.
    """

    row: Row
    ours: float | None
    peer: float | None
    ratio: float | None
    spread: Mapping[str, tuple[float, float]]

    @property
    def fault(self) -> str:
        row = self.row
        if self.ours is None:
            return f"{row.name}: not measured, because others were at work in every attempt"
        if row.goal is None or self.ratio is None:
            return ""
        named = f"{row.name}: {self.ratio:.2f} times {row.peer_name}"
        if self.ratio > row.ceiling:
            return f"{named}, which cannot be: {row.peer_name} was measured on a busy machine"
        return "" if self.ratio >= row.goal else f"{named}, goal {row.goal:g}"

    def as_json(self) -> dict[str, Any]:
        described = {name: getattr(self.row, name) for name in ("name", "peer_name", "unit", "goal")}
        return {**described, "ours": self.ours, "peer": self.peer, "ratio": self.ratio, "spread": dict(self.spread)}


def judge(row: Row, measures: Measures) -> Result:
    for figure in (row.ours, row.peer):
        key = figure and (figure.side, figure.measure)
        if key and key not in measures and (key[0], DISTURBED) in measures:
            return Result(row, None, None, None, {})
    ours = measures[row.ours.side, row.ours.measure]
    spread = {"ours": (min(ours), max(ours))}
    value, peer, ratio = row.ours.value(ours), None, None
    if row.peer is not None:
        theirs = measures[row.peer.side, row.peer.measure]
        spread["peer"] = (min(theirs), max(theirs))
        peer = row.peer.value(theirs)
        ratio = peer / value if row.better == "less" else value / peer
    return Result(row, value, peer, ratio, spread)


def table(results: Sequence[Result], title: str) -> Table:
    made = Table("", "ours", "peer", "", "unit", "ratio", "goal", title=title, title_justify="left")
    for each in results:
        row, peer = each.row, "" if each.peer is None else _figure(each.peer, each.spread["peer"])
        ours = DISTURBED if each.ours is None else _figure(each.ours, each.spread["ours"])
        ratio, goal = ("" if value is None else f"{value:.3g}" for value in (each.ratio, row.goal))
        figures = ours, peer, row.peer_name or "", row.unit, ratio, goal
        made.add_row(row.name, *figures, style="red" if each.fault else None)
    return made


def _figure(value: float, spread: tuple[float, float]) -> str:
    return f"{_short(value)} ({_short(spread[0])}..{_short(spread[1])})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(results: Sequence[Result], path: Path) -> None:
    """Write `benchmarks.json`: either the whole file is new, or the old one stays."""
    write_whole(path, json.dumps([each.as_json() for each in results], indent=1) + "\n")
