"""Tokens beside the winners with their noise: what is lost, how likely, and how seldom right engines are accused."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy.special import expit, softmax

from sampler.chain.noise import NoiseKey, gumbel_where
from sampler.checks.scoring.bounds import seen_bounds
from sampler.checks.scoring.margin import Margins
from sampler.checks.scoring.tolerance import SINGLE, TOLERANCES, Beyond, Tolerance
from sampler.config import SamplingConfig
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Context, Steps
from sampler.statistics.bets import Bets
from tests.tools.measurements.half_precision import chance_lost

PLAIN = SamplingConfig(temperature=1.0, min_p=0.0, repetition_penalty=1.0, order=("temperature",))
LOGITS = np.array([1.0, 0.6, 0.0, -0.4], dtype=np.float32)
OFF = np.array([-0.03, 0.03, 0.02, -0.01])
"""By how much an engine's logits are off."""

CLASS = Tolerance("coarse", 0.04, 0.03, (Beyond(0.005, 1e-2, 1e-2), Beyond(0.02, 2e-3, 2e-3)), slack=1.0)
COARSER = replace(CLASS, edge=0.4, beyond=(Beyond(0.05, 0.1, 0.1), Beyond(0.2, 0.02, 0.02)))


def references(tolerance):
    return [ReferenceEngine(input_error=edge) for edge in tolerance.edges]


def steps_of(logits, tokens):
    count = len(tokens)
    context = Context(np.zeros(count, dtype=np.int64), np.arange(count))
    rows = np.repeat(logits[None], count, axis=0)
    return Steps(rows, [[]] * count, (PLAIN,) * count, None, context, tokens=np.array(tokens))


def noise_of(key, steps, kept):
    return gumbel_where([key] * len(steps), steps.tolist(), kept)


def margins_of(tokens, key, tolerance):
    edges, steps = references(tolerance), steps_of(LOGITS, tokens)
    margins = Margins(1e-6, tolerance)
    margins.add("run 1", partial(noise_of, key), steps, *seen_bounds(edges[0], steps), edges)
    return margins


def drawn(key, count, off=0.0):
    noise = np.array([key.gumbel(step, len(LOGITS)) for step in range(count)])
    return (LOGITS + off + noise).argmax(axis=-1)


def chances(tolerance, off):
    steps, right = steps_of(LOGITS, [0]), softmax(LOGITS + off)
    found = []
    for edge in references(tolerance):
        must, may = (mask[0] for mask in seen_bounds(edge, steps))
        final = edge.last(steps, "generous")
        found.append(chance_lost(softmax(final.scores[0]), right, must, may, final.error[0]))
    return np.array(found)


def test_a_draw_with_its_noise_is_never_lost():
    margins = margins_of(drawn(NoiseKey(1, "right"), 2000), NoiseKey(1, "right"), SINGLE)
    assert (margins.tokens, margins.beyond.tolist(), margins.lost) == (2000, [0], [])
    assert margins.finding().outcome == "passed"
    assert not margins.other_noise


def test_one_other_token_is_a_proof_and_is_named():
    key = NoiseKey(1, "right")
    tokens = drawn(key, 40)
    noise = LOGITS + key.gumbel(17, len(LOGITS))
    tokens[17] = other = int(noise.argsort()[-2])
    margins = margins_of(tokens, key, SINGLE)
    found = margins.finding()
    lead = noise.max() - noise[other]
    assert (found.outcome, found.stage, found.p_value, margins.proof) == ("failed", "draw", 0.0, 18)
    begin = f"with the suite's noise token 17 of run 1 should have been {noise.argmax()} (margin {lead:.2g} nats)"
    assert found.message.startswith(f"{begin}, the engine has {other}; 1 of 40 tokens cannot have won")


def test_other_noise_is_named():
    found = margins_of(drawn(NoiseKey(2, "other"), 300), NoiseKey(1, "right"), SINGLE).finding()
    assert (found.outcome, found.stage) == ("failed", "seed")
    assert "no more are the winners than with other noise" in found.message


def test_the_chance_of_two_tokens_is_that_of_a_logistic_number():
    """The difference of two Gumbel numbers is logistic."""
    p, right, reach = softmax([0.5, 0.0]), softmax([0.2, 0.0]), 0.1
    kept = np.ones(2, dtype=bool)
    assert chance_lost(p, right, kept, kept, np.full(2, reach / 2)) == pytest.approx(
        expit(-0.2) - expit(-0.5 + reach), abs=1e-12
    )


@pytest.mark.parametrize("off", [OFF, 0.3 * OFF, 5 * OFF[::-1]], ids=["in the class", "small", "beyond the class"])
def test_as_many_tokens_are_lost_as_the_formula_says(off):
    count, key = 10_000, NoiseKey(3, "formula")
    margins = margins_of(drawn(key, count, off), key, CLASS)
    expected = count * chances(CLASS, off)
    assert (np.abs(margins.beyond - expected) <= 5 * np.sqrt(expected) + 1e-6).all(), (margins.beyond, expected)


def test_logits_within_the_last_edge_lose_no_token():
    assert chances(CLASS, OFF)[-1] == pytest.approx(0.0, abs=1e-12)
    assert chances(CLASS, OFF)[0] > 1e-3
    assert chances(CLASS, 2 * OFF)[-1] > 1e-4


def accused(rates, chance, alpha, steps):
    """The exact probability that tokens lost with these chances, beyond nested edges, are ever rejected."""
    outcomes = [((0, 0), 1 - chance[0]), ((1, 0), chance[0] - chance[1]), ((1, 1), chance[1])]
    total = 0.0
    for path in product(outcomes, repeat=steps):
        bets, probability = Bets(0, 0.0, rates), 1.0
        for events, how_likely in path:
            bets.happened(events, 1)
            probability *= how_likely
        if bets.judge(alpha).rejected:
            total += probability
    return total


def test_right_engines_are_accused_as_seldom_as_promised():
    """All 3^6 sequences of lost tokens on a vocabulary of four, at what the logits of a coarse engine lose."""
    chance = chances(COARSER, 10 * OFF)[:2]
    assert 0 < accused(tuple(chance), chance, 0.5, 6) <= 0.5
    assert accused(tuple(chance / 30), chance, 0.4, 6) > 0.4


@pytest.mark.parametrize("name", [name for name, one in TOLERANCES.items() if one.beyond])
def test_more_lost_tokens_than_declared_are_rejected(name):
    tolerance = TOLERANCES[name]
    margins = Margins(1e-7, tolerance)
    for lost, outcome in ((0, "passed"), (60, "failed")):
        margins.tokens += 1000
        margins.bets.happened([3 * lost, lost], 1000)
        found = margins.finding()
        assert (found.outcome, found.alpha) == (outcome, 1e-7)
    assert found.p_value < 1e-7
    assert found.statistic == margins.bets.highest > found.bound


def test_a_tolerance_without_rates_has_no_bets():
    assert SINGLE.beyond == ()
    assert margins_of([0], NoiseKey(1), SINGLE).finding().alpha is None
