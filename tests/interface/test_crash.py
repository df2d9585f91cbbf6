"""Crash files: what is written is read again, says the same, and is refused where it is damaged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sampler import NoiseKey, SamplingConfig, process
from sampler.checks.verdict import Verdict
from sampler.errors import SamplerError
from sampler.requests import Steps
from sampler.results.store.crash import read_crash, remove_crashes, write_crashes
from sampler.run.replay import replay_crash

CONFIG = SamplingConfig(temperature=0.8, min_p=0.1)
LOGITS = np.array([2.0, 0.0, -np.inf, -9.0, 1.5], dtype=np.float32)
UNCOND = np.array([1.0, 0.5, -1.0, 0.0, 1.5], dtype=np.float32)
NOISE = NoiseKey(1, "crash").gumbel(0, 5)[None]
STEP = Steps(LOGITS[None], [(4, 4, 1)], [CONFIG], UNCOND[None], gumbel=NOISE, tokens=np.array([3]))
VERDICT = Verdict("smoke/base/allowed", "draw", "allowed", "min_p", "failed", 1, reproduce="sampler ...")


@pytest.fixture
def crash(tmp_path) -> Path:
    return write_crashes(tmp_path, [(VERDICT, STEP)])[VERDICT.case]


def test_a_step_comes_back_bit_for_bit_and_shows_the_failure_without_model_or_engine(crash):
    content, step = read_crash(crash)
    assert (content["case"], content["stage"]) == (VERDICT.case, "min_p")
    assert (step.config, list(map(list, step.history)), step.tokens.tolist()) == (CONFIG, [[4, 4, 1]], [3])
    for name in ("logits", "uncond_logits", "gumbel"):
        np.testing.assert_array_equal(getattr(step, name), getattr(STEP, name))
    assert step.scores is None
    verdicts = {verdict.check: verdict for verdict in replay_crash(crash)[1]}
    assert list(verdicts) == ["allowed", "draws"]
    assert (verdicts["allowed"].outcome, verdicts["allowed"].stage) == ("failed", "min_p")
    assert "token 3 was drawn, min_p removes it" in verdicts["allowed"].message


def test_recorded_scores_are_judged_too(tmp_path):
    right = np.array(process(LOGITS[None], STEP.history, CONFIG, UNCOND[None]))
    wrong = np.where(np.arange(5) == 1, 0.5, right).astype(np.float32)
    outcomes = []
    for index, scores in enumerate((right, wrong)):
        verdict = replace(VERDICT, case=f"smoke/base/{index}", check="chain")
        files = write_crashes(tmp_path, [(verdict, replace(STEP, scores=scores))])
        outcomes.append(replay_crash(files[verdict.case])[1][-1])
    assert [(verdict.check, verdict.outcome) for verdict in outcomes] == [("chain", "passed"), ("chain", "failed")]
    assert "it keeps also {1}" in outcomes[1].message


def test_the_files_of_an_earlier_run_are_removed(crash):
    """And nothing else: neither those of this run nor a file that somebody else put there."""
    others = [crash.parent / name for name in ("precious.json", "0123456789abcdef.json")]
    for other in others:
        other.write_text("{}", encoding="utf-8")
    remove_crashes(crash.parent.parent, keep=[crash])
    assert set(crash.parent.iterdir()) == {crash, *others}
    remove_crashes(crash.parent.parent, keep=[])
    assert set(crash.parent.iterdir()) == set(others)
    remove_crashes(crash.parent / "none", keep=[])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": "sampler-crash/2"}, "format = 'sampler-crash/2' (Input should be 'sampler-crash/1'"),
        ({"token": 5}, "token = 5 (the logits have ids 0 to 4)"),
        ({"token": -1}, "token = -1 (Input should be greater than or equal to 0"),
        ({"token": "3"}, "token = '3' (Input should be a valid integer"),
        ({"history": [1, 5]}, "history[1] = 5 (the logits have ids 0 to 4)"),
        ({"history": [1, -2]}, "history[1] = -2 (Input should be greater than or equal to 0"),
        ({"gumbel": None}, "gumbel = None (Input should be a valid string"),
        ({"gumbel": "AAAA"}, "gumbel is no row of float32 in base64"),
        ({"gumbel": "AAAAAA=="}, "gumbel has 1 values, logits have 5 (expected a value for each token)"),
        ({"logits": ""}, "logits has no values (was it edited?)"),
        ({"logits": "%%%"}, "logits is no row of float32 in base64"),
        ({"config": "temperature=-1"}, "config: temperature = -1"),
        ({"config": "nonsense"}, "nonsense"),
    ],
)
def test_a_damaged_file_is_refused_by_field(crash, change, expected):
    crash.write_text(json.dumps(json.loads(crash.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(SamplerError) as error:
        read_crash(crash)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 200, -1, -3])
def test_a_file_that_was_cut_off_is_refused(crash, keep):
    crash.write_bytes(crash.read_bytes()[:keep])
    with pytest.raises(SamplerError, match="is no JSON: "):
        read_crash(crash)


def test_what_is_no_text_or_not_there_is_refused(crash):
    crash.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SamplerError, match=r"is no UTF-8 text: it is UTF-16 \(save it as UTF-8\)"):
        read_crash(crash)
    with pytest.raises(
        SamplerError, match=r"cannot be read: No such file or directory \(give a file of a crashes folder\)"
    ):
        read_crash(crash.with_name("none.json"))
