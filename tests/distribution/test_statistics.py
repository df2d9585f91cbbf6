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
from sampler.statistics.share import AtLeast, AtMost
from sampler.statistics.stratified import StratifiedCounts
from sampler.statistics.variation import expected_variation, mean_absolute_deviations

PMF = np.array([0.5, 0.3, 0.2])
ONE, MANY, NAN = np.ones(1), np.ones(30), np.array([np.nan])


def all_counts(n: int) -> np.ndarray:
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


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [1, 7, 40, 200])
@pytest.mark.parametrize("alpha", [0.05, 1e-4, 1e-9])
def test_false_alarms_of_a_share_are_at_most_alpha_and_the_bound_is_the_smallest_such(share, n, alpha):
    test = AtMost(share, alpha)
    most = test.most(n)
    counts = np.arange(n + 1)
    law = binom.pmf(counts, n, share)
    rejected = np.array([test.judge(int(count), n).rejected for count in counts])
    assert law[rejected].sum() <= alpha
    assert rejected.sum() == n - most
    assert most == math.ceil(n * share) or binom.sf(most - 1, n, share) > alpha


@pytest.mark.parametrize(("share", "n", "alpha"), [(0.2, 40, 1e-9), (0.05, 200, 1e-6), (0.5, 60, 1e-8)])
def test_what_a_share_announces_is_missed_at_most_once_in_a_hundred(share, n, alpha):
    test = AtMost(share, alpha)
    seen = test.detectable(n)
    assert binom.cdf(test.most(n), n, seen) <= 0.01
    assert seen - 1e-3 < (test.most(n) + 1) / n or binom.cdf(test.most(n), n, seen - 1e-3) > 0.01
    assert AtLeast(1 - share, alpha).detectable(n) == pytest.approx(1 - seen)


def test_few_observations_detect_nothing_and_at_least_counts_what_is_not_marked():
    assert AtMost(0.2, 1e-9).detectable(5) == 1.0
    assert AtLeast(0.5, 1e-9).detectable(5) == 0.0
    assert not AtMost(0.2, 1e-9).judge(0, 0).rejected
    assert AtLeast(0.5, 1e-9).judge(0, 40).rejected
    assert not AtLeast(0.5, 1e-9).judge(20, 40).rejected


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
