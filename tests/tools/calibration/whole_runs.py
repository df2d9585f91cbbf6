"""Whole runs of the reference against itself: none of them may accuse it of anything."""

from dataclasses import dataclass

from sampler.conformance import examine
from sampler.engines.reference.chain import ReferenceEngine

SEEDS = range(50)


@dataclass(frozen=True)
class WholeRuns:
    """accused: how many of the runs accused the reference."""

    runs: int
    accused: int


def whole_runs(seeds: range = SEEDS) -> WholeRuns:
    """`sampler check reference` at the levels process and draw, once for each seed."""
    outcomes = [examine(ReferenceEngine(), levels=("process", "draw"), seed=seed).outcome for seed in seeds]
    return WholeRuns(len(outcomes), sum(outcome != "agrees" for outcome in outcomes))
