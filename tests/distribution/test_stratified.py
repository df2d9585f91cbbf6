"""Counts of two samples text by text: false alarms and misses by enumeration, laws by whole numbers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from sampler.statistics.share import most_likely_missed, reached_share
from sampler.statistics.stratified import StratifiedCounts, _most_accepted
from sampler.statistics.sums import drawn_marks

UNEVEN = (np.array([3, 4, 2]), np.array([2, 4, 5]))
EVEN = (np.array([5, 5, 5]), np.array([5, 5, 5]))
REST = [(alpha, *sides) for alpha in (0.2, 0.05, 1e-3) for sides in (UNEVEN, EVEN) if alpha != 0.05 or sides is EVEN]
NIGHTLY = pytest.mark.nightly("enumerates thousands of tables; the other cases stand for it")


def exact_law(pooled, n_first, n_second) -> list[int]:
    """Ways to draw each first count, 0 and up, as whole numbers: the product of one polynomial a text."""
    ways = [1]
    for count, one, other in zip(pooled, n_first, n_second, strict=True):
        each = [math.comb(int(one), k) * math.comb(int(other), int(count) - k) for k in range(int(count) + 1)]
        product = [0] * (len(ways) + len(each) - 1)
        for left, right in itertools.product(range(len(ways)), range(len(each))):
            product[left + right] += ways[left] * each[right]
        ways = product
    return ways


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_law_is_that_of_whole_numbers(texts):
    n_first, n_second = (np.array([text[place] for text in texts]) for place in (0, 1))
    pooled = np.array([round(share * (one + other)) for one, other, share in texts])
    ways = exact_law(pooled, n_first, n_second)
    law = drawn_marks(pooled.tolist(), n_first.tolist(), (n_first + n_second).tolist())
    for count in np.flatnonzero(ways).tolist():
        above, below = (sum(part) / sum(ways) for part in (ways[count:], ways[: count + 1]))
        assert law.upper(count) == pytest.approx(above, rel=2e-9, abs=1e-290)
        assert law.lower(count) == pytest.approx(below, rel=2e-9, abs=1e-290)


def tables(n_first, n_second):
    return itertools.product(*(range(one + other + 1) for one, other in zip(n_first, n_second, strict=True)))


def rejected_given(test, pooled, n_first, n_second) -> dict[int, bool]:
    """First count over all texts -> whether `judge` rejects; divided among the texts in any way that fits."""
    found, sizes = {}, zip(pooled, n_first, n_second, strict=True)
    ranges = [range(max(0, count - other), min(count, one) + 1) for count, one, other in sizes]
    for first in itertools.product(*ranges):
        if sum(first) not in found:
            second = [count - one for count, one in zip(pooled, first, strict=True)]
            found[sum(first)] = test.judge(first, n_first, second, n_second).rejected
    return found


@pytest.mark.parametrize(
    ("alpha", "n_first", "n_second"), [(0.05, *UNEVEN), *(pytest.param(*case, marks=NIGHTLY) for case in REST)]
)
def test_false_alarms_by_enumeration(alpha, n_first, n_second):
    worst = 0.0
    for pooled in tables(n_first, n_second):
        ways = exact_law(pooled, n_first, n_second)
        rejected = rejected_given(StratifiedCounts(alpha), pooled, n_first, n_second)
        worst = max(worst, sum(ways[count] for count, wrong in rejected.items() if wrong) / sum(ways))
    assert worst <= alpha
    assert worst > 0 or (n_first[0] == 3 and alpha == 1e-3)


def accepted(test, pooled, n_first, n_second) -> tuple[int, int]:
    counts = [first for first, wrong in rejected_given(test, pooled, n_first, n_second).items() if not wrong]
    assert len(counts) == max(counts) - min(counts) + 1
    return min(counts), max(counts)


def missed(limits, n_first, n_second, rates, others) -> float:
    """True probability of not rejecting, over every table: by pooled counts, then by the split of their sum."""
    total = 0.0
    for pooled, (low, high) in limits.items():
        law = np.ones(1)
        for count, one, other, rate, rise in zip(pooled, n_first, n_second, rates, others, strict=True):
            ours = np.arange(count + 1)
            law = np.convolve(law, binom.pmf(ours, one, rate) * binom.pmf(count - ours, other, rise))
        total += float(law[low : high + 1].sum())
    return total


def spread(mean: float, n: np.ndarray, fullest: int) -> np.ndarray:
    """Rates of texts whose mean over runs is `mean`: texts from `fullest` on are filled up first."""
    rates, rest = np.zeros(len(n)), mean * n.sum()
    for text in np.roll(np.arange(len(n)), -fullest):
        rates[text] = min(1.0, rest / n[text])
        rest -= rates[text] * n[text]
    return rates


@NIGHTLY
@pytest.mark.parametrize(
    ("alpha", "n_first", "n_second", "rate"),
    [
        (0.2, [9, 9], [9, 9], 0.0),
        (0.2, [9, 9], [9, 9], 0.1),
        (0.2, [4, 5, 4], [5, 3, 5], 0.05),
        (0.2, [9, 9], [9, 9], 0.4),
        (0.02, [12, 12], [14, 10], 0.05),
    ],
)
def test_misses_by_enumeration(alpha, n_first, n_second, rate):
    test, n_first, n_second = StratifiedCounts(alpha), np.array(n_first), np.array(n_second)
    rise = test.detectable_rise(rate, n_second, n_first)
    assert rise < 1 - rate
    limits = {pooled: accepted(test, pooled, n_first, n_second) for pooled in tables(n_first, n_second)}
    for fullest in range(len(n_first)):
        for rates in (np.full(len(n_first), rate), spread(rate, n_first, fullest)):
            for others in (np.full(len(n_first), rate + rise), spread(rate + rise, n_second, fullest)):
                assert missed(limits, n_first, n_second, rates, others) <= 0.01
    small = np.full(len(n_first), rate + rise / 3)
    assert missed(limits, n_first, n_second, np.full(len(n_first), rate), small) > 0.05


@pytest.mark.parametrize(("largest", "most_texts"), [(3, 2), pytest.param(6, 3, marks=NIGHTLY)])
@settings(max_examples=10)
@given(st.data(), st.sampled_from([0.3, 0.05, 0.01]))
def test_what_the_bound_counts_as_rejected_is_rejected(largest, most_texts, data, alpha):
    sizes = st.tuples(st.integers(1, largest), st.integers(1, largest))
    texts = data.draw(st.lists(sizes, min_size=1, max_size=most_texts))
    n_first, n_second = (np.array(side) for side in zip(*texts, strict=True))
    most = _most_accepted(alpha, n_first, n_second)
    assert (np.diff(most) >= 0).all()
    for pooled in tables(n_first, n_second):
        low, _ = accepted(StratifiedCounts(alpha), pooled, n_first, n_second)
        assert all(sum(pooled) - first <= most[first] for first in range(low, int(n_first.sum()) + 1))


@pytest.mark.parametrize("counts", [(0, 10, 9, 10), (3, 12, 1, 7), (5, 5, 0, 9), (2, 4, 2, 4)])
def test_one_text_is_fishers_test(counts):
    first, n_first, second, n_second = counts
    ours = StratifiedCounts(0.01).judge([first], [n_first], [second], [n_second])
    law = hypergeom(n_first + n_second, first + second, n_first)
    assert ours.p_value == pytest.approx(min(1.0, 2 * min(law.cdf(first), law.sf(first - 1))), rel=1e-6)
    assert ours.n == n_first + n_second


def test_texts_of_different_rates_are_not_confused():
    """One text always loops, one never does; the second sample has more runs of the first. Pooled, that looks wrong."""
    assert StratifiedCounts(1e-6).judge([2], [42], [40], [42]).rejected
    assert StratifiedCounts(1e-6).judge([2, 0], [2, 40], [40, 0], [40, 2]).p_value == 1


def test_texts_of_one_sample_alone_say_nothing():
    ours = StratifiedCounts(0.01).judge([1, 7], [5, 9], [5, 0], [5, 0])
    assert ours == StratifiedCounts(0.01).judge([1], [5], [5], [5])
    nothing = StratifiedCounts(0.01).judge([7], [9], [0], [0])
    assert (nothing.p_value, nothing.n, nothing.rejected) == (1.0, 0, False)
    assert StratifiedCounts(0.01).detectable_rise(0.1, [0], [9]) == 1.0
    assert StratifiedCounts(0.01).detectable_share([9], [0]) == 1.0


@pytest.mark.parametrize(
    ("first", "runs", "expected"),
    [
        # One run a side of each text: given the texts with one marked run, both sides are equally likely (sign test).
        ([1] * 10 + [0] * 40, 1, 2 * 0.5**10),
        # Tails far below what float64 subtraction could show.
        ([4] * 30, 4, 2 * (1 / 70) ** 30),
    ],
)
def test_p_values_of_marks_on_one_side_alone(first, runs, expected):
    n = [runs] * len(first)
    assert StratifiedCounts(0.01).judge(first, n, [0] * len(n), n).p_value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("second", [0, 3])
@pytest.mark.parametrize(("runs", "texts", "shares"), [(20, 10, [1]), (1, 200, [1]), (200, 1, [1]), (20, 10, [2, 0])])
def test_marked_runs_miss_no_more_than_announced(runs, texts, shares, second):
    test, rng, tried, n = StratifiedCounts(1e-6), np.random.default_rng(4), 300, [runs] * texts
    share = test.detectable_share(n, n, second)
    assert 0 < share < 1
    first = [rng.binomial(runs, share * np.resize(shares, texts)).tolist() for _ in range(tried)]
    others = [rng.multivariate_hypergeometric(n, second).tolist() if second else [0] * texts for _ in range(tried)]
    missed = sum(not test.judge(one, n, other, n).rejected for one, other in zip(first, others, strict=True))
    assert binom.sf(missed - 1, tried, 0.01) > 1e-6


def test_the_largest_count_that_is_missed_is_the_last_one_below_the_bound():
    assert most_likely_missed(2.0**-20, 0, 0.5) == 19  # P(20 of 20) = 2^-20 is still seen
    assert reached_share(20, 20, 0.01) == 1.0
    assert binom.cdf(19, 600, reached_share(19, 600, 0.01)) == pytest.approx(0.01, rel=1e-3)
