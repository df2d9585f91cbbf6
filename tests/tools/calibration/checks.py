"""The table of checks that are calibrated. A new check is a new line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from sampler.checks.conformance.draw.plan import DRAWS, SINGLE_DRAWS, DrawPlan
from sampler.engines.reference.chain import ReferenceEngine
from tests.tools.calibration.distributions import DISTRIBUTIONS, Distribution
from tests.tools.calibration.experiments import (
    BinomialExperiment,
    ConsecutiveExperiment,
    Experiment,
    MultinomialExperiment,
    RowsExperiment,
    SupportExperiment,
)
from tests.tools.calibration.run_experiments import (
    ONE,
    TEN,
    THIRTY,
    CountedRunsExperiment,
    ExceedancesExperiment,
    RankSumExperiment,
    RisenRunsExperiment,
    RunDesign,
)
from tests.tools.calibration.scalar_experiments import DistributionFunctionExperiment


@dataclass(frozen=True)
class Check:
    """A check, how it is tried, and with how many draws."""

    name: str
    experiment: Callable[[Any, int], Experiment]
    draws: tuple[int, ...] = (500, 2_000, 20_000)


CHECKS = (
    Check("support", SupportExperiment),
    Check("one token (binomial)", BinomialExperiment),
    Check("all tokens (total variation)", MultinomialExperiment),
    Check("scalars (distribution function)", DistributionFunctionExperiment),
    Check("coincidences of consecutive draws", ConsecutiveExperiment, (500, 2_000)),
    Check("coincidences of two rows", RowsExperiment, (500, 2_000)),
)


def planned(cell: str) -> Distribution:
    """What `sampler check` draws from in one of its cells, by the reference; likeliest first."""
    probe = next(each for each in DrawPlan(0).cells if each.name == cell).probe
    final = ReferenceEngine().evaluate(probe)[-1]
    pmf = softmax(final.scores[0])
    return Distribution(f"`sampler check`, {cell}", np.sort(pmf[pmf > 0])[::-1])


NOTHING, EVERYTHING = planned("nothing"), planned("chain:everything")
IN_USE = (
    (MultinomialExperiment, NOTHING, DRAWS),
    (MultinomialExperiment, EVERYTHING, DRAWS),
    (MultinomialExperiment, EVERYTHING, SINGLE_DRAWS),
    (ConsecutiveExperiment, NOTHING, DRAWS),
    (RowsExperiment, NOTHING, DRAWS // 2),
    (ConsecutiveExperiment, EVERYTHING, SINGLE_DRAWS),
)
"""Distributions and numbers of draws that a run of `sampler check` has."""

RANKS = Check("runs by rank", RankSumExperiment)
COUNTS = Check("runs that count", CountedRunsExperiment)
RISES = Check("runs that count more often", RisenRunsExperiment)
BEYOND = Check("runs beyond a bound", ExceedancesExperiment)
RUNS: tuple[tuple[Check, RunDesign, int], ...] = (
    (RANKS, ONE, 40),
    (RANKS, TEN, 10),
    (RANKS, THIRTY, 20),
    (COUNTS, ONE, 100),
    (COUNTS, TEN, 20),
    (RISES, ONE, 200),
    (RISES, TEN, 20),
    (BEYOND, ONE, 200),
    (BEYOND, TEN, 20),
)
"""Checks whose unit is the run: texts, and runs of each text on either side."""

CELLS = (
    *((check, distribution, n) for check in CHECKS for distribution in DISTRIBUTIONS for n in check.draws),
    *((next(check for check in CHECKS if check.experiment is kind), where, n) for kind, where, n in IN_USE),
    *RUNS,
)
