"""`sampler plan --texts N --runs M`: what so many runs of so many texts can show, before any of them is made."""

from collections.abc import Iterator, Sequence

from sampler.checks.longform.drift import ENDED_BEFORE, QUANTITIES, SUPERIORITY
from sampler.checks.longform.questions import WEIGHTS
from sampler.checks.longform.series import is_scored
from sampler.checks.longform.stopping import SHARE
from sampler.checks.verdict import Announced
from sampler.statistics.budget import Budget
from sampler.statistics.exceedances import Exceedances
from sampler.statistics.marks import MarkedRuns
from sampler.statistics.ranks import RankSum
from sampler.statistics.stratified import StratifiedCounts

Sizes = Sequence[tuple[int, int]]

QUANTITY_NAMES = tuple(quantity.name for quantity in QUANTITIES)
LEARNT = ("tokens", "bigrams")
"""Quantities whose direction is learnt from every other run."""

BEYOND_A_BOUND = ("early", "late")
UNIT = "runs"
FURTHER_UNITS = {"loops": "runs, above the share of the reference", "distinct": "runs, or with logprobs a few pairs"}


def announced(texts: int, runs: int, rate: float = 1e-6) -> dict[str, Announced]:
    """What every question of `token_check.findings` sees with `runs` runs of each of `texts` texts on either side.

    Of a reference that neither loops nor misses an end and reads well, and of values without ties. Questions about
    tokens look at that part of a text which nine in ten of its runs reach; here the others are all taken from one side,
    the worst case.
    Raises ValueError for no texts or runs, or a rate out of range.
    """
    if min(texts, runs) < 1:
        raise ValueError(f"{texts} texts and {runs} runs (expected 1 or more of each)")
    return {each.question: each for each in _announced(texts, runs, Budget(rate).split(WEIGHTS))}


def _announced(texts: int, runs: int, alphas: dict[str, float]) -> Iterator[Announced]:
    yield Announced("ends", None, 1 / (texts * runs), None, UNIT)
    for question, alpha in alphas.items():
        asked = SUPERIORITY if question in QUANTITY_NAMES else SHARE
        yield Announced(question, alpha, _sees(question, alpha, texts, runs), asked, _unit(question))


def _sees(question: str, alpha: float, texts: int, runs: int) -> float:
    if question in QUANTITY_NAMES:
        return RankSum(_whole(question, alpha)).planned(compared(question, texts, runs))
    if question == "loops":
        return StratifiedCounts(alpha).detectable(0.0, [runs] * texts, [runs] * texts)
    if question in BEYOND_A_BOUND:
        return Exceedances(alpha).planned(runs, texts)
    # All others count marked runs; that a run repeats another one needs two of them.
    return 1.0 if question == "distinct" and runs == 1 else MarkedRuns(alpha).planned(runs, texts)


def _unit(question: str) -> str:
    if question in QUANTITY_NAMES:
        return "pairs"
    return "runs beyond the bound" if question in BEYOND_A_BOUND else FURTHER_UNITS.get(question, UNIT)


def _whole(name: str, alpha: float) -> float:
    """The alpha of a quantity's question about whole runs: windows have one half, the second of two series another."""
    return alpha * {"length": 1.0}.get(name, 0.25 if name in LEARNT else 0.5)


def compared(name: str, texts: int, runs: int) -> Sizes:
    """How many (engine, reference) runs of each text have a value of a quantity, at least."""
    if name == "length":
        return [(runs, runs)] * texts
    learnt = name in LEARNT
    counts = [sum(is_scored(text, run) or not learnt for run in range(runs)) for text in range(texts)]
    return [(max(0, count - int(ENDED_BEFORE * 2 * count)), count) for count in counts]
