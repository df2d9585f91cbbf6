"""Frequencies of sets of tokens: exact tails, stated power, and the cells of level `draw` that are tested by them."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from sampler.checks.conformance.draw.drawer import Drawer
from sampler.checks.conformance.draw.frequencies import frequencies, support
from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.conformance.draw.sets import sets_of
from sampler.checks.conformance.judge import Judge
from sampler.engines.isolation import Local
from sampler.engines.reference.chain import ReferenceEngine
from sampler.stages import ALL_STAGES
from sampler.statistics.binomial import Binomial
from sampler.statistics.sets import SetFrequencies
from tests.tools.calibration.rates import exceeds
from tests.wrong_engines import RIGHT
from tests.wrong_engines.chain import softmax as weights
from tests.wrong_engines.right_draws import generator
from tests.wrong_engines.wide_draws import drawing

ALPHA = 1e-8
REFERENCE = ReferenceEngine()


@pytest.mark.parametrize(("probability", "n"), [(0.5, 500), (0.05, 500), (0.013, 2_000), (1e-4, 500), (0.987, 2_000)])
def test_one_set_is_the_binomial_test(probability, n):
    one, other = SetFrequencies(np.array([probability]), ALPHA), Binomial(probability, ALPHA)
    for count in (0, 1, int(n * probability), int(0.7 * n), n):
        judged, worst = one.judge(np.array([count]), n)
        assert judged.p_value == pytest.approx(other.judge(count, n).p_value, rel=1e-6)
        assert (judged.rejected, worst) == (other.judge(count, n).rejected, 0)
    assert one.detectable(n) == pytest.approx(other.detectable(n), abs=1e-8)


def test_the_smallest_of_several_sets_is_paid_for():
    test = SetFrequencies(np.array([0.5, 0.01, 0.2]), ALPHA)
    judged, worst = test.judge(np.array([250, 5, 0]), 500)
    assert (worst, judged.rejected) == (2, True)
    assert judged.p_value == pytest.approx(2 * 3 * binom.cdf(0, 500, 0.2))
    assert test.detectable(500) == pytest.approx(SetFrequencies(np.array([0.5]), ALPHA / 3).detectable(500))


def test_false_alarms_are_at_most_alpha_by_enumeration():
    """Two overlapping sets of three tokens, every outcome of 40 draws."""
    p, n, alpha = np.array([0.6, 0.3, 0.1]), 40, 1e-3
    test = SetFrequencies(np.array([0.6, 0.9]), alpha)
    first, second = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    inside = first + second <= n
    mass = binom.pmf(first, n, p[0]) * binom.pmf(second, np.maximum(n - first, 0), p[1] / (1 - p[0]))
    rejected = [
        [test.judge(np.array([a, a + b]), n)[0].rejected if a + b <= n else False for b in range(n + 1)]
        for a in range(n + 1)
    ]
    assert 0 < mass[np.array(rejected) & inside].sum() <= alpha


def test_a_tolerance_is_allowed_on_either_side_and_stated():
    p, n = np.array([0.3]), 2_000
    exact, tolerant = SetFrequencies(p, ALPHA), SetFrequencies(p, ALPHA, 0.02)
    low, high = binom.ppf(ALPHA / 2, n, 0.3), binom.isf(ALPHA / 2, n, 0.3)
    for count in (int(low) - 1, int(high) + 1):
        assert exact.judge(np.array([count]), n)[0].rejected
        assert not tolerant.judge(np.array([count]), n)[0].rejected
    assert tolerant.detectable(n) > exact.detectable(n) + 0.015


@pytest.mark.parametrize("arguments", [(np.array([]), ALPHA), (np.array([1.2]), ALPHA), (np.array([0.5]), 0.0)])
def test_misuse_is_named(arguments):
    with pytest.raises(ValueError, match=r"between 0 and 1|no error rate"):
        SetFrequencies(*arguments)


def test_the_sets_of_a_distribution_are_counted_as_they_are_named():
    p = np.array([0.4, 0.0, 0.3, 0.2, 0.1])
    sets = sets_of(p)
    assert sets.names == (
        "token 0", "token 2", "token 3", "token 4", "the tokens after the 1 most likely",
        "the tokens after the 3 most likely",
    )  # fmt: skip
    assert sets.probabilities == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.6, 0.1])
    assert sets.counts(np.array([0, 0, 2, 4])).tolist() == [2, 1, 0, 1, 2, 1]


def cells_by_sets(seed, names=""):
    plan = DrawPlan(seed, 0.75e-6)
    return plan, [cell for cell in plan.cells if cell.by_sets and cell.name.startswith(names)]


def test_every_stage_is_drawn_from_and_every_check_has_a_name_of_its_own():
    plan = DrawPlan(0)
    asked = {cell.stages for cell in plan.cells if cell.further}
    assert asked == {(stage,) for stage in ALL_STAGES if stage != "alignment"}
    names = [check.name for check in plan.checks]
    assert len(set(names)) == len(names) == len(plan.alphas)


REPLICATES = 2_000


@pytest.mark.nightly("thousands of replicates of every cell")
def test_false_alarms_and_misses_of_every_cell_are_as_stated():
    """Measured at a nominal 5 %, and at the alpha in use with one set moved by what is said to be detectable."""
    plan, cells = cells_by_sets(0)
    drawer = Drawer(Judge(Local(REFERENCE), reference=REFERENCE), 0)
    rng, budget = np.random.default_rng(0), 1e-6 / (2 * len(cells))
    for cell in cells:
        sets = sets_of(np.asarray(softmax(drawer.expected(cell.probe).scores[0])), cell.places)
        nominal = SetFrequencies(sets.probabilities, 0.05)
        used = SetFrequencies(sets.probabilities, plan.alphas[f"{cell.name}/frequencies"])
        classes, place = np.unique(sets.members, axis=1, return_inverse=True)
        mass = np.bincount(place.ravel(), softmax(drawer.expected(cell.probe).scores[0]))
        counts = rng.multinomial(cell.draws, mass / mass.sum(), REPLICATES) @ classes.T
        alarms = sum(nominal.judge(row, cell.draws)[0].rejected for row in counts)
        assert not exceeds(alarms, REPLICATES, 0.05, budget), (cell.name, alarms)
        reach, p = used.detectable(cell.draws), sets.probabilities
        assert reach <= cell.detect
        moved = int(np.abs(p - 0.5).argmin())
        theirs = rng.binomial(cell.draws, p[moved] + (reach if p[moved] <= 0.5 else -reach), REPLICATES)
        own = SetFrequencies(p[moved : moved + 1], used.alpha / len(p))
        missed = sum(not own.judge(np.array([count]), cell.draws)[0].rejected for count in theirs)
        assert not exceeds(missed, REPLICATES, 0.01, budget), (cell.name, missed)


WIDE = [name for name in RIGHT if name.startswith("right_wide")]


@pytest.mark.nightly("hundreds of draws from 151,936 tokens, each with noise for all of them")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WIDE)
def test_right_engines_are_left_alone_over_a_large_vocabulary(name, seed):
    drawer = Drawer(Judge(Local(RIGHT[name]()), reference=REFERENCE), seed)
    drawer.find_limits()
    plan, cells = cells_by_sets(seed, "wide:")
    if drawer.judge.width:
        plan = DrawPlan(seed, 0.75e-6, drawer.judge.width)
        cells = [cell for cell in plan.cells if cell.name.startswith("wide:")]
    for cell in cells:
        for finding in (support(drawer, cell), frequencies(drawer, cell, plan)):
            assert finding.outcome == "passed", (cell.name, finding.message)


def noise_of(bits):
    """Argmax of score and Gumbel noise from uniform numbers of so many bits."""

    def choose(scores, noise):
        source, tokens = generator(noise), []
        with np.errstate(divide="ignore"):
            logs = np.log(weights(scores)).astype(np.float32)
        for _ in noise:
            u = (source.integers(2**bits, size=len(scores), dtype=np.uint32) + 0.5) / 2**bits
            tokens.append(int((logs - np.log(-np.log(u.astype(np.float32)))).argmax()))
        return np.array(tokens)

    return drawing(choose)


@pytest.mark.nightly("thousands of draws from 151,936 tokens, each with noise for all of them")
@pytest.mark.parametrize("bits", [8, 16, 18])
def test_coarse_noise_that_cannot_reach_rare_tokens_is_caught(bits):
    drawer = Drawer(Judge(Local(noise_of(bits)()), reference=REFERENCE), 0)
    plan, (cell,) = cells_by_sets(0, "wide:rare")
    found = frequencies(drawer, cell, plan)
    assert found.outcome == "failed", found.message
