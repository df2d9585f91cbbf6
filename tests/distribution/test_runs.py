"""Tests of runs by text: false alarms by enumerating all assignments to sides, misses at what they announce."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erfinv
from scipy.stats import binom, mannwhitneyu, nhypergeom

from sampler.statistics.exceedances import Exceedances, conformal_rank
from sampler.statistics.ranks import LARGEST, RankSum, superiority
from sampler.statistics.stratified import StratifiedCounts
from sampler.statistics.sums import SumLaw

ALPHAS = (0.3, 0.05, 0.01)
UNTIED = ([0.1, 2.0, 3.5, 4.0, 7.5, 9.0], [1.0, 2.5, 3.0, 8.0])
TIED = ([1.0, 1.0, 1.0, 2.0, 2.0, 5.0], [1.0, 1.0, 3.0, 3.0])
EITHER = pytest.mark.parametrize("values", [UNTIED, TIED], ids=["untied", "tied"])
FIRST = (3, 2)  # values of each text that are the first side's


def splits(values):
    """Every way to give each text's values to the two sides: (first, second), each a list by text."""
    texts = [np.array(text) for text in values]
    chosen = [itertools.combinations(range(len(text)), count) for text, count in zip(texts, FIRST, strict=True)]
    for places in itertools.product(*chosen):
        pairs = [(text, np.isin(np.arange(len(text)), some)) for text, some in zip(texts, places, strict=True)]
        yield [text[first] for text, first in pairs], [text[~first] for text, first in pairs]


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any), min_size=1, max_size=4))
def test_a_sum_of_counts_is_what_fractions_say(weights):
    parts = [[Fraction(weight, sum(some)) for weight in some] for some in weights]
    law = [Fraction(1)]
    for part in parts:
        law = [
            sum((law[i] * part[k - i] for i in range(len(law)) if 0 <= k - i < len(part)), start=Fraction(0))
            for k in range(len(law) + len(part) - 1)
        ]
    sums = SumLaw(tuple(np.array([float(p) for p in part]) for part in parts))
    for value in range(-1, len(law) + 1):
        upper, lower = (sum(part, start=Fraction(0)) for part in (law[max(0, value) :], law[: max(0, value + 1)]))
        assert sums.upper(value) == pytest.approx(float(upper), rel=1e-8)
        assert sums.lower(value) == pytest.approx(float(lower), rel=1e-8)
        assert sums.upper(value) >= float(upper) * (1 - 1e-15)


@pytest.mark.parametrize("rate", [0.5, 0.05, 1e-9, 1e-20, 1e-70])
def test_tails_keep_their_digits_however_far_out(rate):
    """SciPy's binomial quantile is off by 36 at 1e-20."""
    law = SumLaw((np.array([0.5, 0.5]),) * 200)
    tails = [Fraction(sum(math.comb(200, k) for k in range(value, 201)), 2**200) for value in range(202)]
    critical = law.critical(rate)
    assert critical == next(value for value, tail in enumerate(tails) if tail <= rate)
    assert law.upper(critical) == pytest.approx(float(tails[critical]), rel=1e-8)


@EITHER
def test_rank_sum_false_alarms_and_p_values_by_enumeration(values):
    every = list(splits(values))
    shares = np.array([superiority(*sides) for sides in every])
    for alpha in ALPHAS:
        judged = [RankSum(alpha).judge(*sides) for sides in every]
        assert np.mean([judgement.rejected for judgement in judged]) <= alpha
        assert [judgement.rejected for judgement in judged] == [judgement.p_value <= alpha for judgement in judged]
    for share, judgement in zip(shares, judged, strict=True):
        tails = (shares >= share - 1e-12).mean(), (shares <= share + 1e-12).mean()
        assert judgement.p_value == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-8)


def test_rank_sum_of_one_text_is_mann_whitney():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=12), rng.normal(size=9) + 0.8
    judged = RankSum(0.05).judge([first], [second])
    assert judged.p_value == pytest.approx(mannwhitneyu(first, second, method="exact").pvalue, rel=1e-8)
    assert superiority([first], [second]) == pytest.approx((first[:, None] > second).mean())


def test_rank_sum_does_not_mix_texts():
    runs = np.arange(10.0)
    assert superiority([runs, 100 + runs], [runs + 0.5, 100.5 + runs]) == 0.45
    assert not RankSum(1e-3).judge([runs, 100 + runs], [runs + 0.5, 100.5 + runs]).rejected
    assert superiority([np.arange(3.0), np.empty(0)], [np.arange(3.0), np.arange(9.0)]) == 0.5


def test_large_texts_are_cut_into_parts_of_both_sides():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=3 * LARGEST), rng.normal(size=LARGEST) + 0.7
    judged = RankSum(1e-4).judge([first], [second])
    assert judged.n == 4 * LARGEST
    assert judged.rejected
    assert abs(math.log10(judged.p_value / mannwhitneyu(first, second).pvalue)) < 0.5


SIZES = {
    "8 texts, 20 runs a side": [(20, 20)] * 8,
    "40 texts, 3 runs a side": [(3, 3)] * 40,
    "80 texts, one run a side": [(1, 1)] * 80,
    "6 texts, 30 against 8": [(30, 8)] * 6,
    "unequal": [(4, 12), (20, 20), (40, 9)],
}
NIGHTLY = pytest.mark.nightly("many small texts take seconds; fewer and larger ones stand for them")
EVERY_SIZE = [pytest.param(sizes, id=name, marks=NIGHTLY if len(sizes) > 10 else ()) for name, sizes in SIZES.items()]


def one_sided(rng, sizes, share):
    """The worst case of the bound: a first run is above all second ones, or below, with the given probability."""
    above = [np.where(rng.random(m) < share, 9.0, -9.0) + rng.random(m) for m, _ in sizes]
    return above, [rng.random(n) for _, n in sizes]


def shifted(rng, sizes, share):
    shift = 2 * erfinv(2 * share - 1)
    return [rng.normal(size=m) + shift for m, _ in sizes], [rng.normal(size=n) for _, n in sizes]


def missed_ranks(test, make, sizes, share, tried, seed=2):
    rng = np.random.default_rng(seed)
    samples = [make(rng, sizes, share) for _ in range(tried)]
    judged = test.judge(*samples[0])
    assert judged.rejected == (superiority(*samples[0]) > judged.bound)
    return sum(superiority(*sample) <= judged.bound for sample in samples)


@pytest.mark.parametrize("sizes", EVERY_SIZE)
@pytest.mark.parametrize("make", [one_sided, shifted])
def test_rank_sum_misses_no_more_than_it_says(sizes, make):
    test, tried = RankSum(1e-4), 500
    share = test.planned(sizes)
    assert 0.5 < share < 1
    assert binom.sf(missed_ranks(test, make, sizes, share, tried) - 1, tried, 0.01) > 1e-6
    if make is one_sided and sizes == SIZES["8 texts, 20 runs a side"]:  # it can miss what is smaller
        assert missed_ranks(test, make, sizes, 0.25 + share / 2, 100) > 50


def test_what_too_few_runs_cannot_detect_is_not_announced():
    assert [RankSum(1e-9).planned(sizes) for sizes in ([(5, 5)], [])] == [1.0, 1.0]
    assert RankSum(1e-9).judge([np.empty(0)], [np.arange(3.0)]).p_value == 1.0
    # 1 of C(10, 5) splits is the most extreme: no p-value of five against five is below 2 / 252
    assert RankSum(0.0079).planned([(5, 5)]) == 1.0
    assert RankSum(0.008).judge([np.arange(5.0)], [5 + np.arange(5.0)]).rejected


def test_conformal_ranks():
    assert [conformal_rank(count) for count in (0, 18, 19, 38, 39, 599)] == [0, 0, 1, 1, 2, 30]
    assert Exceedances(0.05).bound([np.arange(18.0)]) == math.inf
    assert Exceedances(0.05).bound([np.arange(10.0), np.arange(10.0, 19.0)]) == 18.0


def test_exceedances_of_one_text_are_negative_hypergeometric():
    rng = np.random.default_rng(6)
    calibration = rng.normal(size=60)
    for above in (0, 3, 10, 20):
        runs = np.concatenate([np.full(above, 9.0), np.full(40 - above, -9.0)]) + rng.random(40) / 100
        expected = 1.0 if above == 0 else nhypergeom.sf(above - 1, 100, 40, conformal_rank(60))
        assert Exceedances(0.05).judge([runs], [calibration]).p_value == pytest.approx(expected, rel=1e-6)


@EITHER
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("beyond", [0.2, 0.5])
def test_exceedances_false_alarms_by_enumeration(values, alpha, beyond):
    judged = [Exceedances(alpha, beyond).judge(first, second) for first, second in splits(values)]
    assert all(math.isfinite(judgement.bound) for judgement in judged)
    assert np.mean([judgement.rejected for judgement in judged]) <= alpha
    for level in {judgement.p_value for judgement in judged}:
        assert np.mean([judgement.p_value <= level for judgement in judged]) <= level * (1 + 1e-9)


def test_exceedances_keep_texts_apart():
    rng = np.random.default_rng(7)
    texts = [1.0] * 9 + [3.0]
    for _ in range(20):
        sides = [[text * rng.normal(1, 0.05, 20) for text in texts] for _ in range(2)]
        assert not Exceedances(1e-4).judge(*sides).rejected


@pytest.mark.parametrize(("runs", "texts"), [(20, 10), (200, 1), pytest.param(1, 200, marks=NIGHTLY)])
def test_exceedances_miss_no_more_than_they_say(runs, texts):
    """The plan takes the worst order of the values; no order that is drawn may announce more."""
    test, rng, tried, missed = Exceedances(1e-6), np.random.default_rng(8), 60, 0
    share = test.planned(runs, texts)
    for trial in range(tried):
        calibration = [rng.random(runs) for _ in range(texts)]
        bound = test.bound(calibration)
        above = [rng.random(runs) < share for _ in range(texts)]
        wrong = [np.where(some, bound + rng.random(runs) * (1 - bound), bound * rng.random(runs)) for some in above]
        missed += not test.judge(wrong, calibration).rejected
        assert trial > 2 or test.detectable(wrong, calibration) <= share
    assert binom.sf(missed - 1, tried, 0.01) > 1e-6


@pytest.mark.parametrize(
    ("test", "discrepancy", "planned"),
    [
        (RankSum(1e-7), 0.7, lambda test, runs: test.planned([(runs, runs)] * 12)),
        (StratifiedCounts(1e-7), 0.2, lambda test, runs: test.planned_share(runs, 12)),
        (Exceedances(1e-7), 0.3, lambda test, runs: test.planned(runs, 12)),
    ],
)
def test_runs_needed_and_what_they_detect_are_inverse(test, discrepancy, planned):
    needed = test.samples_needed(discrepancy, texts=12)
    assert planned(test, needed) <= discrepancy < planned(test, needed - 1)
