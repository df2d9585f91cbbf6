"""`sampler plan --texts N --runs M`: what so many runs of so many texts can show, before any of them is made."""

from collections.abc import Iterator, Sequence

from sampler.checks.base import Announced
from sampler.checks.distinct import SHARE as DISTINCT
from sampler.checks.drift import ENDED_BEFORE, QUANTITIES, SUPERIORITY
from sampler.checks.series import is_scored
from sampler.checks.stopping import SHARE as STOPPING
from sampler.statistics.budget import Budget
from sampler.statistics.exceedances import Exceedances
from sampler.statistics.marks import MarkedRuns
from sampler.statistics.ranks import RankSum
from sampler.statistics.stratified import StratifiedCounts
from sampler.token_check import DETECT, WEIGHTS

Sizes = Sequence[tuple[int, int]]

LEARNT = ("tokens", "bigrams")
"""Quantities whose direction is learnt from every other run."""

UNITS = {
    "loops": "runs, above the share of the reference",
    "ends": "runs",
    "distinct": "runs, or with logprobs a few pairs",
    "early": "runs beyond the bound",
    "late": "runs beyond the bound",
    "missing": "runs",
    "forced": "runs",
}
PAIRS = "pairs"


def announced(texts: int, runs: int, rate: float = 1e-6) -> dict[str, Announced]:
    """What every question of `token_check.findings` sees with `runs` runs of each of `texts` texts on either side.

    Of a reference that neither loops nor misses an end, and of values without ties. Questions about tokens look at that
    part of a text which nine in ten of its runs reach; here the others are all taken from one side, the worst case.
    Raises ValueError for no texts or runs, or a rate out of range.
    """
    if min(texts, runs) < 1:
        raise ValueError(f"{texts} texts and {runs} runs (expected 1 or more of each)")
    return {each.question: each for each in _announced(texts, runs, Budget(rate).split(WEIGHTS))}


def _announced(texts: int, runs: int, alphas: dict[str, float]) -> Iterator[Announced]:
    def stated(question: str, sees: float, asked: float) -> Announced:
        return Announced(question, alphas[question], sees, asked, UNITS.get(question, PAIRS))

    every = [runs] * texts
    marks = MarkedRuns(alphas["missing"]).planned(runs, texts)
    yield stated("loops", StratifiedCounts(alphas["loops"]).detectable(0.0, every, every), DETECT)
    yield stated("distinct", MarkedRuns(alphas["distinct"]).planned(runs, texts) if runs > 1 else 1.0, DISTINCT)
    yield Announced("ends", None, 1 / (texts * runs), None, UNITS["ends"])
    for name in ("early", "late"):
        yield stated(name, Exceedances(alphas[name]).planned(runs, texts), STOPPING)
    for name in ("missing", "forced"):
        yield stated(name, marks, STOPPING)
    for quantity in QUANTITIES:
        sizes = compared(quantity.name, texts, runs)
        yield stated(quantity.name, RankSum(_whole(quantity.name, alphas)).planned(sizes), SUPERIORITY)


def _whole(name: str, alphas: dict[str, float]) -> float:
    """The alpha of a quantity's question about whole runs: windows have one half, the second of two series another."""
    return alphas[name] * {"length": 1.0}.get(name, 0.25 if name in LEARNT else 0.5)


def compared(name: str, texts: int, runs: int) -> Sizes:
    """How many (engine, reference) runs of each text have a value of a quantity, at least."""
    if name == "length":
        return [(runs, runs)] * texts
    learnt = name in LEARNT
    counts = [sum(is_scored(text, run) or not learnt for run in range(runs)) for text in range(texts)]
    return [(max(0, count - int(ENDED_BEFORE * 2 * count)), count) for count in counts]
