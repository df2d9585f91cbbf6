"""Runs with the reference's noise: equal, parted by a near tie or for another reason, and engines that take none."""

from dataclasses import replace

import numpy as np
import pytest

from sampler.checks.longform.runs import TokenRun
from sampler.checks.longform.same_noise import NEAR_TIE, parting, same
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.run.session import Session
from tests.sessions import verdicts_of

START = tuple(range(100, 120))
THEIRS = TokenRun("a", (*START, 3, 1, 4, 1, 5), "eos", margin=np.array([1.0] * 20 + [1.0, 2.0, NEAR_TIE / 2, 0.5, 3.0]))


@pytest.mark.parametrize(
    ("tokens", "step"),
    [((3, 1, 4, 1, 5), None), ((3, 1, 4, 2, 5), 3), ((3, 1, 4), 3), ((3, 1, 4, 1, 5, 9), 5), ((), 0)],
)
def test_where_two_runs_part(tokens, step):
    assert parting(tokens, THEIRS.tokens[20:]) == step


@pytest.mark.parametrize(
    ("tokens", "outcome", "words"),
    [
        ((3, 1, 4, 1, 5), "passed", "1 of 1 runs with upstream's noise are upstream's token for token"),
        ((3, 1, 7, 7, 7), "passed", "0 of 1 runs with upstream's noise are upstream's token for token, 1 until a near"),
        ((3, 1, 4, 2, 5), "failed", "text 'a' parts at step 23: 2 in place of 1, which leads by 0.5 nats there"),
        ((3, 1, 4, 1), "failed", "text 'a' parts at step 24, where it stops (eos)"),
        ((3, 1, 4, 1, 5, 9), "failed", "text 'a' parts at step 25, where upstream had ended (eos)"),
    ],
)
def test_a_run_is_upstreams_or_the_message_says_where_it_parts(tokens, outcome, words):
    found = same([TokenRun("a", (*START, *tokens), "eos")], [THEIRS])
    assert found.outcome == outcome
    assert words in found.message
    assert found.alpha is None


def test_too_few_tokens_before_a_near_tie_say_nothing():
    early = TokenRun("a", (3, 1, 4), "eos", margin=np.array([NEAR_TIE / 2, 1.0, 1.0]))
    assert same([TokenRun("a", (9, 1, 4), "eos")], [early]).outcome == "inconclusive"
    assert same([], []).outcome == "inconclusive"


def test_a_parting_without_a_known_margin_is_no_near_tie():
    for margin in (None, np.full(25, 1.0)):
        assert same([TokenRun("a", (3, 9), "eos")], [replace(THEIRS, margin=margin)]).outcome == "failed"


class OwnNoise:
    """Finch that draws with noise of its own."""

    def __init__(self):
        self.core = CoreEngine.load(width=4)
        self.info = self.core.info

    def generate(self, requests):
        return self.core.generate([replace(request, noise=None) for request in requests])


@pytest.fixture(scope="module")
def longform():
    matrix = load_matrix(find_matrix("sentences"))
    workload = matrix.workload.model_copy(update={"runs": 1, "requests": 12})
    return replace(matrix, cases=(replace(matrix.cases[0], workload=workload),))


def test_the_core_generates_upstreams_runs(longform):
    verdict = verdicts_of(Session(longform), "base")["same"]
    assert verdict.outcome == "passed", verdict.message
    assert "2 of 2 runs" in verdict.message


def test_an_engine_with_noise_of_its_own_is_not_accused(longform):
    verdict = verdicts_of(Session(longform, engine_name=f"{__file__}:OwnNoise"), "base")["same"]
    assert (verdict.outcome, verdict.message) == ("skipped", "the engine draws with its own noise")
