"""Shares beside a given bound: exact binomial tails, and what they can see."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from sampler.statistics.share import AtLeast, AtMost


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [1, 7, 40, 200])
@pytest.mark.parametrize("alpha", [0.05, 1e-4, 1e-9])
def test_false_alarms_are_at_most_alpha_and_the_bound_is_the_smallest_such(share, n, alpha):
    test = AtMost(share, alpha)
    most = test.most(n)
    counts = np.arange(n + 1)
    law = binom.pmf(counts, n, share)
    rejected = np.array([test.judge(int(count), n).rejected for count in counts])
    assert law[rejected].sum() <= alpha
    assert rejected.sum() == n - most
    assert most == math.ceil(n * share) or binom.sf(most - 1, n, share) > alpha


@pytest.mark.parametrize(("share", "n", "alpha"), [(0.2, 40, 1e-9), (0.05, 200, 1e-6), (0.5, 60, 1e-8)])
def test_what_is_announced_is_missed_at_most_once_in_a_hundred(share, n, alpha):
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
