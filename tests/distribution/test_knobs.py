"""Sampling parameters estimated from the tokens of a made-up model."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from sampler.checks.scoring.knobs import Knob, difference, differing, estimated
from sampler.config import SamplingConfig
from sampler.requests import Steps

SIZE, LENGTH = 60, 40
CONFIG = SamplingConfig(temperature=0.8, min_p=0.05, repetition_penalty=1.2, cfg_weight=0.5)
SMOOTH = ("CFG weight", "penalty", "temperature")
ALL = (*SMOOTH, "edge of the support", "temperature by the edge")


def probabilities(logits, uncond, seen, config):
    """Of the next token, from the definitions: (V,)."""
    scores = logits + config.cfg_weight * (logits - uncond)
    penalized = np.where(scores < 0, scores * config.repetition_penalty, scores / config.repetition_penalty)
    tempered = np.where(seen, penalized, scores) / config.temperature
    weights = np.exp(tempered - tempered.max())
    weights[weights < config.min_p * weights.max()] = 0
    if config.top_k:
        weights[np.argsort(-weights)[config.top_k :]] = 0
    if config.top_p < 1:
        order = np.argsort(-weights)
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before >= config.top_p * weights.sum()]] = 0
    return weights / weights.sum()


def spoken(config, seed, runs, asked=CONFIG, length=LENGTH, guided=True):
    """Runs of a made-up model that draws with one config and was asked for another."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        logits = rng.normal(0, 2, (length, SIZE)).astype(np.float32)
        uncond = (0.8 * logits + rng.normal(0, 1, (length, SIZE))).astype(np.float32) if guided else None
        tokens, seen = [], np.zeros(SIZE, dtype=np.bool_)
        for step, row in enumerate(logits.astype(np.float64)):
            other = row if uncond is None else uncond[step].astype(np.float64)
            tokens.append(int(rng.choice(SIZE, p=probabilities(row, other, seen, config))))
            seen[tokens[-1]] = True
        history = [tokens[:step] for step in range(length)]
        yield Steps(logits, history, (asked,) * length, uncond, tokens=np.array(tokens, dtype=np.int64))


def named(knobs):
    return {knob.name: knob for knob in knobs}


def truth(config):
    edge = config.temperature * math.log(1 / config.min_p) if config.min_p else math.inf
    values = (config.cfg_weight, config.repetition_penalty, config.temperature, edge, config.temperature)
    return dict(zip(ALL, values, strict=True))


def is_near(value, knob):
    """Within twice the 95 % interval, about four standard errors."""
    half = (knob.high - knob.low) / 2
    return knob.low - half <= value <= knob.high + half


OTHERS = {
    "as asked": {},
    "no penalty and colder": {"repetition_penalty": 1.0, "temperature": 0.65},
    "more guidance": {"cfg_weight": 0.9},
    "higher min_p": {"min_p": 0.1},
}


@pytest.mark.parametrize("other", OTHERS)
def test_estimates_are_near_the_truth_whatever_was_asked(other):
    """Those that differ are told."""
    made = replace(CONFIG, **OTHERS[other])
    found = named(estimated(CONFIG, spoken(made, 4, 25)))
    assert tuple(found) == ALL
    widest = dict(zip(ALL, (0.2, 0.2, 0.2, 0.1, 0.04), strict=True))
    for name, value in truth(made).items():
        if (name, other) == ("temperature by the edge", "higher min_p"):
            continue  # it takes min_p as known
        knob = found[name]
        assert knob.high - knob.low <= widest[name], knob
        assert is_near(value, knob), knob
        assert knob.asked == pytest.approx(truth(CONFIG)[name])
    if other == "no penalty and colder":
        assert {"penalty", "temperature", "temperature by the edge"} <= {
            knob.name for knob in differing(found.values())
        }


def test_more_tokens_narrow_every_interval():
    few, many = (named(estimated(CONFIG, spoken(CONFIG, 5, runs))) for runs in (6, 24))
    for name in SMOOTH:
        ratio = (few[name].high - few[name].low) / (many[name].high - many[name].low)
        assert 1.4 < ratio < 3, f"{name} is narrower by {ratio}, expected about 2"
    edge = ALL[3]
    assert few[edge].high - few[edge].low > many[edge].high - many[edge].low


COVERED = (*SMOOTH, "edge of the support")


@pytest.mark.parametrize(
    ("fits", "runs"),
    [
        pytest.param(5, 8, id="5"),
        pytest.param(300, 20, id="300", marks=pytest.mark.nightly("three hundred fits of some two seconds each")),
    ],
)
def test_intervals_cover_as_often_as_announced(fits, runs):
    """A coverage of 95 % is not refuted, at 1e-4 in each tail."""
    counts = dict.fromkeys(COVERED, 0)
    for seed in range(fits):
        found, true = named(estimated(CONFIG, spoken(CONFIG, [7, seed], runs))), truth(CONFIG)
        for name in COVERED:
            counts[name] += found[name].low <= true[name] <= found[name].high
    for name, count in counts.items():
        assert binom.cdf(count, fits, 0.95) > 1e-4, f"{name}: {count} of {fits}"
        assert binom.sf(count - 1, fits, 0.95) > 1e-4, f"{name}: {count} of {fits}"


def test_without_unconditional_logits_there_is_no_weight():
    found = named(estimated(CONFIG, spoken(CONFIG, 8, 10, guided=False)))
    assert tuple(found) == ALL[1:]
    assert is_near(1.2, found["penalty"])


def test_without_min_p_the_edge_is_below_the_deepest_token():
    """The engine drops min_p: no edge is seen, and none of the temperature follows from it."""
    found = named(estimated(CONFIG, spoken(replace(CONFIG, min_p=0.0), 9, 10)))
    assert tuple(found) == ALL[:4]
    edge = found[ALL[3]]
    assert edge.high == math.inf
    assert edge.differs
    assert is_near(0.8, found["temperature"])
    asked_none = replace(CONFIG, min_p=0.0)
    right = named(estimated(asked_none, spoken(asked_none, 9, 10)))[ALL[3]]
    assert not right.differs
    assert "asked for none" in str(right)


@pytest.mark.parametrize("filtered", [{"top_k": 5}, {"top_p": 0.9}], ids=["top_k", "top_p"])
def test_other_filters_do_not_shift_the_estimates(filtered):
    config = replace(CONFIG, **filtered)
    found, true = named(estimated(config, spoken(config, 10, 20, asked=config))), truth(config)
    assert set(SMOOTH) <= set(found)
    for name in {*SMOOTH, ALL[3]} & set(found):
        assert is_near(true[name], found[name]), found[name]


def test_a_min_p_before_the_temperature_tells_nothing_of_it():
    order = ("cfg", "repetition_penalty", "min_p", "temperature")
    asked = replace(CONFIG, order=order)
    same = replace(CONFIG, min_p=CONFIG.min_p ** (1 / CONFIG.temperature))
    found = named(estimated(asked, spoken(same, 15, 10, asked=asked)))
    assert tuple(found) == ALL[:4]
    assert found[ALL[3]].asked == pytest.approx(math.log(20))
    assert is_near(math.log(20), found[ALL[3]])


def test_runs_at_temperature_0_have_no_edge():
    asked, made = replace(CONFIG, temperature=0.0), replace(CONFIG, temperature=0.005)
    found = named(estimated(asked, spoken(made, 16, 5, asked=asked)))
    assert "edge of the support" not in found
    assert found["temperature"].low == 0
    assert not found["temperature"].differs


def test_one_run_tells_little():
    """Fifteen tokens give wide intervals, or none."""
    found = named(estimated(CONFIG, spoken(CONFIG, 11, 1, length=15)))
    for name in set(SMOOTH) & set(found):
        knob, true = found[name], truth(CONFIG)[name]
        assert knob.high - knob.low > 0.2
        assert is_near(true, knob)


def test_a_single_token_tells_nothing():
    assert not differing(estimated(CONFIG, spoken(CONFIG, 12, 1, length=1)))
    assert estimated(CONFIG, []) == ()


def test_an_optional_stage_is_not_estimated():
    config = replace(CONFIG, order=SamplingConfig().order, frequency_penalty=0.1)
    assert estimated(config, spoken(CONFIG, 13, 1)) == ()


def test_the_same_tokens_give_the_same_estimates():
    first, second = (estimated(CONFIG, spoken(CONFIG, 14, 5)) for _ in range(2))
    assert first == second


def test_what_differs_is_told_in_one_sentence():
    temperature = Knob("temperature", 0.8, 0.75, 0.72, 0.78)
    penalty = Knob("penalty", 1.2, 1.0, 0.9999, 1.0001)
    weight = Knob("CFG weight", 0.5, 0.5, 0.4, 0.6)
    assert str(temperature) == "temperature 0.72 to 0.78 (asked 0.8)"
    assert differing([temperature, penalty, weight]) == (temperature, penalty)
    expected = "temperature 0.72 to 0.78, penalty 1.00; asked 0.8 and 1.2"
    assert difference([temperature, penalty, weight]) == expected
    assert difference([temperature]) == "temperature 0.72 to 0.78; asked 0.8"
    assert difference([weight]) == ""
    assert str(Knob("temperature", 0.8, 2, 0.9, math.inf)) == "temperature above 0.90 (asked 0.8)"
    assert str(Knob("temperature", 0.8, 0.1, 0.0, 0.4)) == "temperature below 0.40 (asked 0.8)"
