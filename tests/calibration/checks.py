"""The table of checks that are calibrated. A new check is a new line."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.calibration.distributions import DISTRIBUTIONS, Distribution
from tests.calibration.experiments import (
    BinomialExperiment,
    ConsecutiveExperiment,
    Experiment,
    MultinomialExperiment,
    RowsExperiment,
    SupportExperiment,
)
from tests.calibration.two_experiments import (
    DistributionFunctionExperiment,
    TwoCountsExperiment,
    TwoSamplesExperiment,
)


@dataclass(frozen=True)
class Check:
    """A check, how it is tried, and with how many draws."""

    name: str
    experiment: Callable[[Distribution, int], Experiment]
    draws: tuple[int, ...] = (500, 2_000, 20_000)


CHECKS = (
    Check("support", SupportExperiment),
    Check("one token (binomial)", BinomialExperiment),
    Check("all tokens (total variation)", MultinomialExperiment),
    Check("one token, two samples", TwoCountsExperiment, (500, 2_000)),
    Check("all tokens, two samples", TwoSamplesExperiment, (500, 2_000)),
    Check("scalars (distribution function)", DistributionFunctionExperiment),
    Check("coincidences of consecutive draws", ConsecutiveExperiment, (500, 2_000)),
    Check("coincidences of two rows", RowsExperiment, (500, 2_000)),
)

CELLS = tuple((check, distribution, n) for check in CHECKS for distribution in DISTRIBUTIONS for n in check.draws)
