"""`sampler plan --texts N --runs M`: what so many runs of so many texts can show, before any of them is made."""

from dataclasses import dataclass

from sampler.checks.longform.questions import QUESTIONS, WEIGHTS
from sampler.statistics.budget import Budget


@dataclass(frozen=True)
class Announced:
    """What one question can see. alpha: its share of the false alarms, None for an exact question.

    sees: the smallest discrepancy that is missed at most once in a hundred times, in `unit`; 1.0 if only the largest or
    none. asked: what `passed` needs to have seen.
    """

    question: str
    alpha: float | None
    sees: float
    asked: float | None
    unit: str

    @property
    def enough(self) -> bool:
        return self.asked is None or self.sees <= self.asked


@dataclass(frozen=True)
class Prospect:
    """What a group of cells of a long-form matrix will see. reference: how many runs that has of the group's texts.

    share: of runs that never end, at which that is seen; superiority: of an engine's runs over the reference's;
    incomplete: share of a cell's runs that are not whole at which that is seen by itself, None for several cells.
    Without ties, and of a reference that has no such runs. 1.0: nothing is seen.
    """

    name: str
    runs: int
    reference: int
    share: float
    superiority: float
    incomplete: float | None


def announced(texts: int, runs: int, rate: float = 1e-6) -> dict[str, Announced]:
    """What every question about a file of tokens detects with `runs` runs of each of `texts` texts on either side.

    Of a reference that neither loops nor misses an end and reads well, and of values without ties. Raises ValueError
    for no texts or runs, or a rate out of range.
    """
    if min(texts, runs) < 1:
        raise ValueError(f"{texts} texts and {runs} runs (expected 1 or more of each)")
    alphas = Budget(rate).split(WEIGHTS)
    found = [Announced("ends", None, 1 / (texts * runs), None, "runs")]
    for question in QUESTIONS:
        alpha = alphas[question.name]
        sees = question.planned(alpha, texts, runs)
        found.append(Announced(question.name, alpha, sees, question.detect, question.unit))
    return {each.question: each for each in found}
