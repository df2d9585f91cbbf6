"""The tests of hypotheses are tested themselves: error rates by enumeration, the design functions both ways."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom, multinomial

from sampler.statistics.binomial import Binomial
from sampler.statistics.budget import Budget
from sampler.statistics.independence import coincidence, consecutive, judge_pairs
from sampler.statistics.multinomial import Multinomial
from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.support import detectable_leak, judge_support, samples_for_leak
from sampler.statistics.two_sample import TwoCounts, TwoSamples, expected_variation_between
from sampler.statistics.variation import expected_variation, mean_absolute_deviations

ALPHAS = (0.05, 0.01, 1e-9)
PMF = np.array([0.5, 0.3, 0.2])


def all_counts(n: int, size: int) -> np.ndarray:
    """Every way to put n draws on `size` tokens: (ways, size)."""
    return np.array([c for c in itertools.product(range(n + 1), repeat=size) if sum(c) == n], dtype=np.int64)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [5, 20, 40])
def test_multinomial_false_alarms_by_enumeration(alpha, n):
    test, counts = Multinomial(PMF, alpha), all_counts(n, 3)
    rejected = np.array([test.judge(row).rejected for row in counts])
    assert multinomial.pmf(counts, n, PMF)[rejected].sum() <= alpha


@pytest.mark.parametrize("n", [60, 120])
def test_multinomial_misses_no_more_than_it_says_in_any_direction(n):
    test, counts = Multinomial(PMF, 0.01), all_counts(n, 3)
    kept = np.array([not test.judge(row).rejected for row in counts])
    variation = test.detectable(n)
    for other in (PMF + variation * np.array(d) for d in ([1, -1, 0], [1, 0, -1], [0.5, 0.5, -1], [-1, 1, 0])):
        if (other >= 0).all() and (other <= 1).all():
            assert multinomial.pmf(counts, n, other)[kept].sum() <= 0.01


def test_multinomial_can_miss_what_is_smaller():
    """The bound is no formality: half of the announced discrepancy is missed more often than not."""
    test, n = Multinomial(PMF, 0.01), 120
    other, counts = PMF + test.detectable(n) / 2 * np.array([1, -1, 0]), all_counts(n, 3)
    kept = np.array([not test.judge(row).rejected for row in counts])
    assert multinomial.pmf(counts, n, other)[kept].sum() > 0.5


@given(st.integers(1, 60), st.floats(1e-6, 1))
def test_mean_absolute_deviation_is_its_definition(n, p):
    counts = np.arange(n + 1)
    expected = np.abs(counts - n * p) @ binom.pmf(counts, n, p)
    assert mean_absolute_deviations(n, np.array([p]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_expected_variation_is_the_mean_of_the_statistic():
    counts = all_counts(15, 3)
    variation = np.abs(counts / 15 - PMF).sum(-1) / 2
    assert expected_variation(15, PMF) == pytest.approx(variation @ multinomial.pmf(counts, 15, PMF), rel=1e-12)


def test_draws_that_are_too_regular_are_rejected():
    """4,096 tokens drawn exactly as often as expected: no generator of noise does that."""
    test = Multinomial(np.full(4_096, 1 / 4_096), 1e-9)
    assert test.sees_too_good(40_960)
    assert test.judge(np.full(4_096, 10)).rejected
    honest = np.random.default_rng(0).multinomial(40_960, test.probabilities)
    assert not test.judge(honest).rejected


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("p", [0.0, 0.001, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("n", [1, 30, 2_000])
def test_binomial_false_alarms_are_exact(alpha, p, n):
    test = Binomial(p, alpha)
    counts = np.arange(n + 1)
    rejected = np.array([test.judge(int(count), n).rejected for count in counts])
    low, high = test.accepted(n)
    assert binom.pmf(counts, n, p)[rejected].sum() <= alpha
    assert binom.pmf(counts, n, p)[(counts < low) | (counts > high)].sum() <= alpha


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_binomial_misses_no_more_than_it_says(p):
    test, n = Binomial(p, 1e-6), 3_000
    difference = test.detectable(n)
    for other in (p + difference, p - difference):
        if 0 <= other <= 1:
            counts = np.arange(n + 1)
            kept = np.array([not test.judge(int(count), n).rejected for count in counts])
            assert binom.pmf(counts, n, other)[kept].sum() <= 0.01 + 1e-9
    assert test.miss_rate(p + difference / 2, n) > 0.05


@pytest.mark.parametrize("difference", [0.05, 0.01])
def test_samples_needed_and_detectable_are_inverse(difference):
    for test in (Binomial(0.2, 1e-6), Multinomial(PMF, 1e-6), DistributionFunction(1e-6)):
        n = test.samples_needed(difference)
        assert test.detectable(n) <= difference < test.detectable(int(0.98 * n) - 1)


def test_support():
    allowed = np.array([True, False, True])
    assert not judge_support(np.array([5, 0, 3]), allowed).rejected
    assert judge_support(np.array([5, 1, 3]), allowed).rejected
    assert samples_for_leak(detectable_leak(1_000)) in (1_000, 1_001)
    assert (1 - detectable_leak(1_000)) ** 1_000 == pytest.approx(0.01)
    assert detectable_leak(0) == 1.0
    assert samples_for_leak(1e-6, 1e-6) == pytest.approx(13.8e6, rel=0.01)  # peers.md: 13.8 / q draws


@pytest.mark.parametrize("alpha", ALPHAS)
def test_two_counts_false_alarms_by_enumeration(alpha):
    test, n = TwoCounts(alpha), (14, 9)
    for rate in (0.05, 0.5, 0.8):
        wrong = sum(
            binom.pmf(first, n[0], rate) * binom.pmf(second, n[1], rate)
            for first, second in itertools.product(range(n[0] + 1), range(n[1] + 1))
            if test.judge(first, n[0], second, n[1]).rejected
        )
        assert wrong <= alpha


def test_two_counts_detectable():
    """The base rate of a missing EOS, 0.34 %: what 16,800 runs a side can tell from it."""
    test = TwoCounts(1e-3)
    rise = test.detectable(0.0034, 16_800, 16_800)
    assert 0.003 < rise < 0.005
    assert test.miss_rate(0.0034, 0.0034 + rise, 16_800, 16_800) <= 0.01
    assert test.miss_rate(0.0034, 0.0034 + rise / 2, 16_800, 16_800) > 0.1
    assert test.detectable(0.5, 3, 3) == 0.5


@pytest.mark.parametrize("alpha", ALPHAS)
def test_two_samples_false_alarms_by_enumeration(alpha):
    """Given pooled counts, every way to split them, with its probability."""
    pooled, n_first = np.array([6, 9, 5]), 8
    test, wrong, total = TwoSamples(alpha), 0.0, 0.0
    for counts in itertools.product(*(range(count + 1) for count in pooled)):
        if sum(counts) != n_first:
            continue
        ways = math.prod(math.comb(int(c), k) for c, k in zip(pooled, counts, strict=True))
        probability = ways / math.comb(int(pooled.sum()), n_first)
        total += probability
        first = np.array(counts)
        wrong += probability * test.judge(first, pooled - first).rejected
    assert total == pytest.approx(1)
    assert wrong <= alpha


def test_expected_variation_between_is_the_mean_over_all_splits():
    pooled, n_first = np.array([3, 4, 5]), 5
    expected = 0.0
    for counts in itertools.product(*(range(count + 1) for count in pooled)):
        if sum(counts) == n_first:
            first = np.array(counts)
            probability = hypergeom.pmf(counts[0], 12, 3, 5) * hypergeom.pmf(counts[1], 9, 4, 5 - counts[0])
            expected += probability * np.abs(first / 5 - (pooled - first) / 7).sum() / 2
    assert expected_variation_between(pooled, n_first) == pytest.approx(expected, rel=1e-12)


def test_two_samples_that_differ_as_announced_are_told_apart():
    rng, test, n = np.random.default_rng(1), TwoSamples(1e-9), 20_000
    variation = test.detectable(3, n, n)
    other = PMF + variation * np.array([1, -1, 0])
    first = rng.multinomial(n, PMF, 100)
    for second, rejected in ((rng.multinomial(n, other, 100), True), (rng.multinomial(n, PMF, 100), False)):
        judged = [test.judge(a, b).rejected for a, b in zip(first, second, strict=True)]
        assert all(judged) if rejected else not any(judged)


def test_scalars_with_atoms():
    values, test = np.array([0.0, 1.0, 5.0]), DistributionFunction(1e-6)
    rng, n = np.random.default_rng(2), test.samples_needed(0.1)
    right, wrong = rng.choice(values, n, p=PMF), rng.choice(values, n, p=PMF + np.array([0.1, -0.1, 0.0]))
    assert not test.judge(right, values, PMF).rejected
    assert test.judge(wrong, values, PMF).rejected
    assert test.judge(np.full(n, 0.5), values, PMF).statistic == pytest.approx(0.5)


def test_pairs():
    rng, pmf = np.random.default_rng(3), np.full(50, 0.02)
    tokens = rng.integers(0, 50, 20_000)
    assert coincidence(pmf, pmf) == pytest.approx(0.02)
    assert not judge_pairs(*consecutive(tokens), 0.02, 1e-9).rejected
    assert judge_pairs(tokens, tokens, 0.02, 1e-9).rejected  # the same noise twice
    assert judge_pairs(tokens, (tokens + 1) % 50, 0.02, 1e-9).rejected  # stratified: never the same
    assert not judge_pairs(*consecutive(np.repeat(tokens, 2), lag=2), 0.02, 1e-9).rejected
    assert judge_pairs(*consecutive(np.repeat(tokens, 2)), 0.02, 1e-9).rejected


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
        (lambda: Multinomial(np.array([0.5, 0.6]), 0.1), "the probabilities sum to 1.1"),
        (lambda: samples_for_leak(0.0), "mass = 0.0"),
        (lambda: detectable_leak(5, 2.0), "miss_rate = 2.0"),
        (lambda: consecutive(np.arange(3), 0), "lag = 0"),
    ],
)
def test_what_is_no_rate_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
