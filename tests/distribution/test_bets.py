"""Bets on tokens: exact expectation, false alarms, power as computed, and what tilts see of reused noise."""

import itertools
import re

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from sampler.checks.scoring.alternatives import TILTS
from sampler.checks.scoring.echoes import ECHOES, Echoes
from sampler.checks.scoring.memory import Memories, Memory, Step
from sampler.statistics.bets import FRACTIONS, Bets, Shares, most_expected, payoffs

SIZE, TOKENS, EOS = 60, 40, 59
LATER = pytest.mark.nightly("draws thousands of tokens; another way of drawing is tested by day")
LOGITS = np.random.default_rng(5).normal(0, 1.5, (TOKENS, SIZE))


def alternatives(p):
    return np.array([softmax(factor * np.log(p)) for factor in (0.5, 0.67, 1.5, 2.0)] + [np.roll(p, 1)])


def test_a_bet_pays_one_on_average():
    for logits in LOGITS:
        p = softmax(logits)
        assert p @ payoffs(p, alternatives(p)).T == pytest.approx(np.ones(5), abs=1e-12)
        assert p @ payoffs(p, alternatives(p)[:, ::-1] / 3).T == pytest.approx(np.ones(5), abs=1e-12)
        assert (payoffs(p, alternatives(p)) >= 0).all()


def drawn(p, how, rng):
    """A token: by inverting the distribution function, by Gumbel noise, or from scores in half precision."""
    if how == "gumbel":
        return gumbel(p, rng)
    if how == "float16":
        p = softmax(np.log(p).astype(np.float16).astype(np.float64))
    return number(p, rng.random())


def judged(alpha, how, rng, change=lambda p: p, error=1e-4):
    bets = Bets(5)
    for logits in LOGITS:
        p = softmax(logits)
        bets.place(p, alternatives(p), drawn(change(p), how, rng), error)
    return bets, bets.judge(alpha)


@pytest.mark.parametrize("how", ["by_id", *(pytest.param(how, marks=LATER) for how in ("float16", "gumbel"))])
def test_right_draws_are_accused_at_most_as_often_as_announced(how):
    rng, alpha, replicates = np.random.default_rng(3), 0.05, 100
    accused = sum(judged(alpha, how, rng, error=2e-3)[1].rejected for _ in range(replicates))
    assert binom.sf(accused - 1, replicates, alpha) > 1e-6


def test_the_bound_on_misses_is_one():
    """Draws of an alternative itself are missed at most as often as the bound says, which here is no triviality."""
    rng, alpha, replicates = np.random.default_rng(4), 0.01, 80
    results = [judged(alpha, "by_id", rng, lambda p: softmax(2 * np.log(p))) for _ in range(replicates)]
    missed = sum(not result.rejected for _, result in results)
    bound = results[0][0].misses(alpha)[3]
    assert bound < 0.9
    assert binom.sf(missed - 1, replicates, bound) > 1e-6
    assert {bets.best for bets, result in results if result.rejected} <= {2, 3}


@pytest.mark.parametrize("error", [0.3, np.linspace(0, 0.5, 7)])
def test_no_distribution_within_the_error_pays_more_than_is_allowed_for(error):
    """Beside random ones every corner is tried: each weight at either end."""
    rng = np.random.default_rng(8)
    p, q = softmax(rng.normal(size=7)), softmax(rng.normal(size=(3, 7)), axis=-1)
    pays, most = payoffs(p, q), most_expected(p, payoffs(p, q), error)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=7)))
    weights = p * np.exp(error * np.concatenate([corners, rng.uniform(-1, 1, (200, 7))]))
    reached = (weights / weights.sum(axis=-1, keepdims=True)) @ pays.T
    assert reached.max(axis=0) == pytest.approx(most, rel=1e-12)
    assert most_expected(p, pays, 0.0) == pytest.approx(np.ones(3))


def test_nothing_is_detected_before_the_first_token():
    bets = Bets(3)
    assert not bets.detected(1e-6).any()
    assert not bets.judge(1e-6).rejected
    assert bets.judge(1e-6).p_value == 1


def test_tokens_that_prove_an_alternative_wrong_count_as_its_rejection():
    """Against all tokens one by one: a third of what the alternative draws is impossible, a tenth is not judged."""
    p, bets = softmax(LOGITS, axis=-1), Bets(1)
    q = p[:, ::-1]
    for row, other in zip(p, q, strict=True):
        bets.place(row, other, 0, shares=Shares(2 / 3 - 0.1, 0.1))
    single = Bets(1)
    single.place(p[0], q[0], 0, shares=Shares(2 / 3 - 0.1, 0.1))
    pays = payoffs(p[:1], q[None, :1])[0, 0]
    most = max(most_expected(p[0], pays[None], 1e-4)[0], 1.0)
    expected = [
        (2 / 3 - 0.1) * sum(q[0] * ((1 + part * (most - 1)) / (1 + part * (pays - 1))) ** power) + 0.1
        for part in FRACTIONS
        for power in (0.25, 0.5, 0.75)
    ]
    assert np.exp(single._misses).ravel() == pytest.approx(expected, rel=1e-9)
    assert bets.detected(1e-6, 0.01).tolist() == [True]


def test_as_many_tokens_as_are_needed_detect_an_alternative():
    p, bets = softmax(LOGITS[0]), Bets(5)
    bets.place(p, alternatives(p), 0)
    needed = int(np.ceil(bets.needed(1e-6)[3]))
    for _ in range(needed - 2):
        bets.place(p, alternatives(p), 0)
    before = bets.detected(1e-6)[3]
    bets.place(p, alternatives(p), 0)
    assert (before, bets.detected(1e-6)[3]) == (False, True)
    assert needed > 10


def test_a_bet_that_is_not_placed_keeps_its_wealth():
    p, bets, some = softmax(LOGITS[0]), Bets(5), Bets(5)
    bets.place(p, alternatives(p), 2)
    some.place(p, alternatives(p)[[1, 4]], 2, bets=[1, 4])
    assert some.placed.tolist() == [0, 1, 0, 0, 1]
    assert np.array_equal(some.logs[[1, 4]], bets.logs[[1, 4]])
    assert not some.logs[[0, 2, 3]].any()
    assert np.isinf(some.needed(1e-6)[[0, 2, 3]]).all()


def test_what_was_enough_is_the_step_of_the_first_rejection():
    """However the steps are placed; what comes later, here draws that are right, changes nothing."""
    p, rng = softmax(LOGITS, axis=-1), np.random.default_rng(2)
    q = np.array([alternatives(row) for row in p]).swapaxes(0, 1)
    tokens = np.array([drawn(alternatives(row)[3] if step < 30 else row, "by_id", rng) for step, row in enumerate(p)])
    slow, rejected = Bets(5), []
    for step, token in enumerate(tokens):
        slow.place(p[step], q[:, step], token)
        rejected.append(slow.judge(1e-2).rejected)
    fast = Bets(5)
    for part in (slice(0, 8), slice(8, None)):
        fast.place(p[part], q[:, part], tokens[part])
    assert slow.enough(1e-2) == fast.enough(1e-2) == rejected.index(True) + 1
    assert 8 < rejected.index(True) < 30
    assert slow.enough(1e-30) is None


def test_the_expectation_of_the_wealth_is_at_most_one():
    """Over all tokens of one step, by enumeration: the mean wealth is a martingale, less what rounding may gain."""
    p = softmax(LOGITS[0])
    wealth = []
    for token in range(SIZE):
        bets = Bets(5)
        bets.place(p, alternatives(p), token)
        wealth.append(np.exp(bets.logs).mean())
    assert 0.999 < p @ wealth <= 1


@pytest.mark.parametrize(
    ("uniforms", "named"),
    [
        (lambda run, step, rng: (0.37 + 0.21 * run) % 1, "the uniform numbers of the steps before"),
        (lambda run, step, rng: np.random.default_rng(step).random(), "the uniform numbers of other requests"),
        (lambda run, step, rng: rng.random() ** 2, "by id|ids too often|other odds"),
    ],
)
def test_uniform_numbers_that_are_reused_or_uneven_are_seen(uniforms, named):
    bets, rng = Bets(len(TILTS)), np.random.default_rng(6)
    others, cell = {step: Memory() for step in range(TOKENS)}, Memory()
    for index in range(6):
        before = Memories(cell=cell)
        for step in range(TOKENS):
            before.runs = [others[step]]
            p = softmax(np.random.default_rng((index, step)).normal(0, 1.5, SIZE))
            now = Step(np.arange(SIZE)[None], p[None], np.arange(SIZE)[None] == EOS)
            token = number(p, uniforms(index, step, rng))
            pasts = before.follow(now, np.array([token]))
            bets.place(p, np.array([tilt(now, pasts) for _, tilt in TILTS]), token)
    assert bets.judge(1e-6).rejected
    assert re.search(named, TILTS[bets.best][0].text)


def noise_of(*key):
    return np.random.default_rng(key)


@pytest.mark.parametrize(
    ("draw", "named"),
    [
        (lambda run, step, p: number(p, noise_of(run, step % 10).random()), "steps before, at a fixed distance"),
        (lambda run, step, p: number(p, noise_of(run % 5, step).random()), "other requests, at a fixed distance"),
        (lambda run, step, p: gumbel(p, noise_of(run % 3, step)), "other requests, at a fixed distance"),
        (lambda run, step, p: p.argmax() if step % 10 == 3 else gumbel(p, noise_of(run, step)), "at regular steps"),
        (lambda run, step, p: p.argmax() if step == 0 else gumbel(p, noise_of(run, step)), "at regular steps"),
        (lambda run, step, p: gumbel(p, noise_of(run, step)), ""),
    ],
    ids=["ten numbers", "five slots", "three slots with Gumbel noise", "every tenth", "the first", "right"],
)
def test_what_comes_again_at_a_distance_is_seen(draw, named):
    bets, echoes = Bets(len(ECHOES)), Echoes()
    for run in range(40):
        echoes.begin()
        for step in range(TOKENS):
            p = softmax(noise_of(9, run, step).normal(0, 1.5, SIZE))
            now = Step(np.arange(SIZE)[None], p[None], np.arange(SIZE)[None] == EOS)
            token = draw(run, step, p)
            bets.place(p, echoes.follow(np.array([step]), now, np.array([token]))[:, 0], token)
    assert bets.judge(1e-6).rejected == bool(named)
    assert named in ECHOES[bets.best].text


def number(p, uniform):
    return int(min(np.searchsorted(p.cumsum(), uniform), SIZE - 1))


def gumbel(p, rng):
    return int((np.log(p) + rng.gumbel(size=SIZE)).argmax())


def test_a_mixture_is_fixed_before_its_token_is_drawn():
    """Whatever the last token of a block is, the bets of the block are the same, and each sums to 1."""
    rng, found = np.random.default_rng(7), []
    p = softmax(rng.normal(0, 1.5, (3, 12, SIZE)), axis=-1)
    drawn = rng.integers(0, SIZE, (3, 12))
    for last in (0, 30):
        echoes = Echoes()
        for run in range(3):
            echoes.begin()
            places = np.append(drawn[run, :-1], last if run == 2 else drawn[run, -1])
            now = Step(np.broadcast_to(np.arange(SIZE), (12, SIZE)), p[run], np.zeros((12, SIZE), dtype=np.bool_))
            q = echoes.follow(np.arange(12), now, places)
        found.append(q)
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0].sum(axis=-1), 1.0, rtol=1e-12)
    assert abs(found[0] - p[2]).max() > 0.05
