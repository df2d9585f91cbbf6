"""Ids that a log has lost, of runs of a made-up model that draws all ids equally often."""

from functools import cache

import pytest

from sampler.checks.scoring.impossible import Impossible
from sampler.checks.scoring.missing import filtered
from sampler.checks.scoring.score import Run, Score
from sampler.engines.reference.chain import ReferenceEngine
from tests.distribution.test_knobs import CONFIG, SIZE, spoken


@cache
def runs():
    return tuple(spoken(CONFIG, 5, 24))


def score_of(kept, impossible=0.01):
    """A score of 24 runs without the tokens that were not kept, of which a share is impossible."""
    reference = ReferenceEngine(input_error=1e-5)
    score = Score(CONFIG, 1e-6, reference, reference, SIZE, (SIZE - 1,))
    for steps in runs():
        left = steps.only([row for row, token in enumerate(steps.tokens.tolist()) if kept(token)])
        score.runs.append(Run("run", left.tokens.tolist(), "length", lambda _, of=left: [of]))
        score.checked += len(left.tokens)
    score.impossible += [Impossible("run", 0, 0, "min_p", 1.0)] * int(impossible * score.checked)
    return score


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (
            lambda token: token < 50 or token == SIZE - 1,
            "a log without ids from 50 on, of which the model draws about ",
        ),
        (lambda token: token not in (30, 33), "a log without token 30, 33, of which the model draws about "),
    ],
)
def test_ids_that_were_filtered_out_are_named(kept, says):
    assert filtered(score_of(kept)).text.startswith(says)


@pytest.mark.parametrize(
    ("kept", "impossible"),
    [
        (lambda _: True, 0.01),
        (lambda token: token < SIZE - 1, 0.01),
        (lambda token: token < 50, 0),
        (lambda token: token < 50, 0.6),
    ],
    ids=["all", "EOS alone", "nothing impossible", "most impossible"],
)
def test_a_log_that_tells_nothing_of_missing_ids_has_no_such_name(kept, impossible):
    assert filtered(score_of(kept, impossible)) is None
