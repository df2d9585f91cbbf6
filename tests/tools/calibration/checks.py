"""The table of checks that are calibrated, and measuring one. A new check is a new line.

Every row has random numbers of its own.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from sampler.checks.conformance.draw.cells import DRAWS
from sampler.checks.conformance.draw.plan import SINGLE_DRAWS, DrawPlan
from sampler.engines.reference.chain import ReferenceEngine
from tests.tools.calibration import experiments, run_experiments
from tests.tools.calibration.bet_experiments import BetsExperiment
from tests.tools.calibration.distributions import DISTRIBUTIONS, Distribution
from tests.tools.calibration.experiments import ConsecutiveExperiment, Experiment, MultinomialExperiment, Samples
from tests.tools.calibration.rates import ALPHA, NOMINAL, Row
from tests.tools.calibration.run_experiments import ONE, TEN, THIRTY, RunDesign


@dataclass(frozen=True)
class Check:
    """A check, how it is tried, and with how many draws."""

    name: str
    experiment: Callable[[Any, int], Experiment]
    draws: tuple[int, ...] = (500, 2_000, 20_000)


CHECKS = (
    Check("support", experiments.SupportExperiment),
    Check("one token (binomial)", experiments.BinomialExperiment),
    Check("all tokens (total variation)", MultinomialExperiment),
    Check("scalars (distribution function)", experiments.DistributionFunctionExperiment),
    Check("coincidences of consecutive draws", ConsecutiveExperiment, (500, 2_000)),
    Check("coincidences of two rows", experiments.RowsExperiment, (500, 2_000)),
    Check("tokens in order (bets)", BetsExperiment, (200,)),
)


def planned(cell: str) -> Distribution:
    """What `sampler check` draws from in one of its cells, by the reference; likeliest first."""
    probe = next(each for each in DrawPlan(0).cells if each.name == cell).probe
    pmf = softmax(ReferenceEngine().evaluate(probe)[-1].scores[0])
    return Distribution(f"`sampler check`, {cell}", np.sort(pmf[pmf > 0])[::-1])


NOTHING, EVERYTHING = planned("nothing"), planned("chain:everything")
IN_USE = (
    (MultinomialExperiment, NOTHING, DRAWS),
    (MultinomialExperiment, EVERYTHING, DRAWS),
    (MultinomialExperiment, EVERYTHING, SINGLE_DRAWS),
    (ConsecutiveExperiment, NOTHING, DRAWS),
    (experiments.RowsExperiment, NOTHING, DRAWS // 2),
    (ConsecutiveExperiment, EVERYTHING, SINGLE_DRAWS),
)
"""Distributions and numbers of draws that a run of `sampler check` has."""

RUN_CHECKS = {
    Check("runs by rank", run_experiments.RankSumExperiment): ((ONE, 40), (TEN, 10), (THIRTY, 20)),
    Check("runs that count", run_experiments.CountedRunsExperiment): ((ONE, 100), (TEN, 20)),
    Check("runs that count more often", run_experiments.RisenRunsExperiment): ((ONE, 200), (TEN, 20)),
    Check("runs beyond a bound", run_experiments.ExceedancesExperiment): ((ONE, 200), (TEN, 20)),
}
RUNS = tuple((check, *design) for check, designs in RUN_CHECKS.items() for design in designs)
"""Checks whose unit is the run: texts, and runs of each text on either side."""

CELLS = (
    *((check, distribution, n) for check in CHECKS for distribution in DISTRIBUTIONS for n in check.draws),
    *((next(check for check in CHECKS if check.experiment is kind), where, n) for kind, where, n in IN_USE),
    *RUNS,
)

COMPARED = 20  # replicates of each sample for which the package's own `judge` is asked as well


def measure(check: Check, distribution: Distribution | RunDesign, n: int, seed: int, replicates: int) -> Row:
    """One row of the table. Raises AssertionError where the vectorised judgement is not the package's."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{check.name}|{distribution.name}|{n}".encode())])
    experiment = check.experiment(distribution, n)
    samples = experiment.draw(rng, replicates)
    false_alarms = {rate: count_rejected(experiment, samples, rate) for rate in NOMINAL}
    tail, detectable = experiment.tail(ALPHA, rng), experiment.detectable(ALPHA)
    missed = {
        direction: replicates - count_rejected(experiment, wrong, ALPHA)
        for direction, wrong in experiment.wrong(detectable, rng, replicates)
    }
    return Row(check.name, distribution.name, n, replicates, false_alarms, tail, detectable, missed)


def count_rejected(experiment: Experiment, samples: Samples, alpha: float) -> int:
    """How many replicates are rejected; some of them, of both kinds, are put to the package itself."""
    rejected = experiment.rejected(samples, alpha)
    some = [*np.flatnonzero(rejected)[: COMPARED // 2], *np.flatnonzero(~rejected)[: COMPARED // 2]]
    for place in some:
        if experiment.judged(samples[place], alpha) != rejected[place]:
            raise AssertionError(f"replicate {place} at {alpha:g}: `judge` and the calibration disagree")
    return int(rejected.sum())
