"""The tests of hypotheses are tested themselves: error rates by enumeration, designs both ways, refusals."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from sampler.checks.conformance.draw.frequencies import consecutive
from sampler.statistics.binomial import Binomial
from sampler.statistics.budget import Budget
from sampler.statistics.exceedances import Exceedances
from sampler.statistics.judgement import detectable_leak
from sampler.statistics.multinomial import Multinomial
from sampler.statistics.ranks import RankSum
from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.share import AtMost
from sampler.statistics.stratified import StratifiedCounts
from sampler.statistics.variation import expected_variation, mean_absolute_deviations

PMF = np.array([0.5, 0.3, 0.2])


def all_counts(n: int) -> np.ndarray:
    """Every way to put n draws on three tokens: (ways, 3)."""
    return np.array([[a, b, n - a - b] for a in range(n + 1) for b in range(n + 1 - a)], dtype=np.int64)


@pytest.mark.parametrize("alpha", [0.05, 1e-4, 1e-8])
@pytest.mark.parametrize("n", [5, 20, 80])
@pytest.mark.parametrize("pmf", [PMF, np.array([0.96, 0.03, 0.01])])
def test_multinomial_false_alarms_by_enumeration(pmf, n, alpha):
    test, counts = Multinomial(pmf, alpha), all_counts(n)
    rejected = np.array([test.judge(row).rejected for row in counts])
    assert multinomial.pmf(counts, n, pmf)[rejected].sum() <= alpha
    assert n < 80 or rejected.any()


@pytest.mark.parametrize("n", [60, 120])
def test_multinomial_misses_no_more_than_announced_in_any_direction(n):
    """And half of the announced discrepancy is missed more often than not: the bound is no formality."""
    test, counts = Multinomial(PMF, 0.01), all_counts(n)
    kept = np.array([not test.judge(row).rejected for row in counts])
    variation = test.detectable(n)
    for other in (PMF + variation * np.array(d) for d in ([1, -1, 0], [1, 0, -1], [0.5, 0.5, -1], [-1, 1, 0])):
        if (other >= 0).all() and (other <= 1).all():
            assert multinomial.pmf(counts, n, other)[kept].sum() <= 0.01
    smaller = PMF + variation / 2 * np.array([1, -1, 0])
    assert n < 120 or multinomial.pmf(counts, n, smaller)[kept].sum() > 0.5


@given(st.integers(1, 60), st.floats(1e-6, 1))
def test_mean_absolute_deviation_is_its_definition(n, p):
    counts = np.arange(n + 1)
    expected = np.abs(counts - n * p) @ binom.pmf(counts, n, p)
    assert mean_absolute_deviations(n, np.array([p]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_expected_variation_is_the_mean_of_the_statistic():
    counts = all_counts(15)
    variation = np.abs(counts / 15 - PMF).sum(-1) / 2
    assert expected_variation(15, PMF) == pytest.approx(variation @ multinomial.pmf(counts, 15, PMF), rel=1e-12)


def test_draws_that_are_too_regular_are_rejected():
    """4,096 tokens drawn exactly as often as expected: no generator of noise does that."""
    test = Multinomial(np.full(4_096, 1 / 4_096), 1e-9)
    assert test.accepted(40_960)[0] > 0
    assert test.judge(np.full(4_096, 10)).rejected
    honest = np.random.default_rng(0).multinomial(40_960, test.probabilities)
    assert not test.judge(honest).rejected


@pytest.mark.parametrize("alpha", [0.05, 0.01, 1e-9])
@pytest.mark.parametrize("p", [0.0, 0.001, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("n", [1, 30, 400])
def test_binomial_false_alarms_are_exact(alpha, p, n):
    test, counts = Binomial(p, alpha), np.arange(n + 1)
    rejected = np.array([test.judge(int(count), n).rejected for count in counts])
    low, high = test.accepted(n)
    for beyond in (rejected, (counts < low) | (counts > high)):
        assert binom.pmf(counts, n, p)[beyond].sum() <= alpha


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_binomial_misses_no_more_than_it_says(p):
    test, n = Binomial(p, 1e-6), 1_000
    difference = test.detectable(n)
    counts = np.arange(n + 1)
    kept = np.array([not test.judge(int(count), n).rejected for count in counts])
    for other in (p + difference, p - difference):
        assert not 0 <= other <= 1 or binom.pmf(counts, n, other)[kept].sum() <= 0.01 + 1e-9
    assert test.miss_rate(p + difference / 2, n) > 0.05


def test_a_leak_of_the_size_that_is_detectable_and_scalars_with_atoms():
    assert (1 - detectable_leak(1_000)) ** 1_000 == pytest.approx(0.01)
    assert detectable_leak(0) == 1.0
    values, test = np.array([0.0, 1.0, 5.0]), DistributionFunction(1e-6)
    rng, n = np.random.default_rng(2), 2_000
    right, wrong = rng.choice(values, n, p=PMF), rng.choice(values, n, p=PMF + np.array([0.1, -0.1, 0.0]))
    assert not test.judge(right, values, PMF).rejected
    assert test.judge(wrong, values, PMF).rejected
    assert test.judge(np.full(n, 0.5), values, PMF).statistic == pytest.approx(0.5)


@given(st.integers(1, 5), st.integers(0, 60))
def test_pairs_are_disjoint_and_at_their_lag(lag, n):
    first, second = consecutive(np.arange(n), lag)
    assert (second - first == lag).all()
    assert len(set(first) | set(second)) == 2 * len(first)
    assert len(first) >= (n - 2 * lag + 1) // 2


@given(st.dictionaries(st.text(max_size=5), st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(1e-12, 0.5))
def test_a_budget_is_never_overdrawn(weights, rate):
    parts = Budget(rate).split(weights)
    assert math.fsum(parts.values()) <= rate
    assert sum(parts.values()) >= 0.999 * rate
    assert list(parts) == list(weights)


ONE, MANY, NAN = np.ones(1), np.ones(30), np.array([np.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Budget(0), "false_alarm_rate = 0 is no error rate"),
        (lambda: Budget().split({}), "at least one check"),
        (lambda: Budget().split({"a": -1.0}), "the weight of 'a' is -1.0"),
        (lambda: Binomial(1.5, 0.1), "probability = 1.5"),
        (lambda: Binomial(0.5, 1.0), "alpha = 1.0 is no error rate"),
        (lambda: Binomial(0.3, 0.1).judge(6, 5), "count = 6"),
        (lambda: Multinomial(np.array([0.5, 0.6]), 0.1), "the probabilities sum to 1.1"),
        (lambda: Multinomial(PMF, 0.1).judge(np.array([5])), "counts of"),
        (lambda: DistributionFunction(0.1).judge(NAN, np.arange(3.0), PMF), "1 of 1 samples are NaN"),
        (lambda: DistributionFunction(0.1).judge(np.ones(3), np.arange(2.0), np.ones(2)), "sum to 2.0"),
        (lambda: detectable_leak(5, 2.0), "miss_rate = 2.0"),
        (lambda: AtMost(0.2, 0.1).judge(41, 40), "count = 41"),
        (lambda: AtMost(1.2, 0.1), "share = 1.2"),
        (lambda: RankSum(0.0), "alpha = 0.0 is no error rate"),
        (lambda: RankSum(0.1).judge([np.ones(2)], []), "1 texts are compared with 0"),
        (lambda: RankSum(0.1).judge([NAN], [ONE]), "a scalar of a run is NaN"),
        (lambda: RankSum(0.1).samples_needed(0.4, 3), "superiority = 0.4"),
        (lambda: Exceedances(0.1, 0.0), "beyond = 0.0 is no error rate"),
        (lambda: Exceedances(0.1).judge([NAN], [MANY]), "a value of a run is NaN"),
        (lambda: Exceedances(0.1).samples_needed(0.05, 3), "share = 0.05"),
        (lambda: StratifiedCounts(0.0), "alpha = 0.0"),
        (lambda: StratifiedCounts(0.1).judge([4], [3], [0], [3]), "first = [4] (expected 0 to [3])"),
        (lambda: StratifiedCounts(0.1).judge([1], [3], [-1], [3]), "second = [-1]"),
        (lambda: StratifiedCounts(0.1).judge([1, 2], [3], [1], [3]), "counts of 2, 1, 1 and 1 texts"),
        (lambda: StratifiedCounts(0.1).judge([0.5], [3], [1], [3]), "expected whole numbers, one a text"),
        (lambda: StratifiedCounts(0.1).detectable_rise(1.5, [3], [3]), "rate = 1.5"),
        (lambda: StratifiedCounts(0.1).detectable_rise(0.5, [3], [3], 0.0), "miss_rate = 0.0"),
        (lambda: StratifiedCounts(0.1).samples_needed(0.1, 3, rate=0.2), "share = 0.1"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
