"""Whole runs of the reference against itself: none of them may accuse it of anything.

TO BE FILLED IN when `sampler check` exists: `whole_runs` calls it once a seed and counts the runs whose outcome is not
"agrees". Until then it returns None, and the table says that nothing was measured.
"""

from dataclasses import dataclass

SEEDS = range(50)


@dataclass(frozen=True)
class WholeRuns:
    """accused: how many of the runs accused the reference."""

    runs: int
    accused: int


def whole_runs(seeds: range = SEEDS) -> WholeRuns | None:
    """`sampler check reference` once for each seed; None where it was not measured."""
    return None
