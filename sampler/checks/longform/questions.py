"""Every question about runs of tokens in comparison with reference runs, for a file, a cell or a matrix."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from sampler.checks.longform.distinct import distinct
from sampler.checks.longform.drift import QUANTITIES, SUPERIORITY, drift, planned_drift
from sampler.checks.longform.loop_rate import loops
from sampler.checks.longform.reading import FAULTS, alignment
from sampler.checks.longform.runs import TwoSides
from sampler.checks.longform.stopping import SHARE, beyond, counted
from sampler.checks.verdict import ABSOLUTE, Finding
from sampler.statistics.exceedances import Exceedances
from sampler.statistics.stratified import StratifiedCounts

Ask = Callable[[TwoSides, float, float], Finding]
"""From runs of both sides, alpha, and the difference that `passed` must be able to detect."""

Planned = Callable[[float, int, int], float]
"""From alpha, number of texts and runs per text on both sides, to the smallest difference that is detected."""


@dataclass(frozen=True)
class Question:
    """One question. case: cell and check in the report of a file. unit: of what it detects. weight: in the budget."""

    name: str
    case: str
    stage: str
    sentence: str
    ask: Ask
    planned: Planned
    detect: float = SHARE
    unit: str = "runs"
    weight: float = 1.0


def _planned_share(alpha: float, texts: int, runs: int) -> float:
    return StratifiedCounts(alpha).planned_share(runs, texts)


def _planned_rise(alpha: float, texts: int, runs: int) -> float:
    return StratifiedCounts(alpha).detectable_rise(0.0, [runs] * texts, [runs] * texts)


def _planned_beyond(alpha: float, texts: int, runs: int) -> float:
    return Exceedances(alpha).planned(runs, texts)


def _planned_repeats(alpha: float, texts: int, runs: int) -> float:
    """A run can only repeat another one if there are two of them."""
    return 1.0 if runs == 1 else _planned_share(alpha, texts, runs)


def _loops(sides: TwoSides, alpha: float, detect: float) -> Finding:
    engine, reference = (
        {text: [run.tokens for run in runs] for text, runs in zip(sides.texts, side, strict=True)}
        for side in (sides.engine, sides.reference)
    )
    return loops(engine, reference, alpha, detect)


def _distinct(sides: TwoSides, alpha: float, detect: float) -> Finding:
    return distinct([run for some in sides.engine for run in some], sides, alpha, detect)


QUESTIONS: Final = (
    Question(
        "loops", "loops/rate", "draw", "As many runs loop as of the reference's runs of the same texts.",
        _loops, _planned_rise, unit="runs, above the share of the reference",
    ),
    Question(
        "distinct", "seeds/distinct", "seed", "Runs of one text differ from each other as independent runs do.",
        _distinct, _planned_repeats, unit="runs, or with logprobs a few pairs",
    ),
    Question(
        "early", "stopping/early", "stop", "No more runs end early than of the reference's.",
        partial(beyond, early=True), _planned_beyond, unit="runs beyond the bound",
    ),
    Question(
        "late", "stopping/late", "stop", "No more runs end late than of the reference's.",
        partial(beyond, early=False), _planned_beyond, unit="runs beyond the bound",
    ),
    Question(
        "missing", "stopping/missing", "stop",
        "As many runs reach their maximum length without an end as of the reference's.",
        partial(counted, reason="length", words="never ended"), _planned_share,
    ),
    Question(
        "forced", "stopping/forced", "stop", "As many runs are ended by the alignment analyzer as of the reference's.",
        partial(counted, reason="forced_eos", words="were forced to end"), _planned_share,
    ),
    *(
        Question(
            fault.name, f"alignment/{fault.name}", "alignment", fault.sentence,
            partial(alignment, fault), _planned_share,
        )
        for fault in FAULTS
    ),
    *(
        Question(
            quantity.name, f"drift/{quantity.name}", quantity.stage, quantity.sentence,
            partial(drift, quantity), partial(planned_drift, quantity), detect=SUPERIORITY, unit="pairs",
        )
        for quantity in QUANTITIES
    ),
)  # fmt: skip
"""In the order in which they run. Their shares of the budget are fixed: a question that cannot be tested leaves its
share unused."""

WEIGHTS: Final[Mapping[str, float]] = {question.name: question.weight for question in QUESTIONS}

ABSOLUTE_WEIGHTS: Final[Mapping[str, float]] = {"looping": 0.5, "endless": 0.5}
"""Shares in the budget of the questions with an absolute limit, beside those of WEIGHTS."""

ABSOLUTE_CASES: Final[Mapping[str, str]] = {"looping": "loops/looping", "endless": "stopping/endless"}
"""Their cell and check in the report of a file."""

ALONE: Final[Mapping[str, str]] = {
    "same": "Given the reference's noise, the engine draws the reference's tokens.",
    "ends": "Every run that is said to have ended has EOS as its last token, and no other run has one.",
    "complete": "Runs end with EOS at 0.7 to 1.4 times the length of their text's true speech.",
    **ABSOLUTE,
}
"""Questions about runs that compare with no rates of a reference, as sentences."""


def two_sided(
    sides: TwoSides, alphas: Mapping[str, float], share: float = SHARE, superiority: float = SUPERIORITY
) -> Iterator[tuple[str, Finding]]:
    """Every question that `alphas` names. share, superiority: what `passed` must be able to detect."""
    for question in QUESTIONS:
        if question.name in alphas:
            detect = superiority if question.detect == SUPERIORITY else share
            yield question.name, question.ask(sides, alphas[question.name], detect)
