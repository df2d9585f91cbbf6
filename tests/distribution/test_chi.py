"""Bets against all distributions within a chi distance: exact on small vocabularies, and sharp."""

import itertools

import numpy as np
import pytest
from scipy.special import softmax

from sampler.statistics.bets import FRACTIONS, STAKES, Bets, payoffs
from sampler.statistics.chi import distance_by, most_near

SIZE, STEPS, KAPPA = 4, 3, 0.2
RNG = np.random.default_rng(2)
P = softmax(RNG.normal(0, 0.5, (STEPS, SIZE)), axis=-1)
Q = softmax(RNG.normal(0, 0.5, (STEPS, SIZE)), axis=-1)


def worst(p, pays, kappa):
    """The distribution at this chi distance from p that a payoff gains most from."""
    mean = p @ pays
    return p * (1 + kappa * (pays - mean) / np.sqrt(p @ (pays - mean) ** 2))


def expected_wealth(kappa, right):
    """Of one bet over every sequence of tokens, each with its probability under `right` (STEPS, SIZE)."""
    total = np.zeros(len(FRACTIONS))
    for tokens in itertools.product(range(SIZE), repeat=STEPS):
        bets = Bets(1)
        for p, q, token in zip(P, Q, tokens, strict=True):
            bets.place(p, q[None], token, kappa=kappa)
        total += np.prod(right[np.arange(STEPS), list(tokens)]) * np.exp(bets.logs[0])
    return total


def right_at(kappa):
    result = np.array([worst(p, payoffs(p, q[None])[0], kappa) for p, q in zip(P, Q, strict=True)])
    assert (result >= 0).all()
    return result


def test_the_worst_distribution_within_the_distance_leaves_the_wealth_a_martingale():
    assert expected_wealth(KAPPA, right_at(KAPPA)) == pytest.approx(np.ones(len(FRACTIONS)), abs=1e-12)


def test_a_distribution_beyond_the_distance_makes_a_bet_rich():
    assert (expected_wealth(KAPPA, right_at(1.05 * KAPPA)) > 1 + 1e-3).all()
    assert (expected_wealth(KAPPA, Q) > 1).all()


def test_no_distribution_within_the_distance_gains():
    """Random ones, moved to the distance itself."""
    others = softmax(RNG.normal(0, 1, (200, STEPS, SIZE)), axis=-1)
    chi = np.sqrt((P * (others / P - 1) ** 2).sum(axis=-1, keepdims=True))
    others = P + (others - P) * np.minimum(1, KAPPA / chi)
    pays = payoffs(P, Q)
    reached, most = (others * pays).sum(axis=-1), most_near(P, pays, KAPPA)
    assert (reached <= most + 1e-12).all()
    assert (reached > 1).any()
    for right in others[:5]:
        assert (expected_wealth(KAPPA, right) <= 1 + 1e-12).all()


def test_errors_of_one_size_move_p_by_their_size_times_the_spread():
    """Against sampled errors of log-probabilities."""
    error = 0.01
    moved = softmax(np.log(P[0]) + error * RNG.normal(size=(4000, SIZE)), axis=-1)
    squares = (P[0] * (moved / P[0] - 1) ** 2).sum(axis=-1)
    assert np.sqrt(squares.mean()) == pytest.approx(distance_by(P[0], np.full(SIZE, error)), rel=0.05)


@pytest.mark.parametrize(("probability", "fair"), [(0.01, True), (0.005, True), (0.02, False)])
def test_a_bet_on_rare_events_is_fair_up_to_their_rate(probability, fair):
    """By enumeration of how often the event comes in ten steps, which are told at once or one by one."""
    rate, steps = 0.01, 3
    for parts in ((steps,), (1,) * steps):
        total = np.zeros(len(STAKES))
        for events in itertools.product(*(range(part + 1) for part in parts)):
            bets, weight = Bets(1, rates=(rate,)), 1.0
            for count, part in zip(events, parts, strict=True):
                bets.happened([count], part)
                ways = len(list(itertools.combinations(range(part), count)))
                weight *= ways * probability**count * (1 - probability) ** (part - count)
            total += weight * np.exp(bets.logs[1])
        assert (total <= 1 + 1e-12).all() == fair


def test_bets_on_rare_events_count_for_nothing_between():
    """What comes later in the same steps must not help a bet on an earlier token."""
    alone, both = Bets(1), Bets(1, rates=(1e-3,))
    for bets in (alone, both):
        bets.place(P, Q[None], np.array([0, 1, 2]), kappa=0.0)
    assert both.highest <= alone.highest
    both.happened([3], STEPS)
    assert both.judge(1e-3).rejected


def test_a_slack_is_what_a_bet_has_to_win_first():
    bets, plain = Bets(1, slack=2.0), Bets(1)
    for each in (bets, plain):
        each.place(P, Q[None], np.array([0, 1, 2]), kappa=0.0)
    assert plain.logs - bets.logs == pytest.approx(np.full((1, len(FRACTIONS)), 2.0))
    assert (bets.misses(1e-6) >= plain.misses(1e-6)).all()
