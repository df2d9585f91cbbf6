"""Whether an engine's runs resemble the reference's, text by text, and from which position on they do not.

The unit is the run: a quantity is the mean of its steps, over the run or over a window of positions, and runs of one
text are compared by rank (`statistics.ranks`) at equal positions. A run that ended before a window has no value in it
and counts in all earlier windows. Each comparison is limited to the part of a window or run that 90 % of the text's
runs reach which are still going on at its start, and to these runs, since means over different positions differ. So
longer runs alone are no drift. But if the two sides differ in which runs end, the remaining runs may differ too. The
length of runs is a separate quantity, over all runs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from sampler.checks.longform import series
from sampler.checks.longform.runs import TokenRun, TwoSides, not_recorded
from sampler.checks.longform.series import Series
from sampler.checks.verdict import SUPERIORITY_OF_RUNS, Finding
from sampler.statistics.budget import Budget
from sampler.statistics.judgement import Judgement
from sampler.statistics.ranks import RankSum, superiority

Array = NDArray[np.float64]
Window = tuple[int, int]

WIDTH = 100
"""Positions per window."""

ENDED_BEFORE = 0.1
"""A comparison ends at the position where more than this share of a text's runs, of both sides, have ended."""

STILL_GOING = 0.1
"""A window is tested if at least this share of all runs, of both sides, reaches it."""

MOST_WINDOWS = 40

SUPERIORITY = 0.85
"""`passed` requires that this probability of superiority would be detected."""


@dataclass(frozen=True)
class Quantity:
    """One compared quantity. needs: the scalar that both sides must have recorded, or empty.

    learnt: whether its first series uses a direction learnt from half of the runs.
    """

    name: str
    stage: str
    sentence: str
    needs: str
    make: Callable[[TwoSides], list[Series]]
    learnt: bool = False


def _frequencies(sides: TwoSides, *, pairs: bool) -> list[Series]:
    """The learnt direction comes first: its scores are independent, so its power can be computed."""
    what, coded = "pairs" if pairs else "tokens", series.Coded(sides)
    learnt = f"log odds of {what} (learnt from half of the runs)"
    return [
        Series(learnt, "nats", *series.pointing(coded, pairs=pairs), share=0.5),
        Series(f"rarity of {what}", "nats", *series.unusual(coded, pairs=pairs)),
    ]


def _steps(name: str, unit: str, steps: Callable[[TokenRun], Array]) -> Callable[..., list[Series]]:
    return lambda sides: [series.of_runs(name, unit, sides, steps)]


def _lengths(sides: TwoSides) -> list[Series]:
    """Tokens up to EOS; in a text with a truncated run, limited to the length of that run."""
    caps: dict[str, int] = {}
    for run in sides.all_runs():
        if not run.ended:
            caps[run.text] = min(run.length, caps.get(run.text, run.length))

    def capped(run: TokenRun) -> Array:
        return np.array([float(min(run.length, caps.get(run.text, run.length)))])

    return [Series("length", "tokens", *sides.of_runs(capped))]


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("length", "stop", "Runs are as long as the reference's.", "", _lengths),
    Quantity(
        "tokens", "draw", "Tokens are as frequent as in the reference's runs.", "",
        partial(_frequencies, pairs=False), learnt=True,
    ),
    Quantity(
        "bigrams", "draw", "Pairs of neighbouring tokens are as frequent as in the reference's runs.", "",
        partial(_frequencies, pairs=True), learnt=True,
    ),
    Quantity(
        "repetition", "draw", "Tokens are repeated within 100 steps as often as in the reference's runs.", "",
        _steps("share of repeated tokens", "", lambda run: series.repetitions(run.spoken)),
    ),
    Quantity(
        "surprisal", "draw", "Drawn tokens are as improbable as the reference's.", "logprobs",
        _steps("mean surprisal", "nats", series.surprisal),
    ),
    Quantity(
        "entropy", "draw", "The distributions that tokens are drawn from are as wide as the reference's.", "entropy",
        _steps("mean entropy", "nats", series.entropies),
    ),
    Quantity(
        "rank", "draw", "Drawn tokens have as many more likely ones above them as the reference's.", "rank",
        _steps("mean logarithm of 1 + rank", "", series.log_rank),
    ),
    Quantity(
        "margin", "draw", "The drawn token leads the second one by as much as in the reference's runs.", "margin",
        _steps("mean margin", "", series.bounded_margin),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One series over whole runs or over a window, and its alpha."""

    series: Series
    window: Window | None
    alpha: float

    @property
    def place(self) -> str:
        """The window, for a message; empty for the whole run."""
        return "" if self.window is None else f"at positions {self.window[0]} to {self.window[1]} "

    def values(self) -> tuple[list[Array], list[Array]]:
        """The means of the compared runs, by text, on both sides."""
        start, stop = self.window or (0, None)
        engine: list[Array] = []
        reference: list[Array] = []
        for mine, theirs in zip(self.series.engine, self.series.reference, strict=True):
            end = _common_end([len(run) for run in (*mine, *theirs)], start, stop)
            for side, runs in ((engine, mine), (reference, theirs)):
                side.append(np.array([run[start:end].mean() for run in runs if len(run) >= end > start]))
        return engine, reference

    def judged(self, alpha: float | None = None) -> Judgement:
        return RankSum(alpha or self.alpha).judge(*self.values())


def _common_end(lengths: Sequence[int], start: int, stop: int | None) -> int:
    """The position that 90 % of the runs longer than `start` reach, at most `stop`; `start` if there are none."""
    going = sorted(length for length in lengths if length > start)
    if not going:
        return start
    end = going[int(ENDED_BEFORE * len(going))]
    return end if stop is None else min(end, stop)


def windows(sides: TwoSides) -> list[Window]:
    """The windows that enough runs reach, over both sides: the choice of windows must not depend on the side."""
    lengths = np.array([run.length for run in sides.all_runs()])
    starts = range(0, MOST_WINDOWS * WIDTH, WIDTH)
    return [(start, start + WIDTH) for start in starts if (lengths > start).sum() >= STILL_GOING * max(1, len(lengths))]


def drift(quantity: Quantity, sides: TwoSides, alpha: float, detect: float = SUPERIORITY) -> Finding:
    """Whether a quantity is the same on both sides. detect: the superiority that `passed` must be able to detect."""
    needs = quantity.needs
    missing = not_recorded(sides, needs, lambda run: bool(needs) and getattr(run, needs) is None)
    if missing is not None:
        return Finding.skipped("generate", quantity.stage, missing, alpha=alpha)
    compared = quantity.make(sides)
    questions = list(_questions(compared, [] if quantity.name == "length" else windows(sides), alpha))
    judged = [question.judged() for question in questions]
    whole, rejected = questions[0], [place for place, judgement in enumerate(judged) if judgement.rejected]
    seen = RankSum(whole.alpha).detectable(*whole.values())
    worst = min(rejected or [0], key=lambda place: judged[place].p_value / questions[place].alpha)
    message = _shown(questions[worst], judged[worst], sides, details=bool(rejected))
    if rejected:
        message += _onset([part for part in questions if part.series is questions[worst].series], alpha)
    elif seen > detect:
        message = f"{too_few_runs(seen, detect, whole, sides)}; {message}"
    else:
        tested = f" ({len(windows(sides))} windows of {WIDTH} positions too)" if len(questions) > len(compared) else ""
        message += f"; detects at least {seen:.2f}{tested}"
    answer = replace(judged[worst], n=sides.count)
    figures = {"required": detect, "unit": SUPERIORITY_OF_RUNS}
    return Finding.of_test("generate", quantity.stage, answer, message, alpha=alpha, detectable=seen, **figures)


def planned_drift(quantity: Quantity, alpha: float, texts: int, runs: int) -> float:
    """The superiority that is detected with `runs` runs of each text on both sides, of values without ties.

    Steps are compared in the part of a text that 90 % of its runs reach; here the other 10 % are all taken from one
    side, the worst case.
    """
    if quantity.name == "length":
        return RankSum(alpha).planned([(runs, runs)] * texts)
    counts = [sum(series.is_scored(text, run) or not quantity.learnt for run in range(runs)) for text in range(texts)]
    sizes = [(max(0, count - int(ENDED_BEFORE * 2 * count)), count) for count in counts]
    return RankSum(alpha * (0.25 if quantity.learnt else 0.5)).planned(sizes)  # the rest is for windows, second series


def _questions(compared: Sequence[Series], places: Sequence[Window], alpha: float) -> Iterator[Part]:
    """Whole runs get half of the alpha, windows the other half; without windows whole runs get all of it."""
    wholes = Budget(alpha / 2 if places else alpha).split({one.name: 1.0 for one in compared})
    for one in compared:
        yield Part(one, None, wholes[one.name])
    for one in compared:
        for place in places:
            yield Part(one, place, alpha / 2 * (1 - 2**-40) / (len(compared) * len(places)))


def _shown(question: Part, judgement: Judgement, sides: TwoSides, *, details: bool) -> str:
    """How often the engine's value is larger, the means of both sides and, with details, the most different text."""
    engine, reference = question.values()
    unit = f" {question.series.unit}" if question.series.unit else ""
    means = [np.concatenate([*side, np.empty(0)]) for side in (engine, reference)]
    one, other = (f"{values.mean():.4g}" if len(values) else "none" for values in means)
    larger, allowed = superiority(engine, reference), min(1.0, judgement.bound)
    message = (
        f"{question.place}the engine's {question.series.name} is larger than the reference's in {larger:.0%} of the "
        f"pairs of runs of one text ({1 - allowed:.0%} to {allowed:.0%} allowed); means {one} and {other}{unit}"
    )
    if details and len(sides.texts) > 1:
        text, share = worst_text(sides.texts, engine, reference)
        message += f"; most in text {text!r} ({share:.0%})"
    return message


def worst_text(texts: Sequence[str], engine: Sequence[Array], reference: Sequence[Array]) -> tuple[str, float]:
    """The text whose runs differ most, weighted by their number, and its probability of superiority."""

    def deviation(place: int) -> float:
        m, n = len(engine[place]), len(reference[place])
        share = superiority([engine[place]], [reference[place]])
        return abs(share - 0.5) * float(np.sqrt(m * n / (m + n + 1)))

    place = max(range(len(texts)), key=deviation)
    return texts[place], superiority([engine[place]], [reference[place]])


def _onset(questions: Sequence[Part], alpha: float) -> str:
    """Where it shows first: the first window that is significant alone at the alpha of the whole check."""
    places = [question for question in questions if question.window is not None]
    first = next((question for question in places if question.judged(alpha).rejected), None)
    if first is not None:
        return f"; it shows first {first.place}({superiority(*first.values()):.0%})"
    if not places:
        return ""
    shares = ", ".join(
        f"{question.window[0]}: {superiority(*question.values()):.0%}" for question in places[:6] if question.window
    )
    return f"; no window shows it alone (from {shares})"


def too_few_runs(seen: float, detect: float, question: Part, sides: TwoSides) -> str:
    """The message for too few runs, with the number of runs that are needed."""
    texts = len(sides.texts)
    compared = question.series.share * (1 if question.series.name == "length" else 1 - ENDED_BEFORE)
    needed = math.ceil(_runs_of_a_text(question.alpha, detect, texts) / compared)
    shown = f">= {seen:.2f}" if seen < 1 else "nothing"
    return (
        f"too few runs (detects {shown}, {detect:.2f} is required; with {texts} texts "
        f"{needed} runs of each on either side would do)"
    )


@lru_cache(maxsize=256)
def _runs_of_a_text(alpha: float, detect: float, texts: int) -> int:
    return RankSum(alpha).samples_needed(detect, texts)
