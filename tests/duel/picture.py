"""The picture of the duel: how many rows each rival has rejected after so many tokens."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampler.results.report.figures import figure_of, own_style, place
from tests.duel.measure import COLUMNS, NOTHING, Measured
from tests.duel.rows import RIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "scoring": "#d9480f",
    "noise": "#f2a65a",
    "difr_float32": "#1971c2",
    "difr_bfloat16": "#74a9d8",
    "met": "#2f9e44",
    "kl": "#9c36b5",
    "greedy": "#868e96",
    "runs": "#0b7285",
}

MOST = 10_000


def picture(rows: Sequence[Measured]) -> "Figure":
    """Rejected rows over tokens, a line each; dashed: it needs more than tokens."""
    wrong = [row for row in rows if row.group != RIGHT]
    with own_style():
        figure = figure_of(6.4, 3.6)
        axes = place(figure, 0.5, 0.1, 4.3, 3.0)
        ends = []
        for name, column in COLUMNS.items():
            tokens = sorted(row.cells[name].tokens for row in wrong if row.cells[name].tokens < math.inf)
            counts = [*range(len(tokens) + 1), len(tokens)]
            style = "solid" if column.needs == NOTHING else (0, (3, 1.5))
            width = 4 if name == "noise" else 1.4  # DiFR lies upon it
            axes.step([1, *tokens, MOST], counts, where="post", color=COLOURS[name], linestyle=style, linewidth=width)
            ends.append((len(tokens), column.title, COLOURS[name]))
        axes.set_xscale("log")
        axes.set_xlim(1, MOST)
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
        axes.set_ylim(0, len(wrong) + 1)
        axes.set_xlabel("tokens")
        axes.set_ylabel(f"rejected, of {len(wrong)} engines")
        lowest = -math.inf
        for count, title, colour in sorted(ends):
            lowest = max(count, lowest + len(wrong) / 18)
            axes.annotate(title, (1, lowest), (5, -3), ("axes fraction", "data"), "offset points", color=colour)
    return figure
