"""`sampler plan --texts N --runs M`: what this many runs of this many texts can detect, before they are generated."""

from dataclasses import dataclass

from sampler.checks.longform.absolute import REQUIRED, USUAL
from sampler.checks.longform.questions import ABSOLUTE_WEIGHTS, QUESTIONS, WEIGHTS
from sampler.statistics.budget import Budget
from sampler.statistics.share import AtMost


@dataclass(frozen=True)
class Announced:
    """What one question detects. alpha: its share of the false alarms, None for an exact question.

    detects: the smallest difference with a miss rate of 1 %, in `unit`; 1.0 if only the largest or none. asked: what it
    must detect to pass.
    """

    question: str
    alpha: float | None
    detects: float
    asked: float | None
    unit: str

    @property
    def enough(self) -> bool:
        return self.asked is None or self.detects <= self.asked


@dataclass(frozen=True)
class Prospect:
    """What a group of cells of a long-form matrix can detect. reference: runs of the reference of the group's texts.

    share: the detectable share of runs that loop, or never end (None: known to be bad); superiority: of an engine's
    runs over the reference's, for values without ties (None: not compared); incomplete: the detectable share of
    incomplete runs of a cell alone, None for several cells. 1.0: nothing is detected.
    """

    name: str
    runs: int
    reference: int
    share: float | None
    superiority: float | None
    incomplete: float | None


def announced(texts: int, runs: int, rate: float = 1e-6) -> dict[str, Announced]:
    """What every question about a file of tokens detects with `runs` runs of each of `texts` texts on both sides.

    The reference is assumed to have no loops, missing ends or reading faults, and values no ties. Raises ValueError for
    no texts or runs, or a rate out of range.
    """
    if min(texts, runs) < 1:
        raise ValueError(f"{texts} texts and {runs} runs (expected 1 or more of each)")
    alphas = Budget(rate).split({**WEIGHTS, **ABSOLUTE_WEIGHTS})
    found = [Announced("ends", None, 1 / (texts * runs), None, "runs")]
    for name, limit in (("looping", USUAL.looping), ("endless", USUAL.missing)):
        detects = AtMost(limit, alphas[name]).detectable(texts * runs)
        found.append(Announced(name, alphas[name], detects, REQUIRED, "runs, of any text"))
    for question in QUESTIONS:
        alpha = alphas[question.name]
        detects = question.planned(alpha, texts, runs)
        found.append(Announced(question.name, alpha, detects, question.detect, question.unit))
    return {entry.question: entry for entry in found}
