"""Bounds at the alpha in use: against enumeration and sampling, at the edges, and with room to reject at all."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from sampler.statistics.binomial import Binomial
from sampler.statistics.judgement import hoeffding_reach
from sampler.statistics.multinomial import Multinomial
from sampler.statistics.power import reach_of_expectation, reach_of_one_set
from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.stratified import StratifiedCounts
from sampler.statistics.variation import chernoff, expected_variation
from tests.tools.calibration.distributions import DISTRIBUTIONS, PEAKED, ZIPF, wrong_distributions

N = 500  # the fewest draws with which the calibration tries any check
PMF, EMPTY = np.array([0.5, 0.3, 0.2]), np.zeros(0)
EACH = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda distribution: distribution.name)
FAR = {
    "one token": lambda alpha: Binomial(0.3, alpha).judge(N, N),
    "one token, downwards": lambda alpha: Binomial(0.3, alpha).judge(0, N),
    "one token of probability 0": lambda alpha: Binomial(0.0, alpha).judge(1, N),
    "one token of probability 1": lambda alpha: Binomial(1.0, alpha).judge(N - 1, N),
    "all tokens": lambda alpha: Multinomial(PMF, alpha).judge(np.array([0, 0, N])),
    "runs by text": lambda alpha: StratifiedCounts(alpha).judge([0] * 20, *[[N // 20] * 20] * 3),
    "scalars": lambda alpha: DistributionFunction(alpha).judge(np.ones(N), np.array([0.0, 1.0]), np.array([0.5, 0.5])),
}
"""A sample as wrong as can be, for each check. A new check is a new line."""
FAR |= {  # all draws are the least likely token
    f"all tokens, {each.name}": lambda alpha, pmf=each.pmf: Multinomial(pmf, alpha).judge(
        N * np.eye(len(pmf), dtype=np.int64)[-1]
    )
    for each in DISTRIBUTIONS
}


@pytest.mark.parametrize("alpha", [1e-8, 1e-12])
@pytest.mark.parametrize("wrong", FAR.values(), ids=FAR)
def test_every_check_can_reject_at_the_alpha_in_use(wrong, alpha):
    judgement = wrong(alpha)
    assert judgement.rejected
    assert judgement.p_value < alpha


@pytest.mark.parametrize(
    ("judgement", "detectable"),
    [
        (Multinomial(PMF, 1e-8).judge(np.zeros(3, dtype=np.int64)), Multinomial(PMF, 1e-8).detectable(0)),
        (Binomial(0.3, 1e-8).judge(0, 0), Binomial(0.3, 1e-8).detectable(0)),
        (StratifiedCounts(1e-8).judge([0], [0], [3], [5]), StratifiedCounts(1e-8).detectable_rise(0.3, [0], [10])),
        (DistributionFunction(1e-8).judge(EMPTY, np.arange(3.0), PMF), DistributionFunction(1e-8).detectable(0)),
    ],
)
def test_without_observations_nothing_is_rejected_or_detectable(judgement, detectable):
    assert (judgement.rejected, judgement.p_value, detectable) == (False, 1, 1)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 2_000])
@pytest.mark.parametrize("pmf", [np.ones(1), np.array([1.0, 0.0]), np.array([1 - 1e-12, 1e-12]), PMF])
def test_few_draws_and_few_tokens(pmf, n):
    test, counts = Multinomial(pmf, 1e-12), np.zeros(len(pmf), dtype=np.int64)
    counts[0] = n
    assert not test.judge(counts).rejected or n == 2_000
    assert 0 < test.detectable(n) <= 1


def test_a_vocabulary_of_151_936():
    pmf = 1 / np.arange(1.0, 151_937.0)
    test = Multinomial(pmf / pmf.sum(), 1e-8)
    counts = np.random.default_rng(0).multinomial(20_000, test.probabilities)
    assert not test.judge(counts).rejected
    start = time.perf_counter()
    test.judge(counts)
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize("rate", [0.05, 1e-8])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.01])
@pytest.mark.parametrize("n", [1, 7, 400])
def test_chernoff_bounds_the_tails_of_two_tokens(p, n, rate):
    counts = np.arange(n + 1)
    variation, pmf = np.abs(counts / n - p), binom.pmf(counts, n, p)
    for side in (1, -1):
        tail = chernoff(n, np.array([p, 1 - p]), rate, side)
        for value in variation:
            beyond = variation >= value - 1e-12 if side > 0 else variation <= value + 1e-12
            assert pmf[beyond].sum() <= np.exp(tail.log_probability(n, float(value)) + 1e-6)


@EACH
def test_the_moments_behind_chernoffs_bound(distribution):
    n, rng = 2_000, np.random.default_rng(0)
    tail = chernoff(n, distribution.pmf, 0.3, 1)
    draws = rng.multinomial(n, distribution.pmf, 20_000)
    values = np.exp(tail.theta * np.abs(draws - n * distribution.pmf).sum(axis=1) / 2 - tail.log_moment)
    assert values.mean() < 1 + 5 * values.std() / np.sqrt(len(values))
    if len(distribution.pmf) <= 48:
        assert values.mean() > 1 - 5 * values.std() / np.sqrt(len(values))


@given(st.integers(5, 400), st.floats(0.01, 0.3), st.sampled_from([0.01, 0.1]), st.sampled_from([0.0, 0.6, 0.95]))
def test_one_set_is_missed_no_more_often_than_said(n, bound, miss_rate, largest):
    d = reach_of_one_set(bound, n, miss_rate, largest)
    if d < 1:
        masses = np.linspace(0, 1 - d, 200)
        masses = masses[(masses <= 1 - largest) | (masses >= largest)]
        missed = binom.cdf(np.floor(n * (masses + bound) + 1e-9), n, masses + d)
        assert missed.max() <= miss_rate + 1e-9


def test_one_set_needs_no_more_than_hoeffding_says_plus_one_draw():
    assert reach_of_one_set(0.1, 2_000, 0.01) < 0.1 + hoeffding_reach(0.01, 2_000)
    assert reach_of_one_set(0.1, 2_000, 0.01, 0.95) < reach_of_one_set(0.1, 2_000, 0.01)


@pytest.mark.parametrize("pmf", [np.full(200, 0.005), ZIPF.pmf, PEAKED.pmf])
def test_no_wrong_distribution_has_a_smaller_expectation_than_duality_says(pmf):
    """It is close for equal tokens, where the direction of the least expectation is known: every other token gains."""
    n, rng = 400, np.random.default_rng(1)
    expectation = expected_variation(n, pmf) + 0.05
    distance = reach_of_expectation(expectation, n, pmf)

    def variation(wrong):
        return np.abs(rng.multinomial(n, wrong, 2_000) / n - pmf).sum(axis=1) / 2

    for _, wrong in wrong_distributions(pmf, distance):
        found = variation(wrong)
        assert found.mean() > expectation - 5 * found.std() / np.sqrt(2_000)
    if len(set(pmf)) == 1:
        nearer = dict(wrong_distributions(pmf, 0.9 * distance))
        assert variation(nearer["every other token"]).mean() < expectation


@EACH
def test_sharper_than_mcdiarmid_and_hoeffding(distribution):
    n = 20_000
    test = Multinomial(distribution.pmf, 1e-8)
    plain = expected_variation(n, distribution.pmf) + hoeffding_reach(5e-9, n) + hoeffding_reach(0.01, n)
    assert test.detectable(n) < 0.9 * plain


@pytest.mark.parametrize(("p", "n"), [(0.001, 2_000), (0.3, 20), (0.6, 20), (0.95, 100), (0.0, 50), (1.0, 50)])
def test_every_probability_at_least_as_far_away_is_seen(p, n):
    test = Binomial(p, 1e-7)
    detectable = test.detectable(n)
    for other in np.linspace(0, 1, 401):
        if abs(other - p) >= detectable:
            assert test.miss_rate(float(other), n) <= 0.01 + 1e-9
