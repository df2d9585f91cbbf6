"""The cells of a matrix as a table: some axes as rows, the last ones as columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Final

from sampler.results.report.cells import CellVerdicts

MOST_COLUMNS: Final = 8


@dataclass(frozen=True)
class Row:
    """Values of the axes that are rows, and a cell for each column; None where the matrix excludes it."""

    values: tuple[str, ...]
    cells: tuple[CellVerdicts | None, ...]


@dataclass(frozen=True)
class Grid:
    """columns: for each axis that is a column its name and the headings, each with how many columns it spans.

    others: cells that do not name every axis, as those of hypotheses over the whole matrix.
    """

    row_axes: tuple[str, ...]
    columns: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    rows: tuple[Row, ...]
    others: tuple[CellVerdicts, ...]


def grid_of(cells: Sequence[CellVerdicts]) -> Grid:
    """Lay cells out: the last axes become columns as long as they are at most eight, the first one is always a row.

    Cells that mostly vary one axis each, the others not, make no table.
    """
    most = max((len(cell.axes) for cell in cells), default=0)
    inside = [cell for cell in cells if len(cell.axes) == most]
    if 2 * len(inside) < sum(bool(cell.axes) for cell in cells):
        return Grid((), (), (), tuple(cells))
    values: dict[str, list[str]] = {}
    for cell in inside:
        for axis, value in cell.axes.items():
            known = values.setdefault(axis, [])
            known += [] if value in known else [value]
    axes = list(values)
    split = len(axes) - _columns([len(values[axis]) for axis in axes[1:]])
    across = list(product(*(values[axis] for axis in axes[split:])))
    by_values = {tuple(cell.axes[axis] for axis in axes): cell for cell in inside if set(cell.axes) == set(axes)}
    found = list(dict.fromkeys(place[:split] for place in by_values))
    rows = tuple(Row(down, tuple(by_values.get(down + place) for place in across)) for down in found)
    laid_out = {id(cell) for cell in by_values.values()}
    others = tuple(cell for cell in cells if id(cell) not in laid_out)
    return Grid(tuple(axes[:split]), _headings(axes[split:], across), rows, others)


def _columns(sizes: Sequence[int]) -> int:
    """How many of the last axes fit into the columns."""
    return next(count for count in range(len(sizes), -1, -1) if math.prod(sizes[len(sizes) - count :]) <= MOST_COLUMNS)


def _headings(
    axes: Sequence[str], across: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    """For each axis its headings: neighbours that agree in it and in all axes above share one."""
    result = []
    for depth, axis in enumerate(axes, 1):
        groups = groupby(place[:depth] for place in across)
        result.append((axis, tuple((shared[-1], len(list(group))) for shared, group in groups)))
    return tuple(result)
