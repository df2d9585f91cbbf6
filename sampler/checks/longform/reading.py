"""Whether an engine reads its text as the reference does: all of it, in its order, without going back.

For each step the place of the text with most attention of the aligned heads is known. Three shares measure how a run
read. Each is 0 for a run that reads well, at any speed and with any pauses:

- `unread`: of the places that no step came near, of a run that ended;
- `disorder`: of the pairs of steps at different places, those whose later step is at the earlier place. It is
  (1 - gamma) / 2 with the rank correlation gamma of Goodman and Kruskal 1954, "Measures of association for cross
  classifications", which leaves ties out, so that pauses do not matter. The share of forward steps would not work: it
  falls with every pause, and half of the steps of a random walk go forward;
- `setback`: how far back the run went, as a share of the text.

The last two use the running median of GLANCE steps, so that a short glance elsewhere does not count.

Runs with a larger share than a bound are counted on both sides, text by text (`statistics.stratified`). The bound is
TOLERATED; if heads follow the text so badly that nearly all runs of both sides are beyond it, it is a low quantile of
both sides together. It does not depend on which side a run belongs to, so the runs of a text stay exchangeable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, median_filter
from scipy.stats import kendalltau

from sampler.checks.longform.rates import marked_finding
from sampler.checks.longform.runs import TokenRun, TwoSides, not_recorded, positions
from sampler.checks.verdict import Finding
from sampler.errors import Unsupported

__all__ = ["FAULTS", "alignment", "disorder", "positions", "setback", "unread"]

Places = NDArray[np.int64]

SHARE = 0.5
"""`passed` requires that a fault in this share of an engine's runs would be detected."""

TOLERATED = 0.1
"""Shares up to this are no fault: several times what runs of Finch have."""

REACH = 2
"""Places this near to a step's place count as read, and going back by no more does not count."""

GLANCE = 5
"""Steps of the running median: it ignores a glance elsewhere of up to two steps."""


def unread(places: Places, text_length: int) -> float:
    """Share of the text that no step came near: places more than REACH from every one of `places`, int64 (T,)."""
    return 1 - float(_near(places, text_length).mean())


def disorder(places: Places) -> float:
    """Share of the pairs of steps at different places whose later step is at the earlier one, of `places`, int64 (T,).

    0.5, as for a run in random order, if all steps are at one place; 0 for fewer than two steps.
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
    """How far a run went back behind its furthest place, minus REACH places, as a share of the text."""
    if not len(places):
        return 0.0
    *_, behind = _furthest_back(places)
    return max(0, behind - REACH) / text_length


def _near(places: Places, text_length: int) -> NDArray[np.bool_]:
    read = np.zeros(text_length, dtype=np.bool_)
    read[places] = True
    return np.asarray(binary_dilation(read, iterations=REACH))


def _furthest_back(places: Places) -> tuple[int, int, int]:
    """The step at which a run is furthest behind its furthest place so far, its place then, and the distance."""
    behind = np.maximum.accumulate(places) - places
    step = int(behind.argmax())
    return step, int(places[step]), int(behind[step])


@dataclass(frozen=True)
class Reading:
    """How one run read: the place of each step, and the number of places of the text."""

    places: Places
    text_length: int

    @classmethod
    def of(cls, run: TokenRun) -> "Reading":
        empty = np.empty(0, dtype=np.int64)
        return cls(empty if run.position is None else run.position, run.text_length or 1)

    @property
    def steady(self) -> Places:
        return np.asarray(median_filter(self.places, GLANCE, mode="nearest")) if len(self.places) else self.places


def _what_is_unread(reading: Reading) -> str:
    """The longest stretch that was not read, for a message."""
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
class Fault:
    """A way to misread. share: of a reading, larger is worse. words: for runs over a bound. shown: for one reading."""

    name: str
    sentence: str
    share: Callable[[Reading], float]
    words: str
    shown: Callable[[Reading], str]
    of_ended: bool = False


FAULTS: Final = (
    Fault(
        "covering",
        "Runs that end have read their whole text, as often as the reference's have.",
        lambda reading: unread(reading.places, reading.text_length),
        "ended with more than {} of their text unread",
        _what_is_unread,
        of_ended=True,
    ),
    Fault(
        "monotone",
        "Runs read their text from its beginning to its end, as often as the reference's do.",
        lambda reading: disorder(reading.steady),
        "read their text out of order (in more than {} of the pairs of steps)",
        _what_order,
    ),
    Fault(
        "back",
        "Runs go back in their text as rarely as the reference's do.",
        lambda reading: setback(reading.steady, reading.text_length),
        "went back by more than {} of their text",
        _where_back,
    ),
)


def alignment(fault: Fault, sides: TwoSides, alpha: float, detect: float = SHARE) -> Finding:
    """Whether as many runs misread on both sides. detect: the share of the engine's that `passed` must detect."""
    tested = _ended(sides) if fault.of_ended else sides
    missing = not_recorded(sides, "position", _lacks_position)
    if missing is None and not tested.texts:
        missing = Unsupported("no text has runs that ended on both sides", reason="no_common_text")
    if missing is not None:
        return Finding.skipped("generate", "alignment", missing, n=sides.count, alpha=alpha, detectable=1.0)
    engine, reference = tested.of_runs(lambda run: fault.share(Reading.of(run)))
    bound = _bound(engine, reference)
    mine, theirs = ([sum(value > bound for value in some) for some in side] for side in (engine, reference))
    words = fault.words.format(f"{bound:.0%}")
    finding = marked_finding(tested, mine, theirs, "alignment", words, alpha, detect)
    if finding.outcome != "failed":
        return finding
    more = _share(mine, tested.engine) >= _share(theirs, tested.reference)
    whose, runs, shares = ("run", tested.engine, engine) if more else ("reference run", tested.reference, reference)
    return replace(finding, message=f"{finding.message}; {_worst(fault, whose, runs, shares)}")


def _bound(engine: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """TOLERATED, or the value that half as many runs are below as the smaller side has, if that is larger.

    Bad runs on one side do not change it if half of the other is good, nor do equal shares of bad runs.
    """
    counts = [sum(map(len, side)) for side in (engine, reference)]
    return max(TOLERATED, sorted(value for some in (*engine, *reference) for value in some)[min(counts) // 2])


def _ended(sides: TwoSides) -> TwoSides:
    engine, reference = (
        [run for runs in side for run in runs if run.ended] for side in (sides.engine, sides.reference)
    )
    return TwoSides.of(engine, reference)


def _lacks_position(run: TokenRun) -> bool:
    return bool(run.tokens) and (run.position is None or run.text_length is None)


def _share(counts: Sequence[int], runs: Sequence[Sequence[TokenRun]]) -> float:
    return sum(counts) / sum(len(some) for some in runs)


def _worst(fault: Fault, whose: str, runs: Sequence[Sequence[TokenRun]], shares: Sequence[Sequence[float]]) -> str:
    """Describe the run with the largest share."""
    flat = [
        (share, number, run)
        for some, values in zip(runs, shares, strict=True)
        for number, (run, share) in enumerate(zip(some, values, strict=True), 1)
    ]
    _, number, run = max(flat, key=lambda entry: entry[0])
    return f"{whose} {number} of text {run.text!r}: {fault.shown(Reading.of(run))}"
