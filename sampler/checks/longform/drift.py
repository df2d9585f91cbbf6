"""Whether an engine's runs are like the reference's, text by text, and from which position on they are not.

The unit is the run: a quantity is the mean of its steps, over the run or over a window of positions, and runs of one
text are compared by rank (`statistics.ranks`) at equal positions. A run that ended before a window has no value in it
and takes part in all windows before. Of a window, as of the run, only that part is compared which nine in ten of the
text's runs reach that are still going on when it begins, and only these runs: a mean over more positions is another
mean. So longer runs alone are no drift; but where the two sides differ in who ends, those that go on may differ too.
How long runs are is a quantity of its own, of all runs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from sampler.checks.longform import series
from sampler.checks.longform.runs import NO_TEXT_IN_COMMON, TokenRun, TwoSides
from sampler.checks.longform.series import Series
from sampler.checks.verdict import SUPERIORITY_OF_RUNS, Finding
from sampler.errors import Unsupported
from sampler.statistics.budget import Budget
from sampler.statistics.judgement import Judgement
from sampler.statistics.ranks import RankSum, superiority

Array = NDArray[np.float64]
Window = tuple[int, int]

WIDTH = 100
"""Positions of a window."""

ENDED_BEFORE = 0.1
"""What is compared ends where more than so many of a text's runs, both sides together, have ended."""

STILL_GOING = 0.1
"""A window is asked about if at least so many of all runs, both sides together, reach it."""

MOST_WINDOWS = 40

SUPERIORITY = 0.85
"""`passed` needs that this probability of superiority would have been seen."""


@dataclass(frozen=True)
class Quantity:
    """What is compared. needs: the scalar that both sides must have recorded, or nothing.

    learnt: whether its first series has a direction that is learnt from half of the runs.
    """

    name: str
    stage: str
    sentence: str
    needs: str
    make: Callable[[TwoSides], list[Series]]
    learnt: bool = False


def _frequencies(sides: TwoSides, *, pairs: bool) -> list[Series]:
    """The learnt direction comes first: its scores are independent of each other, so that its power can be stated."""
    what, coded = "pairs" if pairs else "tokens", series.Coded(sides)
    return [
        Series(
            f"log odds of {what} (learnt from half of the runs)",
            "nats",
            *series.pointing(coded, pairs=pairs),
            share=0.5,
        ),
        Series(f"rarity of {what}", "nats", *series.unusual(coded, pairs=pairs)),
    ]


def _steps(name: str, unit: str, steps: Callable[[TokenRun], Array]) -> Callable[..., list[Series]]:
    return lambda sides: [series.of_runs(name, unit, sides, steps)]


def _lengths(sides: TwoSides) -> list[Series]:
    """Tokens up to EOS; of a text in which a run was cut off, no more than that run has."""
    caps: dict[str, int] = {}
    for run in sides.all_runs():
        if not run.ended:
            caps[run.text] = min(run.length, caps.get(run.text, run.length))

    engine, reference = (
        [[np.array([float(min(run.length, caps.get(run.text, run.length)))]) for run in runs] for runs in side]
        for side in (sides.engine, sides.reference)
    )
    return [Series("length", "tokens", engine, reference)]


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
        """Where it looks, for a message; empty for the whole run."""
        return "" if self.window is None else f"at positions {self.window[0]} to {self.window[1]} "

    def values(self) -> tuple[list[Array], list[Array]]:
        """The means of the runs that are compared there, by text, on both sides."""
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
    """Up to where nine in ten of the runs go that go beyond `start`, at most to `stop`; `start`, if none does."""
    going = sorted(length for length in lengths if length > start)
    if not going:
        return start
    end = going[int(ENDED_BEFORE * len(going))]
    return end if stop is None else min(end, stop)


def windows(sides: TwoSides) -> list[Window]:
    """The windows that enough runs reach. The two sides count together: who is whose must not choose the questions."""
    lengths = np.array([run.length for run in sides.all_runs()])
    starts = range(0, MOST_WINDOWS * WIDTH, WIDTH)
    return [(start, start + WIDTH) for start in starts if (lengths > start).sum() >= STILL_GOING * max(1, len(lengths))]


def drift(quantity: Quantity, sides: TwoSides, alpha: float, detect: float = SUPERIORITY) -> Finding:
    """Whether a quantity is the same on both sides. detect: the superiority that `passed` must be able to detect."""
    missing = _missing(quantity, sides)
    if missing is not None:
        return Finding.skipped("generate", quantity.stage, missing, alpha=alpha)
    made = quantity.make(sides)
    questions = list(_questions(made, [] if quantity.name == "length" else windows(sides), alpha))
    judged = [question.judged() for question in questions]
    whole, rejected = questions[0], [place for place, judgement in enumerate(judged) if judgement.rejected]
    seen = RankSum(whole.alpha).detectable(*whole.values())
    worst = min(rejected or [0], key=lambda place: judged[place].p_value / questions[place].alpha)
    message = _shown(questions[worst], judged[worst], sides, details=bool(rejected))
    if rejected:
        message += _onset([each for each in questions if each.series is questions[worst].series], alpha)
    elif seen > detect:
        message = f"{too_few_runs(seen, detect, whole, sides)}; {message}"
    else:
        asked = f" ({len(windows(sides))} windows of {WIDTH} positions too)" if len(questions) > len(made) else ""
        message += f"; would see {seen:.2f}{asked}"
    answer = replace(judged[worst], n=sides.count)
    figures = {"required": detect, "unit": SUPERIORITY_OF_RUNS}
    return Finding.of_test("generate", quantity.stage, answer, message, alpha=alpha, detectable=seen, **figures)


def planned_drift(quantity: Quantity, alpha: float, texts: int, runs: int) -> float:
    """The superiority that is detected with `runs` runs of each text on either side, of values without ties.

    Steps are compared in that part of a text which nine in ten of its runs reach; here the others are all taken from
    one side, the worst case.
    """
    if quantity.name == "length":
        return RankSum(alpha).planned([(runs, runs)] * texts)
    counts = [sum(series.is_scored(text, run) or not quantity.learnt for run in range(runs)) for text in range(texts)]
    sizes = [(max(0, count - int(ENDED_BEFORE * 2 * count)), count) for count in counts]
    return RankSum(alpha * (0.25 if quantity.learnt else 0.5)).planned(sizes)  # windows and second series have the rest


def _missing(quantity: Quantity, sides: TwoSides) -> Unsupported | None:
    """Why the quantity cannot be compared, if it cannot."""
    if not sides.texts:
        return Unsupported(NO_TEXT_IN_COMMON, reason="no_common_text")
    needs = quantity.needs
    if not needs:
        return None
    without = [
        name
        for name, side in (("engine", sides.engine), ("reference", sides.reference))
        if any(getattr(run, needs) is None for runs in side for run in runs)
    ]
    if not without:
        return None
    return Unsupported(f"{needs!r} was not recorded by the {' nor by the '.join(without)}", reason="not_recorded")


def _questions(made: Sequence[Series], places: Sequence[Window], alpha: float) -> Iterator[Part]:
    """Whole runs share one half of the alpha, windows the other; without windows whole runs have it all."""
    wholes = Budget(alpha / 2 if places else alpha).split({each.name: 1.0 for each in made})
    for each in made:
        yield Part(each, None, wholes[each.name])
    for each in made:
        for place in places:
            yield Part(each, place, alpha / 2 * (1 - 2**-40) / (len(made) * len(places)))


def _shown(question: Part, judgement: Judgement, sides: TwoSides, *, details: bool) -> str:
    """How often the engine's is larger, the means of both sides and, where it matters, the text that shows it most."""
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
    """The text whose runs differ most for their number, and its probability of superiority."""

    def deviation(place: int) -> float:
        m, n = len(engine[place]), len(reference[place])
        share = superiority([engine[place]], [reference[place]])
        return abs(share - 0.5) * float(np.sqrt(m * n / (m + n + 1)))

    place = max(range(len(texts)), key=deviation)
    return texts[place], superiority([engine[place]], [reference[place]])


def _onset(questions: Sequence[Part], alpha: float) -> str:
    """From where on it shows: the first window that is significant by itself at the alpha of the whole check."""
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
    """Why a comparison by rank says nothing, and how many runs would."""
    texts = len(sides.texts)
    compared = question.series.share * (1 if question.series.name == "length" else 1 - ENDED_BEFORE)
    needed = math.ceil(_runs_of_a_text(question.alpha, detect, texts) / compared)
    shown = f">= {seen:.2f}" if seen < 1 else "nothing"
    return (
        f"too few runs (would see {shown}, {detect:.2f} is asked for; with {texts} texts "
        f"{needed} runs of each on either side would do)"
    )


@lru_cache(maxsize=256)
def _runs_of_a_text(alpha: float, detect: float, texts: int) -> int:
    return RankSum(alpha).samples_needed(detect, texts)
