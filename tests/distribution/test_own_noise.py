"""Made-up engines with noise of their own, whose tokens are judged against their recorded logits."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binom

from sampler.checks.scoring.alternatives import FACTORS, other_configs
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.precision import precision_of
from sampler.checks.steps.sampled import add_runs, draws, wagers_of
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Generation, Record, Request
from tests.wrong_engines.right_answers import to_bfloat16

SIZE, TOKENS, EOS, ALPHA = 60, 40, 59, 2.5e-7
LATER = pytest.mark.nightly("draws thousands of tokens; another fault is tested by day")
CONFIG = SamplingConfig(temperature=0.8, min_p=0.02, repetition_penalty=1.2, cfg_weight=0.0)
REFERENCE = ReferenceEngine()


@dataclass
class Speaks:
    """Names the EOS and the precision of made-up runs."""

    dtype: str = "float32"

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("speaks", "1", dtype=self.dtype, vocab_size=SIZE, eos_ids=(EOS,))


def likelihood(evidence):
    """The finding of the wagers on the runs of a cell alone."""
    wagers = wagers_of(evidence)
    add_runs(wagers, evidence)
    return wagers.finding()


def by_choice(scores, rng):
    return int(rng.choice(len(scores), p=softmax(scores)))


def by_inversion(scores, rng):
    cumulative = softmax(scores).cumsum()
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def by_gumbel(scores, rng):
    return int((scores.astype(np.float32) + rng.gumbel(size=len(scores)).astype(np.float32)).argmax())


def by_torch(scores, rng):
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return int(torch.multinomial(torch.softmax(torch.from_numpy(scores), -1), 1, generator=generator))


WAYS = (by_choice, by_inversion, by_gumbel, by_torch)


def in_float32(logits, history, config):
    return REFERENCE.process(logits[None], [history], config)[0].astype(np.float64)


def in_half(stored):
    """The chain with scores and probabilities that are stored in half precision after each stage."""

    def chain(logits, history, config):
        scores = stored(logits.astype(np.float32))
        seen = np.isin(np.arange(SIZE), history)
        penalty = np.where(scores < 0, config.repetition_penalty, 1 / config.repetition_penalty)
        scores = stored(np.where(seen, scores * penalty, scores).astype(np.float32))
        scores = stored((scores / config.temperature).astype(np.float32))
        p = stored(softmax(scores))
        return np.where(p >= config.min_p * p.max(), scores, -np.inf).astype(np.float64)

    return chain


def to_float16(values):
    return values.astype(np.float16).astype(np.float32)


HALF = {"float16": to_float16, "bfloat16": to_bfloat16}


def spoken(
    config, seed, runs, length=TOKENS, change=lambda logits: logits, pick=by_choice, chain=in_float32, dtype="float32"
):
    """Runs of a made-up model: its recorded logits, and tokens drawn from a chain."""
    rng, generations = np.random.default_rng(seed), []
    stored = HALF.get(dtype, np.asarray)
    for _ in range(runs):
        tokens, logits = [], []
        for _ in range(length):
            logits.append(stored(rng.normal(0, 2, (1, SIZE)).astype(np.float32)))
            tokens.append(pick(chain(change(logits[-1])[0], tokens, config), rng))
        empty = np.zeros(length, dtype=np.float32)
        record = Record(empty, empty.astype(np.int32), empty, empty, 0, 1, logits=np.array(logits))
        generations.append(Generation(tuple(tokens), "length", record))
    requests = [Request((), CONFIG, 0, length)] * runs
    reference = ReferenceEngine(precision_of(dtype, []).rounding)
    return Evidence(Speaks(dtype), reference, None, "", requests, generations, alpha=ALPHA)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param({way: range(number, 20, 4) for number, way in enumerate(WAYS)}, id="20"),
        pytest.param(
            dict.fromkeys(WAYS, range(200)), id="200", marks=pytest.mark.nightly("eight hundred times 80 tokens")
        ),
    ],
)
def test_right_engines_are_accused_as_rarely_as_announced(seeds):
    """By Ville's inequality p <= a has a probability of at most a, whenever one stops; none is below alpha."""
    p_values = np.array(
        [
            likelihood(spoken(CONFIG, [number, seed], 4, 20, pick=way)).p_value
            for number, (way, some) in enumerate(seeds.items())
            for seed in some
        ]
    )
    assert len(p_values) * ALPHA < 1e-3, "the union bound for all of them"
    assert (p_values > ALPHA).all()
    for rate in (0.05, 0.01, 0.001):
        count = int((p_values <= rate).sum())
        assert binom.sf(count - 1, len(p_values), rate) > 1e-6, f"{count} p-values are at most {rate}"


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=LATER), "int8"])
def test_another_precision_is_judged_within_its_tolerance(dtype):
    """A right engine is left alone, even over many tokens; half the temperature is not, whatever precision it names."""
    how = {"chain": in_half(HALF.get(dtype, np.asarray)), "dtype": dtype}
    right = likelihood(spoken(CONFIG, 1, 12, **how))
    assert right.outcome == "passed", right.message
    wrong = likelihood(spoken(replace(CONFIG, temperature=0.4), 1, 12, **how))
    assert (wrong.outcome, wrong.stage) == ("failed", "temperature"), wrong.message


@pytest.mark.parametrize(
    ("temperature", "outcome"), [(0.8, "passed"), pytest.param(0.72, "failed", marks=LATER)], ids=["right", "wrong"]
)
def test_more_runs_are_generated_while_a_bet_grows_and_no_more(temperature, outcome):
    """The wrong engine is followed until it is proved; the right one costs the least number of rounds."""
    config, asked = replace(CONFIG, temperature=temperature), []

    def further(first, count):
        asked.append(first)
        runs = spoken(config, [2, first], 6)
        return runs.requests, runs.generations

    finding = draws(replace(spoken(config, 3, 2), further=further, own_noise=True))
    assert finding.outcome == outcome, finding.message
    assert (len(asked) > 3) == (outcome == "failed")


def test_a_further_run_outside_the_support_is_a_failure():
    def further(first, count):
        runs = spoken(replace(CONFIG, min_p=0.0), [2, first], 6)
        return runs.requests, runs.generations

    finding = draws(replace(spoken(CONFIG, 3, 2), further=further, own_noise=True))
    assert (finding.outcome, finding.stage) == ("failed", "min_p"), finding.message
    assert "of further runs with other seeds" in finding.message


def test_a_further_run_without_a_record_is_no_pass():
    def further(first, count):
        runs = spoken(CONFIG, 2, 6)
        return runs.requests, [replace(one, record=None) for one in runs.generations]

    finding = draws(replace(spoken(CONFIG, 3, 2), further=further, own_noise=True))
    assert (finding.outcome, finding.reason) == ("inconclusive", "not_recorded"), finding.message


def lifted(by):
    def change(logits):
        logits = logits.copy()
        logits[:, EOS] += by
        return logits

    return change


@pytest.mark.parametrize(
    ("config", "change", "stage"),
    [
        (replace(CONFIG, temperature=0.4), lambda logits: logits, "temperature"),
        (replace(CONFIG, repetition_penalty=1.0), lambda logits: logits, "repetition_penalty"),
        pytest.param(replace(CONFIG, repetition_penalty=1.8), lambda logits: logits, "repetition_penalty", marks=LATER),
        pytest.param(replace(CONFIG, min_p=0.1), lambda logits: logits, "min_p", marks=LATER),
        (CONFIG, lifted(2.0), "stop"),
    ],
    ids=["half the temperature", "no penalty", "strong penalty", "higher min_p", "EOS lifted"],
)
def test_another_chain_is_rejected_and_its_stage_is_named(config, change, stage):
    finding = likelihood(spoken(config, 1, 12, change=change))
    assert (finding.outcome, finding.stage) == ("failed", stage), finding.message


def test_right_runs_pass_if_they_are_long_enough():
    finding = likelihood(spoken(CONFIG, 0, 10))
    assert (finding.outcome, finding.detectable <= finding.required) == ("passed", True), finding.message
    few = likelihood(spoken(CONFIG, 1, 1, length=5))
    assert (few.outcome, few.reason) == ("inconclusive", "too_few")
    assert few.detectable == 1


def test_every_size_of_the_temperature_has_both_directions():
    sizes = {named.size for named, _ in other_configs(CONFIG) if named.family == "temperature"}
    assert sizes == {*FACTORS, *(1 / factor for factor in FACTORS)}
    assert math.isclose(min(sizes) * max(sizes), 1)
