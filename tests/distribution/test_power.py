"""What each test says that it detects, beside an oracle of its own: neither smaller than it is, nor larger.

A power that is overstated turns `inconclusive` into `passed`. So each number is computed a second time from the
definition in whole numbers, plain Python or by enumeration, without the package's sums, roots and quantiles.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from sampler.statistics.binomial import Binomial
from sampler.statistics.exceedances import Exceedances
from sampler.statistics.judgement import detectable_leak, fewest, hoeffding_reach
from sampler.statistics.multinomial import Multinomial
from sampler.statistics.power import reach_of_one_set
from sampler.statistics.ranks import RankSum
from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.share import AtLeast, AtMost, most_likely_missed, reached_share
from sampler.statistics.stratified import StratifiedCounts, _most_accepted

MISSED = (0.01, 0.1, 0.6)


def below(most: int, n: int, share: float) -> float:
    """P(X <= most) of n trials, summed term by term."""
    if most >= n:
        return 1.0
    return math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(most + 1))


def divergence(x: float, y: float) -> float:
    parts = [(x, y), (1 - x, 1 - y)]
    return math.fsum(one * math.log(one / other) if other > 0 else math.inf for one, other in parts if one > 0)


def smallest(enough: Callable[[float], bool], low: float, high: float = 1.0) -> float:
    """Where a rising condition begins, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def share_of(most: int, runs: int) -> float:
    """The share under which at most so many successes are seen in 1 % of the cases, no less than one more than they."""
    return max((most + 1) / runs, smallest(lambda share: below(most, runs, share) <= 0.01, 0.0)) if most < runs else 1.0


def orders(m: int, n: int) -> list[int]:
    """Numbers of ways to have 0..mn wins of m runs over n, by Mann and Whitney's recursion in whole numbers."""
    if m == 0 or n == 0:
        return [1]
    first, second = orders(m - 1, n), orders(m, n - 1)
    count = [0] * (m * n + 1)
    for wins, ways in enumerate(first):
        count[wins + n] += ways
    for wins, ways in enumerate(second):
        count[wins] += ways
    return count


def most_wins(sizes: list[tuple[int, int]], rate: Fraction) -> int:
    """The largest number of wins over all texts whose upper tail is above a rate, by the law of whole numbers."""
    law = [1]
    for size in sizes:
        part = orders(*size)
        law = [
            sum(law[k] * part[wins - k] for k in range(max(0, wins - len(part) + 1), min(wins, len(law) - 1) + 1))
            for wins in range(len(law) + len(part) - 1)
        ]
    total, tail = sum(law), 0
    for wins in range(len(law) - 1, -1, -1):
        tail += law[wins]
        if Fraction(tail, total) > rate:
            return wins
    raise AssertionError("the whole law is above any rate")


SIZES = {
    "one text": [(7, 7)],
    "more first runs": [(9, 4), (7, 5)],
    "more second runs": [(3, 8), (5, 8)],
    "unequal texts": [(6, 6), (4, 2), (3, 5)],
    "many small texts": [(2, 2)] * 12,
    "one run against many": [*[(5, 5)] * 8, *[(1, 16)] * 2],  # where the bound by variance is the nearer one
}
OF_SIZES = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


@OF_SIZES
@pytest.mark.parametrize("miss_rate", MISSED)
def test_the_rank_sum_announces_what_hoeffdings_bounds_give(sizes, miss_rate):
    """From the exact law in whole numbers; a single win more or less would change the answer by 100 times the slack."""
    alpha, pairs = Fraction(1, 50), sum(m * n for m, n in sizes)
    accepted = most_wins(sizes, alpha / 2) / pairs
    weights = [m * n / pairs for m, n in sizes]
    spread = sum(weight**2 / min(size) for weight, size in zip(weights, sizes, strict=True))
    count = min(min(size) / weight for weight, size in zip(weights, sizes, strict=True))

    def enough(true: float) -> bool:
        by_variance = math.exp(-2 * (true - accepted) ** 2 / spread)
        return min(by_variance, math.exp(-count * divergence(accepted, min(true, 1 - 1e-12)))) <= miss_rate

    expected = smallest(enough, accepted) if accepted < 1 else 1.0
    found = RankSum(float(alpha)).planned(sizes, miss_rate)
    assert expected <= found + 1e-12
    assert found == pytest.approx(expected, abs=2e-9)


@OF_SIZES
def test_the_rank_sum_misses_no_more_than_it_announces(sizes):
    """The whole law of wins where each first run is above all second ones with the announced probability, or below."""
    found = RankSum(0.02).planned(sizes, 0.1)
    law = np.ones(1)
    for m, n in sizes:
        part = np.zeros(m * n + 1)
        part[::n] = [math.comb(m, k) * found**k * (1 - found) ** (m - k) for k in range(m + 1)]
        law = np.convolve(law, part)
    assert law[: most_wins(sizes, Fraction(1, 100)) + 1].sum() <= 0.1 or found == 1.0


@pytest.mark.parametrize("miss_rate", MISSED)
@pytest.mark.parametrize("runs", [1, 2, 20, 60])
def test_a_share_is_reached_where_the_binomial_says(runs, miss_rate):
    for missed in range(runs + 1):
        found, mean = reached_share(missed, runs, miss_rate), (missed + 1) / runs
        assert below(missed, runs, found) <= miss_rate or found == 1.0
        assert found <= max(mean, smallest(lambda share: below(missed, runs, share) <= miss_rate, 0.0)) + 3e-9  # noqa: B023
        assert found >= min(1.0, mean)


@pytest.mark.parametrize("rate", [0.3, 1e-3, 1e-9])
@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.8])
@pytest.mark.parametrize("others", [0, 1, 7, 40])
def test_the_largest_count_that_is_missed_is_counted_up_to(rate, fraction, others):
    def likely(count: int) -> bool:
        share = count / (count + others) if count else 0.0
        return share <= fraction or math.exp(-(count + others) * divergence(share, fraction)) > rate

    expected = next(count for count in itertools.count() if not likely(count + 1))
    assert most_likely_missed(rate, others, fraction) == expected


@pytest.mark.parametrize("share", [0.03125, 0.25, 0.5])
@pytest.mark.parametrize("n", [10, 60, 160])
@pytest.mark.parametrize("alpha", [1e-3, 0.8])  # 0.8: no count up to the mean is rejected
def test_a_limit_on_a_share_announces_what_its_tails_give(share, n, alpha):
    most = max(next(k for k in range(n + 1) if 1 - below(k, n, share) <= alpha), math.ceil(n * share))
    expected = share_of(most, n)
    assert AtMost(share, alpha).detectable(n) == pytest.approx(expected, abs=3e-9)
    assert AtLeast(1 - share, alpha).detectable(n) == pytest.approx(1 - expected, abs=3e-9)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", [25, 120])
def test_a_probability_announces_what_its_tails_give(p, n):
    alpha = 0.01
    low = next(k for k in range(n + 1) if below(k, n, p) >= alpha / 2)
    high = next(k for k in range(n + 1) if 1 - below(k, n, p) <= alpha / 2)

    def missed(true: float) -> float:
        return below(high, n, true) - (below(low - 1, n, true) if low else 0.0)

    rooms = [(sign, room) for sign, room in ((1, 1 - p), (-1, p)) if missed(p + sign * room) <= 0.01]
    ways = [smallest(lambda away, sign=sign: missed(p + sign * away) <= 0.01, 0.0, room) for sign, room in rooms]
    lost = [room for sign, room in ((1, 1 - p), (-1, p)) if (sign, room) not in rooms]
    assert Binomial(p, alpha).detectable(n) == pytest.approx(max(ways + lost), abs=1e-10)
    assert Binomial(p, alpha).miss_rate(p + rooms[0][0] * 0.07, n) == pytest.approx(missed(p + rooms[0][0] * 0.07))


@pytest.mark.parametrize("miss_rate", MISSED)
@pytest.mark.parametrize("largest", [0.0, 0.6, 0.95])
@pytest.mark.parametrize(("bound", "n"), [(0.1, 50), (0.3, 200), (0.02, 4_000)])
def test_one_set_announces_what_zubkov_and_serov_give(bound, n, largest, miss_rate):
    """Over a grid of 2,001 masses in place of the formula for the worst one."""

    def enough(d: float) -> bool:
        masses = [*np.linspace(0, 1 - d, 2_001).tolist(), *(mass for mass in (1 - largest, largest) if mass <= 1 - d)]
        allowed = [mass for mass in masses if mass <= 1 - largest or mass >= largest]
        least = min(divergence(mass + bound + 1 / n, min(1.0, mass + d)) for mass in allowed)
        return NormalDist().cdf(-math.sqrt(2 * n * least)) <= miss_rate

    if miss_rate > 0.5:  # the inequality starts at its step
        assert reach_of_one_set(bound, n, miss_rate, largest) == pytest.approx(bound + 1 / n, abs=1e-6)
        return
    low, high = bound + 1 / n, 1 - 1e-9
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    assert reach_of_one_set(bound, n, miss_rate, largest) == pytest.approx(high, abs=2e-4)


@pytest.mark.parametrize(("pmf", "n"), [([0.5, 0.3, 0.2], 60), ([0.7, 0.3], 90), ([0.1, 0.9], 90)])
def test_no_distribution_that_far_away_is_missed_more_often(pmf, n):
    """All outcomes of so few tokens, in every direction in which one token alone gains or loses."""
    test, p = Multinomial(np.array(pmf), 0.02), np.array(pmf)
    found = test.detectable(n, 0.1)
    bound = test.accepted(n)[1]
    outcomes = [k for k in itertools.product(range(n + 1), repeat=len(pmf) - 1) if sum(k) <= n]
    counts = np.array([[*k, n - sum(k)] for k in outcomes])
    kept = counts[np.abs(counts / n - p).sum(1) / 2 <= bound]
    tried = 0
    for token, sign in itertools.product(range(len(pmf)), (1, -1)):
        others = (p * (np.arange(len(p)) != token)) / (1 - p[token])
        wrong = p - sign * found * others
        wrong[token] = p[token] + sign * found
        if (wrong >= 0).all():
            tried += 1
            ways = [
                math.prod([math.comb(n - sum(row[:i]), int(k)) for i, k in enumerate(row)]) for row in kept.tolist()
            ]
            assert math.fsum(np.array(ways, dtype=float) * (wrong**kept).prod(1)) <= 0.1
    assert tried
    assert found < 1.7 * bound


@pytest.mark.parametrize("n", [40, 700])
def test_scalars_announce_what_massarts_bound_gives(n):
    alpha = 1e-4
    bound = smallest(lambda distance: 2 * math.exp(-2 * n * distance**2) <= alpha, 0.0)
    assert hoeffding_reach(alpha / 2, n) == pytest.approx(bound, rel=1e-12)
    assert DistributionFunction(alpha).detectable(n) == pytest.approx(reach_of_one_set(bound, n, 0.01), rel=1e-9)


@pytest.mark.parametrize("n", [1, 30, 10_000])
@pytest.mark.parametrize("miss_rate", MISSED)
def test_a_leak_is_missed_by_all_draws_at_once(n, miss_rate):
    assert (1 - detectable_leak(n, miss_rate)) ** n == pytest.approx(miss_rate, rel=1e-9)


@pytest.mark.parametrize("needed", [1, 2, 3, 17, 999, 1_000, 12_345])
def test_the_fewest_observations_are_counted_up_to(needed):
    found = fewest(lambda n: 0.2 if n >= needed else 0.3, 0.2)
    assert needed <= found <= needed * 1.001
    assert found == needed or needed > 1_000


def most_of_the_other(alpha: float, n_fewer: list[int], n_more: list[int], count: int) -> int:
    """The largest second count beside `count` that the binomial bounds do not reject, one after the other."""
    shares = [Fraction(one, one + other) for one, other in zip(n_fewer, n_more, strict=True)]
    least, total, half = float(min(shares)), sum(n_fewer) + sum(n_more), alpha / 2

    def rejected(most: int, trials: int, share: float) -> bool:
        return most + 1 <= trials * share and below(most, trials, share) <= half

    accepted = 0
    for other in range(sum(n_more) + 1):
        pooled, failures = count + other, total - count - other
        by_successes = rejected(count, pooled, least)
        by_failures = rejected(sum(n_more) - other, failures, float(1 - max(shares)))
        if not by_successes and not by_failures:
            accepted = other
    return accepted


@pytest.mark.parametrize(("n_fewer", "n_more"), [([9], [9]), ([12], [20]), ([5, 4], [6, 9]), ([30], [8])])
@pytest.mark.parametrize("alpha", [0.2, 0.02])
def test_the_counts_that_texts_may_have_are_those_of_the_binomial_bounds(n_fewer, n_more, alpha):
    found = _most_accepted(alpha, np.array(n_fewer), np.array(n_more))
    assert found.tolist() == [most_of_the_other(alpha, n_fewer, n_more, k) for k in range(sum(n_fewer) + 1)]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("first", [0.5, 0.9])
def test_rises_are_missed_as_the_sum_over_all_counts_says(rate, first):
    n_first, n_second, alpha = 25, 20, 0.05
    most = [most_of_the_other(alpha, [n_second], [n_first], count) for count in range(n_second + 1)]
    given = [below(k, n_first, first) if k <= n_first * first - 1 else 1.0 for k in most]
    upper = [1.0 if x - 1 < n_second * rate else 1 - below(x - 1, n_second, rate) for x in range(1, n_second + 1)]
    expected = given[0] + sum((given[x + 1] - given[x]) * tail for x, tail in enumerate(upper))
    found = StratifiedCounts(alpha).miss_rate(first, rate, [n_first], [n_second])
    assert found == pytest.approx(min(1.0, expected), rel=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_the_rise_that_is_announced_is_the_smallest_one(rate):
    test, sizes = StratifiedCounts(0.05), ([40], [40])
    rise = test.detectable_rise(rate, *sizes)
    assert test.miss_rate(rate + rise, rate, *sizes) <= 0.01 < test.miss_rate(rate + 0.997 * rise, rate, *sizes)


@pytest.mark.parametrize("counted", [0, 4])
def test_a_share_of_marks_is_announced_from_the_largest_count_that_is_missed(counted):
    n_first, n_second, alpha = [20, 6], [10, 6], 1e-3
    fraction = 20 / 30

    def seen(count: int) -> bool:
        share = count / (count + counted)
        return share > fraction and math.exp(-(count + counted) * divergence(share, fraction)) <= alpha / 2

    most = next(count for count in itertools.count(1) if seen(count)) - 1
    found = StratifiedCounts(alpha).detectable_share(n_first, n_second, counted)
    assert found == pytest.approx(share_of(most, 26), abs=3e-9)
    planned = StratifiedCounts(alpha).planned_share(40, 2, 0.05)
    assert planned == StratifiedCounts(alpha).detectable_share([40] * 2, [40] * 2, 4)


@pytest.mark.parametrize(("runs", "calibration"), [(40, 60), (25, 25), (90, 200), (60, 59)])
def test_exceedances_of_one_text_announce_what_counting_gives(runs, calibration):
    """P(E >= e): of the e + k - 1 largest pooled values at least e are judged runs, all orders being equally likely."""
    alpha, rank = 1e-3, math.floor(Fraction(1, 20) * (calibration + 1))

    def tail(above: int) -> Fraction:
        largest = above + rank - 1
        ways = sum(math.comb(runs, k) * math.comb(calibration, largest - k) for k in range(above, largest + 1))
        return Fraction(ways, math.comb(runs + calibration, largest))

    most = max(above for above in range(runs + 1) if tail(above) > Fraction(alpha))
    sides = [np.arange(runs) + 0.5], [np.arange(float(calibration))]
    assert Exceedances(alpha).detectable(*sides) == pytest.approx(share_of(most, runs), abs=3e-9)
    assert Exceedances(alpha).planned(calibration, 1) >= Exceedances(alpha).detectable([sides[1][0] + 0.5], sides[1])


def test_too_few_runs_for_a_bound_detect_nothing():
    """Of 18 reference runs none lies beyond the bound that 5 % of all runs cross, so that there is no bound."""
    few = [np.arange(18.0)]
    assert Exceedances(1e-3).detectable(few, few) == 1.0
    assert Exceedances(1e-3).planned(18, 1) == 1.0
    assert Exceedances(0.4).planned(19, 1) < 1.0


def test_exceedances_are_planned_from_the_worst_order():
    alpha, count, rank = 1e-6, 200, 10
    most = max(
        k for k in range(count + 1)
        if k <= rank - 1 or math.exp(-(k + rank - 1) * divergence(k / (k + rank - 1), 0.5)) > alpha
    )  # fmt: skip
    assert Exceedances(alpha).planned(20, 10) == pytest.approx(share_of(most, count), abs=3e-9)
