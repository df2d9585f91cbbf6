"""`sampler check --json`: the keys, types, words and exit codes that others rely on, through the command line."""

import json
import math
import re
import shlex
from pathlib import Path

import pytest

from sampler.engines import isolation
from tests import miniatures
from tests.commands import assert_one_clear_line, sampler

MINIATURES = miniatures.__file__
OUTCOMES = {"passed", "failed", "errored", "skipped", "inconclusive"}
KEYS = ["engine", "against", "dialect", "false_alarm_rate", "outcome", "verdicts", "diagnosis"]
NUMBERS = dict.fromkeys(("statistic", "bound", "p_value", "alpha", "detectable", "required"), int | float | None)
VERDICT = ["case", "level", "check", "stage", "outcome", "n", *NUMBERS, "reason", "message", "reproduce"]
TYPES = dict.fromkeys(VERDICT, str) | NUMBERS | {"n": int, "reason": str | None}

INFO = {
    "name", "version", "device", "dtype", "vocab_size", "bos_id", "eos_ids", "cfg", "supports", "orders", "dialect",
}  # fmt: skip

BROKEN = """
import os
import time

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.engines.reference.chain import ReferenceEngine


class Broken:
    info = EngineInfo(name="broken", version="1")

    def __init__(self, **faults):
        self.reference, self.faults = ReferenceEngine(), faults

    def process(self, logits, history, config, uncond_logits=None):
        scores = self.reference.process(logits, history, config, uncond_logits)
        on = {"top_k": config.top_k == 1, "min_p": config.min_p > 0, "purity": True}
        for stage, fault in self.faults.items():
            if on[stage]:
                return FAULTS[fault](logits, scores)
        return scores

    def draw(self, logits, history, config, n, seed, uncond_logits=None):
        return np.random.default_rng(seed).integers(0, len(logits), n) + len(logits)


FAULTS = {
    "hangs": lambda logits, scores: time.sleep(600),
    "exits": lambda logits, scores: os._exit(5),
    "raises": lambda logits, scores: 1 / 0,
    "wrong_shape": lambda logits, scores: scores[:, :-1],
    "nan": lambda logits, scores: scores * np.float32("nan"),
    "writes": lambda logits, scores: (scores, logits.fill(0))[0],
}
"""


def checked(path: Path, *arguments: object):
    result = sampler("check", *arguments, "--json", path)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert list(report) == KEYS
    assert set(report["engine"]) == INFO
    assert report["against"] is None
    assert isinstance(report["dialect"], str | None)
    assert isinstance(report["false_alarm_rate"], float)
    assert report["outcome"] in ("agrees", "disagrees", "errored", "skipped", "inconclusive")
    for verdict in report["verdicts"]:
        assert list(verdict) == VERDICT
        for key, kind in TYPES.items():
            assert isinstance(verdict[key], kind), (key, verdict)
            assert not isinstance(verdict[key], float) or math.isfinite(verdict[key])
        assert verdict["outcome"] in OUTCOMES
        assert verdict["level"] in ("process", "draw", "predict", "generate")
        if verdict["outcome"] in ("failed", "errored"):
            assert verdict["reproduce"].startswith(f"sampler replay {verdict['case']} --seed ")
    cases = {verdict["case"] for verdict in report["verdicts"]}
    assert len(cases) == len(report["verdicts"])
    for cause in report["diagnosis"]:
        assert list(cause) == ["stage", "explanation", "cases"]
        assert set() < set(cause["cases"]) <= cases
    return result, report


def test_an_engine_that_agrees(tmp_path):
    path = tmp_path / "report.json"
    result, report = checked(path, f"{MINIATURES}:right_by_masks", "--level", "process", "--seed", 3)
    assert result.returncode == 0, result.stdout
    assert (report["outcome"], report["diagnosis"], report["dialect"]) == ("agrees", [], None)
    assert {verdict["outcome"] for verdict in report["verdicts"]} <= {"passed", "skipped", "inconclusive"}
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_an_engine_that_disagrees(tmp_path):
    arguments = f"{MINIATURES}:top_p_before_min_p", "--level", "process", "--false-alarm-rate", "1e-5"
    result, report = checked(tmp_path / "report.json", *arguments)
    assert result.returncode == 1
    assert (report["outcome"], report["dialect"], report["false_alarm_rate"]) == ("disagrees", "transformers", 1e-5)
    assert report["diagnosis"][0]["stage"] == "order"
    assert "'transformers'" in report["diagnosis"][0]["explanation"]
    assert {verdict["outcome"] for verdict in report["verdicts"]} & {"failed", "errored"}
    assert "most likely:" in result.stdout
    assert "sampler replay process/" in result.stdout


def test_an_engine_of_which_nothing_can_be_asked(tmp_path):
    result, report = checked(tmp_path / "report.json", f"{MINIATURES}:right_only_draws", "--level", "process")
    assert result.returncode == 3
    assert report["outcome"] == "skipped"
    assert {verdict["outcome"] for verdict in report["verdicts"]} == {"skipped"}
    assert "the engine has no process()" in report["verdicts"][0]["message"]


def test_a_report_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    (tmp_path / "file").touch()
    result = sampler("check", "reference", "--json", tmp_path / "file" / "report.json")
    assert_one_clear_line(result, "report.json")
    assert result.stdout == ""
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


FAULTS = {
    "hangs": ("top_k", "no answer within"),
    "exits": ("top_k", "its process ended with exit code 5"),
    "raises": ("min_p", "ZeroDivisionError: division by zero (broken.py, line"),
    "wrong_shape": ("min_p", "scores of shape (12, 299), expected (12, 300)"),
    "nan": ("min_p", "scores are NaN or +inf"),
    "writes": ("purity", "it writes into logits"),
}
"""Each with the stage at which the engine has it, and what the report says."""


@pytest.mark.parametrize(
    "faults",
    [
        ("hangs", "raises"),
        *(pytest.param((name,), marks=pytest.mark.nightly("a whole check for each kind of fault")) for name in FAULTS),
    ],
    ids="+".join,
)
def test_an_engine_that_breaks_gets_a_verdict_and_every_other_check_runs(tmp_path, monkeypatch, faults):
    for name, seconds in (("WARM_UP_TIMEOUT", 5.0), ("FIRST_TIMEOUT", 3.0), ("NEXT_TIMEOUT", 1.0)):
        monkeypatch.setattr(isolation, name, seconds)
    expected = dict(FAULTS[fault] for fault in faults)
    settings = ", ".join(f"{FAULTS[fault][0]}={fault!r}" for fault in faults)
    (tmp_path / "broken.py").write_text(f"{BROKEN}\n\ndef engine():\n    return Broken({settings})\n", encoding="utf-8")
    result, report = checked(tmp_path / "report.json", f"{tmp_path / 'broken.py'}:engine", "--level", "process")
    assert result.returncode == 1
    explanations = {cause["stage"]: cause["explanation"] for cause in report["diagnosis"][: len(faults)]}
    assert explanations.keys() == expected.keys()
    assert all(words in explanations[stage] for stage, words in expected.items())
    outcomes = {verdict["case"]: verdict["outcome"] for verdict in report["verdicts"]}
    others = ("nothing", "cfg", "repetition_penalty", "temperature", "top_p")
    assert {outcomes[f"process/{other}/scores"] for other in others} == {"passed"}
    assert "not asked any more" not in result.stdout
    lines = re.findall(r"Reproduce with: sampler (replay .+)", result.stdout)
    for stage in expected:
        line = next(line for line in lines if f"/{stage}/" in line or stage == "purity")
        again = sampler(*shlex.split(line))
        assert again.returncode == 1, again.stderr
        assert f"(stage {stage})" in again.stdout


def test_a_token_outside_the_vocabulary_is_a_verdict(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    result, report = checked(tmp_path / "report.json", f"{tmp_path / 'broken.py'}:Broken", "--level", "draw")
    assert result.returncode == 1
    assert "draw() gave the token" in report["diagnosis"][0]["explanation"]
    assert len(report["verdicts"]) > 30
