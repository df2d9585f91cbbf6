"""What a page shows of a cell's tokens under the engine's model: pictures, each in words too, and alternatives."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sampler.checks.scoring.summary import Answer, ScoreSummary, Wealth
from sampler.results.report import words
from sampler.results.report.score_plots import calibration_plot, estimates_plot, wealth_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED = 6
"""Impossible tokens that are spelled out."""


class Drawn(NamedTuple):
    """A figure, a letter for the ids of its elements, and what it shows."""

    figure: "Figure"
    letter: str
    caption: str


def drawn(scored: ScoreSummary) -> Iterator[Drawn]:
    """The pictures of a cell, as far as it has tokens enough."""
    if scored.wealth is not None:
        yield Drawn(wealth_plot(scored.wealth), "w", _about_wealth(scored.wealth))
    if scored.calibration:
        caption = (
            f"The probability integral transform (PIT) of {scored.bets:,} tokens, each spread over its part of the "
            "unit interval: uniform if the tokens are drawn as the model says. Of 100 right engines 99 have every "
            "point in the band. Too many on the left: likely tokens, or low ids, come too often."
        )
        yield Drawn(calibration_plot(scored.calibration), "p", caption)
    if scored.estimates:
        differ = [estimate.name for estimate in scored.estimates if estimate.differs]
        says = f"Not what was asked for: {', '.join(differ)}." if differ else "Each holds what was asked for."
        caption = (
            f"The values that make the first {scored.fitted:,} tokens likeliest, each on a scale of its own, with "
            f"intervals that miss the true value once in 20. {says}"
        )
        yield Drawn(estimates_plot(scored.estimates), "e", caption)


def _about_wealth(wealth: Wealth) -> str:
    reached = "It did here" if wealth.enough is not None else "It did not"
    return (
        f"Each bet is on another way to draw and grows if the engine draws so. Shown are the {len(wealth.richest)} "
        "with the largest wealth and the mean of all, which of a right engine ever reaches the line of rejection with "
        f"a probability of at most {math.exp(-wealth.bound):.2g}. {reached}."
    )


def impossible(scored: ScoreSummary) -> str:
    """The impossible tokens in a sentence; empty if there is none."""
    if not scored.count:
        return ""
    first = len(scored.impossible)
    marked = f"the first {first} with a triangle" if scored.count > first else "with a triangle each"
    named = "; ".join(one.text for one in scored.impossible[:MOST_NAMED])
    more = f"; and {scored.count - MOST_NAMED:,} more" if scored.count > MOST_NAMED else ""
    return f"Impossible, {marked}, are {scored.count:,} of {words.many(scored.tokens, 'token')}: {named}{more}."


def answers(scored: ScoreSummary) -> Sequence[Answer]:
    """The alternatives: first those that are not excluded, and of both first those that take the fewest tokens."""
    return sorted(scored.alternatives, key=lambda one: (one.excluded, math.inf if one.needed is None else one.needed))
