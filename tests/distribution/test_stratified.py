"""Counts of two samples text by text: false alarms and misses by enumeration, laws by whole numbers."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from sampler.statistics.share import most_likely_missed, reached_share
from sampler.statistics.stratified import StratifiedCounts, _most_accepted
from sampler.statistics.sums import drawn_marks

UNEVEN = (np.array([3, 4, 2]), np.array([2, 4, 5]))
EVEN = (np.array([5, 5, 5]), np.array([5, 5, 5]))


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
    """Every pooled count of each text."""
    return itertools.product(*(range(one + other + 1) for one, other in zip(n_first, n_second, strict=True)))


def rejected_given(test, pooled, n_first, n_second) -> dict[int, bool]:
    """First count over all texts -> whether `judge` rejects; put on the texts in any way that fits."""
    found = {}
    ranges = [
        range(max(0, count - other), min(count, one) + 1)
        for count, one, other in zip(pooled, n_first, n_second, strict=True)
    ]
    for first in itertools.product(*ranges):
        if sum(first) not in found:
            second = [count - one for count, one in zip(pooled, first, strict=True)]
            found[sum(first)] = test.judge(first, n_first, second, n_second).rejected
    return found


@pytest.mark.parametrize("alpha", [0.2, 0.05, 1e-3])
@pytest.mark.parametrize(("n_first", "n_second"), [UNEVEN, EVEN], ids=["uneven", "even"])
def test_false_alarms_by_enumeration(alpha, n_first, n_second):
    """Given any pooled counts, hence for any rates of the texts; and some pooled counts do alarm."""
    worst = 0.0
    for pooled in tables(n_first, n_second):
        ways = exact_law(pooled, n_first, n_second)
        rejected = rejected_given(StratifiedCounts(alpha), pooled, n_first, n_second)
        worst = max(worst, sum(ways[count] for count, wrong in rejected.items() if wrong) / sum(ways))
    assert worst <= alpha
    assert worst > 0 or (n_first[0] == 3 and alpha == 1e-3)


def accepted(test, pooled, n_first, n_second) -> tuple[int, int]:
    """Smallest and largest first count that `judge` does not reject; those between them are not rejected either."""
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


CASES = (
    (0.2, np.array([9, 9]), np.array([9, 9]), 0.0),
    (0.2, np.array([9, 9]), np.array([9, 9]), 0.1),
    (0.2, np.array([4, 5, 4]), np.array([5, 3, 5]), 0.05),
    (0.2, np.array([9, 9]), np.array([9, 9]), 0.4),
    (0.02, np.array([12, 12]), np.array([14, 10]), 0.05),
)


@pytest.mark.parametrize(("alpha", "n_first", "n_second", "rate"), CASES)
def test_misses_by_enumeration(alpha, n_first, n_second, rate):
    """At the announced rise of the first sample: in every text, or on as few texts as hold it, in either sample."""
    test = StratifiedCounts(alpha)
    rise = test.detectable_rise(rate, n_second, n_first)
    assert rise < 1 - rate
    limits = {pooled: accepted(test, pooled, n_first, n_second) for pooled in tables(n_first, n_second)}
    for fullest in range(len(n_first)):
        for rates in (np.full(len(n_first), rate), spread(rate, n_first, fullest)):
            for others in (np.full(len(n_first), rate + rise), spread(rate + rise, n_second, fullest)):
                assert missed(limits, n_first, n_second, rates, others) <= 0.01
    small = np.full(len(n_first), rate + rise / 3)
    assert missed(limits, n_first, n_second, np.full(len(n_first), rate), small) > 0.05


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    st.sampled_from([0.3, 0.05, 0.01]),
)
def test_what_the_bound_counts_as_rejected_is_rejected(texts, alpha):
    """The bound knows the sum of the pooled counts alone; `judge` knows them text by text."""
    n_first, n_second = (np.array(side) for side in zip(*texts, strict=True))
    most = _most_accepted(alpha, n_first, n_second)
    assert (np.diff(most) >= 0).all()
    for pooled in tables(n_first, n_second):
        low, _ = accepted(StratifiedCounts(alpha), pooled, n_first, n_second)
        for first in range(int(n_first.sum()) + 1):
            assert first < low or sum(pooled) - first <= most[first]


@pytest.mark.parametrize("counts", [(0, 10, 9, 10), (3, 12, 1, 7), (5, 5, 0, 9), (2, 4, 2, 4)])
def test_one_text_is_fishers_test(counts):
    first, n_first, second, n_second = counts
    ours = StratifiedCounts(0.01).judge([first], [n_first], [second], [n_second])
    law = hypergeom(n_first + n_second, first + second, n_first)
    assert ours.p_value == pytest.approx(min(1.0, 2 * min(law.cdf(first), law.sf(first - 1))), rel=1e-6)
    assert ours.n == n_first + n_second


def test_texts_of_different_rates_are_not_confused():
    """One text always loops, one never does; the second sample has more runs of the first. Pooled, that looks wrong."""
    first, n_first, second, n_second = [2, 0], [2, 40], [40, 0], [40, 2]
    assert StratifiedCounts(1e-6).judge([2], [42], [40], [42]).rejected
    assert StratifiedCounts(1e-6).judge(first, n_first, second, n_second).p_value == 1


def test_texts_of_one_sample_alone_say_nothing():
    ours = StratifiedCounts(0.01).judge([1, 7], [5, 9], [5, 0], [5, 0])
    assert ours == StratifiedCounts(0.01).judge([1], [5], [5], [5])
    nothing = StratifiedCounts(0.01).judge([7], [9], [0], [0])
    assert (nothing.p_value, nothing.n, nothing.rejected) == (1.0, 0, False)
    assert StratifiedCounts(0.01).detectable_rise(0.1, [0], [9]) == 1.0
    assert StratifiedCounts(0.01).detectable_share([9], [0]) == 1.0


def test_pooled_over_texts_the_same_counts_would_be_judged_too_harshly():
    """One run a side of each text: given the texts with one marked run, each is a fair coin (sign test)."""
    first, second = [1] * 10 + [0] * 40, [0] * 50
    judged = StratifiedCounts(0.01).judge(first, [1] * 50, second, [1] * 50)
    assert judged.p_value == pytest.approx(2 * 0.5**10, rel=1e-8)


@pytest.mark.parametrize("second", [0, 3])
@pytest.mark.parametrize("sizes", [(20, 10), (1, 200), (200, 1)])
def test_marked_runs_miss_no_more_than_they_say(sizes, second):
    runs, texts = sizes
    test, rng, tried = StratifiedCounts(1e-6), np.random.default_rng(4), 300
    n = [runs] * texts
    share = test.detectable_share(n, n, second)
    assert 0 < share < 1
    missed = 0
    for _ in range(tried):
        others = rng.multivariate_hypergeometric(n, second) if second else [0] * texts
        missed += not test.judge(rng.binomial(runs, share, texts).tolist(), n, list(others), n).rejected
    assert binom.sf(missed - 1, tried, 0.01) > 1e-6


def test_marks_of_uneven_probabilities_are_seen_as_well():
    """All of them in half of the texts: independent marks of any probabilities are no more spread than equal ones."""
    test, rng, n = StratifiedCounts(1e-6), np.random.default_rng(5), [20] * 10
    share = test.detectable_share(n, n, 0)
    uneven = [2 * share, 0.0] * 5
    seen = [test.judge(rng.binomial(20, uneven).tolist(), n, [0] * 10, n).rejected for _ in range(500)]
    assert np.mean(seen) >= 0.99


def test_the_largest_count_that_is_missed_is_the_last_one_below_the_bound():
    assert most_likely_missed(2.0**-20, 0, 0.5) == 19  # P(20 of 20) = 2^-20 is still seen
    assert reached_share(20, 20, 0.01) == 1.0
    assert binom.cdf(19, 600, reached_share(19, 600, 0.01)) == pytest.approx(0.01, rel=1e-3)


def test_all_of_many_runs():
    """Tails far below what float64 subtraction could show."""
    judged = StratifiedCounts(1e-9).judge([0] * 30, [4] * 30, [4] * 30, [4] * 30)
    assert judged.p_value == pytest.approx(2 * (1 / 70) ** 30, rel=1e-6)


@pytest.mark.parametrize(
    ("ask", "text"),
    [
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
def test_refused(ask, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        ask()
