"""The margin test of scoring: engines that take the suite's noise, right and wrong ones, and one with its own."""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from sampler.chain.noise import NoiseKey
from sampler.checks.scoring.findings import findings
from sampler.checks.scoring.tolerance import TOLERANCES
from sampler.engines.core import CoreEngine
from sampler.requests import Generation
from sampler.run.scoring import Model
from sampler.run.spoken import Spoken
from tests.longform.scored_sets import speak
from tests.longform.test_cell_scoring import RUNS, STEPS, Port, verdicts
from tests.longform.test_precision_classes import LATER
from tests.longform.test_scoring import core
from tests.longform.wrong_runs import DEFAULT, RATE, WIDTH, checkpoint, request_of
from tests.wrong_engines.wrong_generators import WRONG_GENERATORS
from tests.wrong_engines.wrong_generators.table import SENTENCES


@cache
def model():
    return Model(CoreEngine.load(width=1), networks=False)


def scored(runs, name="float32", *, noise=True):
    score = model().score(DEFAULT, RATE, TOLERANCES[name], noise=noise)
    for run in model().scored(runs):
        score.add(run)
    return score


BY_NIGHT = pytest.mark.nightly("cells of both kinds ask the same question; one of them fails by day")


@pytest.mark.parametrize(
    ("name", "stage", "most", "classes"),
    [
        ("seeds_by_the_slot", "seed", 20, ("float32", "bfloat16")),
        ("takes_the_seed_modulo_2", "seed", 20, ("float32", "bfloat16")),
        ("rotary_is_one_ahead_after_the_prefill", "draw", 250, ("float32",)),
    ],
)
def test_a_fault_that_tokens_hardly_show_is_proved(name, stage, most, classes):
    """By tokens of so few steps; scoring without the noise needs hundreds more, or does not see it."""
    runs = [*speak(name, 0, range(6))]
    for tolerance in classes:
        score = scored(runs, tolerance)
        found = findings(score)["winners"]
        assert (found.outcome, found.stage, found.p_value) == ("failed", stage, 0.0)
        assert score.margins.proof <= most
        assert not score.decided


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), pytest.param("float16", "float16", marks=LATER)],
)
def test_a_right_engine_is_left_alone_in_its_class(dtype, name):
    requests = [request_of(text, NoiseKey(7, text.id), 250) for text in SENTENCES.prompts[:4]]
    made = CoreEngine.load(width=len(requests), dtype=dtype).recording(logits=False, attention=False)
    runs = [
        Spoken(f"run {place}", request, one.tokens, one.stop_reason)
        for place, (request, one) in enumerate(zip(requests, made.generate(requests), strict=True), 1)
    ]
    score = scored(runs, name)
    found = findings(score)["winners"]
    assert (found.outcome, found.n) == ("passed", score.checked), found.message


@dataclass(frozen=True)
class Taking:
    """A port of Finch that gives tokens alone, and draws with the noise of a step so many further on."""

    generator: Any
    further: int = 0
    info = Port.info

    def generate(self, requests):
        made = self.generator.generate([self._asked(request) for request in requests])
        return [Generation(one.tokens, one.stop_reason) for one in made]

    def _asked(self, request):
        return replace(request, noise=lambda step: request.noise(step + self.further))


@pytest.mark.parametrize("text", [STEPS, RUNS], ids=["steps", "whole runs"])
def test_tokens_of_a_port_that_takes_the_noise_are_the_winners(tmp_path, text):
    found = verdicts(tmp_path, text, Taking(core()))
    assert found["winners"].outcome == "passed"
    assert found["winners"].n == found["impossible"].n
    assert found["evidence"].outcome == "passed"


@pytest.mark.parametrize("text", [pytest.param(STEPS, marks=BY_NIGHT), RUNS], ids=["steps", "whole runs"])
def test_a_port_that_takes_the_noise_of_the_next_step_is_proved_wrong(tmp_path, text):
    margin = verdicts(tmp_path, text, Taking(core(), further=1))["winners"]
    assert (margin.outcome, margin.stage, margin.reproduce) == ("failed", "seed", "cells/base/winners")
    assert re.search(r"with the suite's noise token \d+ of run \d+ \(.*\) should have been \d+", margin.message)


def test_a_port_with_another_network_is_proved_wrong(tmp_path):
    ahead = WRONG_GENERATORS["rotary_is_one_ahead_after_the_prefill"].factory(checkpoint(), WIDTH)
    margin = verdicts(tmp_path, RUNS.replace("runs = 2", "runs = 5"), Taking(ahead))["winners"]
    assert (margin.outcome, margin.stage) == ("failed", "position")
    assert "it looks like rotary positions one ahead after the prompt" in margin.message


def test_bets_get_the_whole_budget_where_no_noise_is_known():
    runs = [*speak("takes_the_seed_modulo_2", 0, range(2))]
    score = scored(runs, noise=False)
    assert "winners" not in findings(score)
    assert score.wagers.alpha == RATE
    shares = scored(runs)
    assert shares.wagers.alpha + shares.margins.alpha == pytest.approx(RATE)
