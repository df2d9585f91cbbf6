"""The calibration itself: it passes true rates, and it reports a check whose stated rate is wrong."""

import itertools

import numpy as np
import pytest
from scipy.stats import chi2, multinomial

from tests.tools.calibration.checks import CELLS, CHECKS, IN_USE, RUNS, Check, measure
from tests.tools.calibration.distributions import DISTRIBUTIONS, UNIFORM, Distribution, wrong_distributions
from tests.tools.calibration.experiments import (
    BinomialExperiment,
    ConsecutiveExperiment,
    DistributionFunctionExperiment,
    MultinomialExperiment,
)
from tests.tools.calibration.rates import ALPHA, NOMINAL, Row, TailProbability, all_faults, exceeds
from tests.tools.calibration.report import COLUMNS, WholeRuns, cells, markdown
from tests.tools.calibration.separable import multinomial_terms, tail_probability

THREE = Distribution("three", np.array([0.6, 0.3, 0.1]))
SMALL = Distribution("100 tokens, of which 2 draws each are expected", np.full(100, 0.01))


class GTestExperiment(MultinomialExperiment):
    """Fault: the likelihood ratio is compared with a chi-squared quantile, though the cells are small."""

    def rejected(self, samples, alpha):
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(samples > 0, samples * np.log(samples / (self.n * self.pmf)), 0.0)
        return 2 * terms.sum(axis=1) > chi2.isf(alpha, len(self.pmf) - 1)

    def judged(self, sample, alpha):
        return bool(self.rejected(sample[None], alpha)[0])

    def tail(self, alpha, rng):
        return TailProbability(0.0)


class DoubledAlphaExperiment(BinomialExperiment):
    """Fault: each tail gets the whole alpha."""

    def rejected(self, samples, alpha):
        return super().rejected(samples, 2 * alpha)

    def judged(self, sample, alpha):
        return super().judged(sample, 2 * alpha)

    def tail(self, alpha, rng):
        return super().tail(2 * alpha, rng)


class BoastfulExperiment(BinomialExperiment):
    """Fault: a discrepancy is announced that is missed more often than said."""

    def detectable(self, alpha):
        return 0.9 * super().detectable(alpha)


def faults_of(experiment, distribution=UNIFORM, n=2_000):
    return all_faults([measure(Check("wrong", experiment, (n,)), distribution, n, 0, 20_000)])


class OtherExperiment(BinomialExperiment):
    """Fault: the calibration judges in another way than the package."""

    def judged(self, sample, alpha):
        return not super().judged(sample, alpha)


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ((GTestExperiment, SMALL, 200), ["false alarms of 20000 at 0.01"]),
        ((DoubledAlphaExperiment,), ["false alarms of 20000 at 0.05", ": the tail is "]),
        ((BoastfulExperiment,), ["missed at"]),
    ],
    ids=lambda value: getattr(value[0], "__name__", ""),
)
def test_a_wrong_rate_is_reported(experiment, expected):
    faults = faults_of(*experiment)
    assert all(any(text in fault for fault in faults) for text in expected)


def test_a_right_check_is_not_reported_and_another_judgement_than_the_packages_is_refused():
    assert faults_of(BinomialExperiment) == []
    with pytest.raises(AssertionError, match="disagree"):
        faults_of(OtherExperiment)


def test_every_check_is_in_the_table_with_every_distribution():
    assert len(CELLS) == sum(len(check.draws) for check in CHECKS) * len(DISTRIBUTIONS) + len(IN_USE) + len(RUNS)


LONG = pytest.mark.nightly("compares the runs of many texts, a hundred times")
EVERY = [pytest.param(check, UNIFORM, 500, id=check.name) for check in CHECKS]
EVERY += [
    pytest.param(*run, id=f"{run[0].name}-{run[1].name}", marks=() if run[1].texts == 1 else LONG) for run in RUNS
]


@pytest.mark.parametrize(("check", "design", "n"), EVERY)
def test_every_check_can_be_measured(check, design, n):
    row = measure(check, design, n, 1, 100)
    assert all_faults([row]) == []
    assert len(cells(row)) == len(COLUMNS)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda distribution: distribution.name)
@pytest.mark.parametrize("distance", [0.001, 0.05, 0.3])
def test_wrong_distributions_are_as_far_away_as_they_say(distribution, distance):
    found = dict(wrong_distributions(distribution.pmf, distance))
    assert found
    for wrong in found.values():
        assert (wrong >= 0).all()
        assert wrong.sum() == pytest.approx(1, abs=1e-12)
        assert np.abs(wrong - distribution.pmf).sum() / 2 == pytest.approx(distance, abs=1e-9)


@pytest.mark.parametrize("alpha", [1e-3, 1e-8])
def test_sampled_tails_are_those_of_enumeration(alpha):
    n, rng = 60, np.random.default_rng(0)
    counts = np.array([c for c in itertools.product(range(n + 1), repeat=3) if sum(c) == n])
    for experiment in (MultinomialExperiment(THREE, n), DistributionFunctionExperiment(THREE, n)):
        exact = multinomial.pmf(counts, n, THREE.pmf)[experiment.rejected(counts, alpha)].sum()
        tail = experiment.tail(alpha, rng)
        assert tail.value == pytest.approx(exact, abs=5 * tail.standard_error + 1e-16)
        assert tail.standard_error < 0.1 * tail.value


def test_a_bound_that_no_draw_reaches_gets_chernoffs_answer():
    tail = tail_probability(multinomial_terms(50, THREE.pmf), 50, 0.95, 1.0, 100, np.random.default_rng(2))
    assert tail.standard_error == 0
    assert 0 < tail.value < 1


def test_pairs_of_consecutive_draws_stay_within_their_replicate():
    experiment = ConsecutiveExperiment(UNIFORM, 6)
    pairs = experiment.pair(np.arange(12).reshape(2, 6))
    assert pairs.tolist() == [[[0, 2, 4], [1, 3, 5]], [[6, 8, 10], [7, 9, 11]]]


def test_counts_may_be_above_the_nominal_rate_by_chance_only():
    assert not exceeds(1_050, 20_000, 0.05, 1e-6)
    assert exceeds(1_200, 20_000, 0.05, 1e-6)
    assert not exceeds(0, 20_000, 0.05, 1e-6)


def row(**changes):
    alarms = dict.fromkeys(NOMINAL, 3)
    values = {"tail": TailProbability(2e-9, 1e-10), "detectable": 0.05, "missed": {"head": 2, "tail": 9}}
    return Row("a check", "a distribution", 500, 1_000, alarms, **(values | changes))


def test_a_tail_that_is_not_shown_to_be_small_is_a_fault():
    assert all_faults([row()]) == []
    assert all_faults([row(tail=TailProbability(0.9 * ALPHA, 0.1 * ALPHA))])[0].startswith("a check, a distribution")


def test_the_report():
    text = markdown([row(), row(detectable=1.0), row(tail=TailProbability(0.0), missed={})], None, 5)
    line = f"| a check | a distribution | 500 | {ALPHA:.1e} | 3 (0.06-0.87 %) | 3 (0.06-0.87 %) | 2.0e-09 ± 1e-10 |"
    assert line in text
    assert "| 0.0500 | 9 of 1,000, tail |" in text
    assert "| none | - |" in text
    assert "Seed 5, 1,000 replicates" in text
    assert "| `sampler check reference` | 0 to 49 | not measured yet |" in text
    assert "| 0 of 50 (0.00-7.11 %) |" in markdown([row()], WholeRuns(50, 0), 5)
