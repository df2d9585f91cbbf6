"""Measuring one row: false alarms, tail, detectable discrepancy, misses. Every row has random numbers of its own."""

import zlib

import numpy as np

from tests.tools.calibration.checks import Check
from tests.tools.calibration.distributions import Distribution
from tests.tools.calibration.experiments import Experiment, Samples
from tests.tools.calibration.rates import ALPHA, NOMINAL, Row
from tests.tools.calibration.run_experiments import RunDesign

COMPARED = 20
"""Replicates of each sample for which the package's own `judge` is asked as well."""


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
