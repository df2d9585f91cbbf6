"""Whether an engine reads its text as the reference does: all of it, in its order, without going back.

Of each step it is known which place of the text the aligned heads look at most. Three shares tell how a run read, each
of them 0 for a run that reads well and the same at any speed and with any pauses:

- `unread`: of the places that no step came near, of a run that ended;
- `disorder`: of the pairs of steps that look at different places, those whose later step looks at the earlier place.
  It is (1 - gamma) / 2 with the rank correlation gamma of Goodman and Kruskal 1954, "Measures of association for cross
  classifications", which leaves ties out, so that pauses do not matter. The share of steps that go forward would not
  do: it falls with every pause, and half of the steps of a wanderer go forward;
- `setback`: how far back the run went, as a share of the text.

The last two look at the running median of GLANCE steps, so that a glance elsewhere is no reading there.

A run with a larger share than the bound is marked, and marked runs are counted beside the reference's, text by text
(`statistics.marks`). The bound is TOLERATED; only where heads follow the text so badly that nearly all runs of both
sides are beyond it, it is a low quantile of both sides together. It never asks whose a run is, so that the runs of a
text stay exchangeable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, median_filter
from scipy.stats import kendalltau

from sampler.checks.longform.rates import marked_finding
from sampler.checks.longform.runs import NO_TEXT_IN_COMMON, TokenRun, TwoSides, positions
from sampler.checks.verdict import Finding

__all__ = ["QUESTIONS", "alignment", "disorder", "positions", "setback", "unread"]

Places = NDArray[np.int64]

SHARE = 0.5
"""`passed` needs that an engine would have been seen that does it in so many of its runs."""

TOLERATED = 0.1
"""So much of each share is no fault: several times what runs of Finch have of any."""

REACH = 2
"""Places so near to one that a step looks at count as read, and going back by so many is no going back."""

GLANCE = 5
"""Steps of the running median: a look elsewhere of up to two steps is none."""


def unread(places: Places, text_length: int) -> float:
    """Share of the text that no step came near: places more than REACH from every one of `places`, int64 (T,)."""
    return 1 - float(_near(places, text_length).mean())


def disorder(places: Places) -> float:
    """Share of the pairs of steps at different places whose later step is at the earlier one, of `places`, int64 (T,).

    0.5, as of a run without any order, where all steps are at one place; 0 for less than two steps.
    """
    steps = len(places)
    if steps < 2:
        return 0.0
    pairs = steps * (steps - 1) / 2
    counts = np.bincount(places).astype(np.float64)
    apart = pairs - float((counts * (counts - 1)).sum()) / 2
    if not apart:
        return 0.5
    # Kendall's tau b is (in order - not in order) / sqrt(pairs x pairs apart).
    tau = float(kendalltau(np.arange(steps), places).statistic)
    return min(1.0, max(0.0, (1 - tau * math.sqrt(pairs / apart)) / 2))


def setback(places: Places, text_length: int) -> float:
    """How far back behind its furthest place a run went at most, REACH places less, as a share of the text."""
    if not len(places):
        return 0.0
    *_, behind = _furthest_back(places)
    return max(0, behind - REACH) / text_length


def _near(places: Places, text_length: int) -> NDArray[np.bool_]:
    read = np.zeros(text_length, dtype=np.bool_)
    read[places] = True
    return np.asarray(binary_dilation(read, iterations=REACH))


def _furthest_back(places: Places) -> tuple[int, int, int]:
    """The step at which a run is furthest behind where it had been, its place then, and by how many places."""
    behind = np.maximum.accumulate(places) - places
    step = int(behind.argmax())
    return step, int(places[step]), int(behind[step])


@dataclass(frozen=True)
class Reading:
    """How one run read: its steps' places, and how many the text has."""

    places: Places
    text_length: int

    @classmethod
    def of(cls, run: TokenRun) -> "Reading":
        """A run without tokens read nothing."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty if run.position is None else run.position, run.text_length or 1)

    @property
    def steady(self) -> Places:
        """The places without glances."""
        return np.asarray(median_filter(self.places, GLANCE, mode="nearest")) if len(self.places) else self.places


def _what_is_unread(reading: Reading) -> str:
    """The longest stretch that was not read."""
    near = _near(reading.places, reading.text_length)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], near, [True]])))
    first, end = max(zip(edges[::2], edges[1::2], strict=True), key=lambda stretch: int(stretch[1] - stretch[0]))
    return f"read nothing of places {first} to {end - 1} of {reading.text_length}"


def _what_order(reading: Reading) -> str:
    steady = reading.steady
    if len(np.unique(steady)) == 1:
        return f"stayed at place {steady[0]} of {reading.text_length} for all of its {len(steady)} steps"
    share = disorder(steady)
    return f"of two steps at different places the later one was at the earlier place in {share:.0%} of the cases"


def _where_back(reading: Reading) -> str:
    step, place, behind = _furthest_back(reading.steady)
    return f"was near place {place} of {reading.text_length} at step {step}, after place {place + behind}"


@dataclass(frozen=True)
class Question:
    """share: of a reading, the larger the worse. words: of a marked run, with its bound. shown: what a reading did."""

    share: Callable[[Reading], float]
    words: str
    shown: Callable[[Reading], str]
    of_ended: bool = False


QUESTIONS: dict[str, Question] = {
    "covering": Question(
        lambda reading: unread(reading.places, reading.text_length),
        "ended with more than {} of their text unread",
        _what_is_unread,
        of_ended=True,
    ),
    "monotone": Question(
        lambda reading: disorder(reading.steady),
        "read their text out of order (in more than {} of the pairs of steps)",
        _what_order,
    ),
    "back": Question(
        lambda reading: setback(reading.steady, reading.text_length),
        "went back by more than {} of their text",
        _where_back,
    ),
}


def alignment(sides: TwoSides, alphas: Mapping[str, float], detect: float = SHARE) -> dict[str, Finding]:
    """One finding for each of covering, monotone and back that `alphas` names.

    detect: the share of the engine's runs at which `passed` must be able to see it.
    """
    return {
        name: _finding(question, sides, alphas[name], detect) for name, question in QUESTIONS.items() if name in alphas
    }


def _finding(question: Question, sides: TwoSides, alpha: float, detect: float) -> Finding:
    asked = _ended(sides) if question.of_ended else sides
    missing = _missing(sides) or ("" if asked.texts else "no text has runs that ended on both sides")
    if missing:
        return Finding("generate", "alignment", "unavailable", sides.count, missing, alpha=alpha, detectable=1.0)
    engine, reference = (
        [[question.share(Reading.of(run)) for run in runs] for runs in side] for side in (asked.engine, asked.reference)
    )
    bound = _bound(engine, reference)
    mine, theirs = ([sum(value > bound for value in some) for some in side] for side in (engine, reference))
    words = question.words.format(f"{bound:.0%}")
    finding = marked_finding(asked, mine, theirs, "alignment", words, alpha, detect)
    if finding.outcome != "failed":
        return finding
    more = _share(mine, asked.engine) >= _share(theirs, asked.reference)
    whose, runs, shares = ("run", asked.engine, engine) if more else ("reference run", asked.reference, reference)
    return replace(finding, message=f"{finding.message}; {_worst(question, whose, runs, shares)}")


def _bound(engine: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """TOLERATED, or the share below which half as many runs are as the smaller side has, where that is more.

    One side's being bad does not move it as long as half of the other is good, nor do equal shares of bad runs.
    """
    counts = [sum(map(len, side)) for side in (engine, reference)]
    return max(TOLERATED, sorted(value for some in (*engine, *reference) for value in some)[min(counts) // 2])


def _ended(sides: TwoSides) -> TwoSides:
    """The runs that ended."""
    engine, reference = (
        [run for runs in side for run in runs if run.ended] for side in (sides.engine, sides.reference)
    )
    return TwoSides.of(engine, reference)


def _missing(sides: TwoSides) -> str:
    """Why nothing can be said; empty if something can."""
    if not sides.texts:
        return NO_TEXT_IN_COMMON
    without = [
        name
        for name, side in (("engine", sides.engine), ("reference", sides.reference))
        if any(run.tokens and (run.position is None or run.text_length is None) for runs in side for run in runs)
    ]
    return f"'position' was not recorded by the {' nor by the '.join(without)}" if without else ""


def _share(marks: Sequence[int], runs: Sequence[Sequence[TokenRun]]) -> float:
    return sum(marks) / sum(len(some) for some in runs)


def _worst(
    question: Question, whose: str, runs: Sequence[Sequence[TokenRun]], shares: Sequence[Sequence[float]]
) -> str:
    """What the run with the largest share did."""
    flat = [
        (share, number, run)
        for some, values in zip(runs, shares, strict=True)
        for number, (run, share) in enumerate(zip(some, values, strict=True), 1)
    ]
    _, number, run = max(flat, key=lambda each: each[0])
    return f"{whose} {number} of text {run.text!r}: {question.shown(Reading.of(run))}"
