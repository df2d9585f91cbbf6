"""Pictures of scored tokens: the wealth of bets, the calibration of PIT, estimated sampling parameters."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sampler.checks.scoring.summary import Estimate, Pit, Wealth
from sampler.results.report.figures import ACCENT, INK, figure_of, own_style, place, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = ("#3b82d6", "#2f9e5f", "#b7860b", "#a05fd6", "#7d8894")
"""Of bets: a contrast of at least 3 to 1 on the page's white and on its black."""

FINE: Final = COLOURS[0]
"""Colour of what a right engine may do."""

WIDTH, LEFT, WIDE = 9.0, 0.75, 5.0
"""Inches of a figure, of what is left of its axes, and of these."""

SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

UNITS: Final = {"edge of the support": "edge of the support, nats"}

ORDERS: Final = {"rank": "tokens by rank, the likeliest first", "id": "tokens by id, the lowest first"}


def wealth_plot(wealth: Wealth) -> "Figure":
    """The wealth of bets over tokens on a logarithmic scale, and the line of rejection."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with own_style():
        figure = figure_of(WIDTH, 3.0)
        axes = place(figure, LEFT, 0.3, WIDE, 2.2)
        tokens = [0, *wealth.tokens]
        for bet, colour in zip(wealth.richest, COLOURS, strict=False):
            axes.plot(tokens, _decimal([0.0, *bet.logs]), color=colour, linewidth=1.0, label=_lines(bet.text))
        axes.plot(tokens, _decimal([0.0, *wealth.mean]), color=INK, linewidth=1.8, label="mean of all bets")
        bound = wealth.bound / math.log(10)
        axes.axhline(bound, color=ACCENT, linewidth=1.2, linestyle=(0, (5, 2)), label="line of rejection")
        if wealth.enough is not None:
            rejected = f"rejected after {wealth.enough:,} tokens"
            axes.axvline(wealth.enough, color=ACCENT, linewidth=1.2, linestyle=(0, (1, 1.5)), label=rejected)
        axes.set_xlim(0, tokens[-1])
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        axes.set_title("Evidence: the wealth of bets against a right engine", loc="left", fontsize=9)
        axes.set_xlabel("tokens scored")
        axes.set_ylabel("wealth, in multiples of the first stake")
        _legend(axes)
    return figure


def calibration_plot(calibration: Sequence[Pit]) -> "Figure":
    """For each order of the tokens the PIT by bins, with the band of right engines."""
    wide, apart = (WIDE - 0.35) / 2, (WIDE + 0.35) / 2
    distance = 1.1 * max(max(pit.widths) for pit in calibration)
    distance = max(distance, *(1.1 * abs(ratio - 1) for pit in calibration for ratio in pit.ratios))
    with own_style():
        figure = figure_of(WIDTH, 2.5)
        for index, pit in enumerate(calibration):
            axes = place(figure, LEFT + index * apart, 0.3, wide, 1.7)
            _draw_pit(axes, pit)
            axes.set_ylim(1 - distance, 1 + distance)
            if index:
                axes.tick_params(axis="y", labelleft=False)
            else:
                axes.set_title("Calibration: where the drawn tokens lie in their distributions", loc="left", fontsize=9)
                axes.set_ylabel("tokens, of those expected")
        _legend(axes)
    return figure


def _draw_pit(axes: "Axes", pit: Pit) -> None:
    count = len(pit.ratios)
    edges = [index / count for index in range(count + 1)]
    low, high = ([1 + sign * width for width in (*pit.widths, pit.widths[-1])] for sign in (-1, 1))
    band: dict[str, Any] = {"step": "post", "color": FINE, "alpha": 0.25, "linewidth": 0}
    axes.fill_between(edges, low, high, label="99 % of right engines", **band)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (5, 2)), label="expected")
    points = [(edge + 0.5 / count, ratio) for edge, ratio in zip(edges, pit.ratios, strict=False)]
    for out, colour, label in ((False, FINE, "within the band"), (True, ACCENT, "outside of it")):
        some = [p for p, width in zip(points, pit.widths, strict=True) if (abs(p[1] - 1) > width) == out]
        axes.plot([x for x, _ in some], [y for _, y in some], "o", color=colour, markersize=4, label=label)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"PIT, {ORDERS.get(pit.order, pit.order)}")


def estimates_plot(estimates: Sequence[Estimate]) -> "Figure":
    """A row a parameter, each with a scale of its own: the estimate with its interval, and what was asked for."""
    with own_style():
        figure = figure_of(WIDTH, 0.65 + 0.55 * len(estimates))
        for index, estimate in enumerate(estimates):
            axes = place(figure, LEFT + 1.1, 0.35 + 0.55 * index, WIDE - 1.1, 0.25)
            _draw_estimate(axes, estimate)
            if not index:
                axes.set_title("Sampling parameters, estimated from the tokens alone", loc="left", fontsize=9, x=-0.45)
        _legend(axes, loc="lower left", bbox_to_anchor=(1.03, -1.2))
    return figure


def _draw_estimate(axes: "Axes", estimate: Estimate) -> None:
    known = [value for value in (estimate.asked, estimate.value, estimate.low, estimate.high) if value is not None]
    margin = 0.15 * ((max(known) - min(known)) or abs(known[0]) or 1.0)
    first, last = min(known) - margin, max(known) + margin
    low, high = (first if estimate.low is None else estimate.low), (last if estimate.high is None else estimate.high)
    colour = ACCENT if estimate.differs else FINE
    axes.plot([low, high], [0, 0], color=colour, linewidth=3, solid_capstyle="butt")
    if estimate.value is not None:
        axes.plot([estimate.value], [0], "o", color=colour, markersize=6)
    if estimate.asked is not None:
        axes.plot([estimate.asked], [0], "|", color=INK, markersize=14, markeredgewidth=1.8)
    for of, label in ((FINE, "estimate, 95 % interval"), (ACCENT, "the same, not what was asked for")):
        axes.plot([], [], "o-", color=of, linewidth=3, markersize=6, label=label)
    axes.plot([], [], "|", color=INK, markersize=11, markeredgewidth=1.8, label="asked for")
    axes.set_xlim(first, last)
    axes.set_ylim(-1, 1)
    axes.set_yticks([0], [UNITS.get(estimate.name, printable(estimate.name))])
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(axes: "Axes", **settings: Any) -> None:
    """To the right of the axes."""
    own: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.03, 1.04), "frameon": False, "fontsize": 7}
    axes.legend(**{**own, "borderaxespad": 0, "handlelength": 2.2, **settings})


def _decimal(logs: Sequence[float]) -> list[float]:
    return [value / math.log(10) for value in logs]


def _power(exponent: float) -> str:
    """10 to a whole power, as text."""
    return f"10{f'{exponent:.0f}'.translate(SUPERSCRIPTS)}" if exponent else "1"


def _lines(text: str) -> str:
    return "\n".join(textwrap.wrap(printable(text), 48))
