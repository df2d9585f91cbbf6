"""`sampler check --json`: the keys, types, words and exit codes that others rely on, through the real command line."""

import json
import math
import re
import shlex
from pathlib import Path

import pytest

from tests.interface.test_cli import ROOT, assert_one_clear_line, sampler

MINIATURES = str(ROOT / "tests" / "miniatures.py")
OUTCOMES = {"passed", "failed", "errored", "skipped", "inconclusive"}
NUMBER = int | float | None
TYPES = {
    "case": str,
    "level": str,
    "check": str,
    "stage": str,
    "outcome": str,
    "n": int,
    "statistic": NUMBER,
    "bound": NUMBER,
    "p_value": NUMBER,
    "alpha": NUMBER,
    "detectable": NUMBER,
    "required": NUMBER,
    "reason": str | None,
    "message": str,
    "reproduce": str,
}
"""Of a verdict."""

INFO = {
    "name", "version", "device", "dtype", "vocab_size", "bos_id", "eos_ids", "cfg", "supports", "orders", "dialect",
}  # fmt: skip

BROKEN = '''
"""Engines that break in a manner each; all of them are right otherwise."""

import os
import time

import numpy as np

from sampler.engines.base import EngineInfo
from sampler.engines.reference.chain import ReferenceEngine


class Broken:
    info = EngineInfo(name="broken", version="1")

    def __init__(self, change, breaks=lambda config: True):
        self.reference, self.change, self.breaks = ReferenceEngine(), change, breaks

    def process(self, logits, history, config, uncond_logits=None):
        scores = self.reference.process(logits, history, config, uncond_logits)
        return self.change(logits, scores) if self.breaks(config) else scores

    def draw(self, logits, history, config, n, seed, uncond_logits=None):
        return np.random.default_rng(seed).integers(0, len(logits), n) + len(logits)


def with_min_p(config):
    return config.min_p > 0


def hangs():
    return Broken(lambda logits, scores: time.sleep(600), lambda config: config.top_k == 1)


def exits():
    return Broken(lambda logits, scores: os._exit(5), lambda config: config.top_k == 1)


def raises():
    return Broken(lambda logits, scores: 1 / 0, with_min_p)


def wrong_shape():
    return Broken(lambda logits, scores: scores[:, :-1], with_min_p)


def nan():
    return Broken(lambda logits, scores: scores * np.float32("nan"), with_min_p)


def outside():
    return Broken(lambda logits, scores: scores)


def writes():
    def change(logits, scores):
        logits[:] = 0
        return scores

    return Broken(change)
'''


def checked(path: Path, *arguments: object):
    """The finished command and its report."""
    result = sampler("check", *arguments, "--json", path)
    assert "Traceback" not in result.stderr + result.stdout
    return result, json.loads(path.read_text(encoding="utf-8"))


def assert_contract(report):
    assert list(report) == [
        "engine", "against", "dialect", "false_alarm_rate", "outcome", "verdicts", "diagnosis",
    ]  # fmt: skip
    assert set(report["engine"]) == INFO
    assert report["against"] is None
    assert isinstance(report["dialect"], str | None)
    assert isinstance(report["false_alarm_rate"], float)
    assert report["outcome"] in ("agrees", "disagrees", "errored", "skipped", "inconclusive")
    for verdict in report["verdicts"]:
        assert list(verdict) == list(TYPES)
        for key, kind in TYPES.items():
            assert isinstance(verdict[key], kind), (key, verdict)
            assert not isinstance(verdict[key], float) or math.isfinite(verdict[key])
        assert verdict["outcome"] in OUTCOMES
        assert verdict["level"] in ("process", "draw", "predict", "generate")
        if verdict["outcome"] in ("failed", "errored"):
            assert verdict["reproduce"].startswith(f"sampler replay {verdict['case']} --seed ")
    cases = [verdict["case"] for verdict in report["verdicts"]]
    assert len(set(cases)) == len(cases)
    for cause in report["diagnosis"]:
        assert list(cause) == ["stage", "explanation", "cases"]
        assert cause["cases"]
        assert set(cause["cases"]) <= set(cases)


def failed(report):
    return [verdict for verdict in report["verdicts"] if verdict["outcome"] in ("failed", "errored")]


def test_an_engine_that_agrees(tmp_path):
    path = tmp_path / "report.json"
    result, report = checked(path, f"{MINIATURES}:right_by_masks", "--level", "process", "--seed", 3)
    assert result.returncode == 0, result.stdout
    assert_contract(report)
    assert (report["outcome"], report["diagnosis"], report["dialect"]) == ("agrees", [], None)
    assert {verdict["outcome"] for verdict in report["verdicts"]} <= {"passed", "skipped", "inconclusive"}
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_an_engine_that_disagrees(tmp_path):
    arguments = f"{MINIATURES}:top_p_before_min_p", "--level", "process", "--false-alarm-rate", "1e-5"
    result, report = checked(tmp_path / "report.json", *arguments)
    assert result.returncode == 1
    assert_contract(report)
    assert (report["outcome"], report["dialect"], report["false_alarm_rate"]) == ("disagrees", "transformers", 1e-5)
    assert report["diagnosis"][0]["stage"] == "order"
    assert "'transformers'" in report["diagnosis"][0]["explanation"]
    assert failed(report)
    assert "most likely:" in result.stdout
    assert "sampler replay process/" in result.stdout


def test_an_engine_of_which_nothing_can_be_asked(tmp_path):
    result, report = checked(tmp_path / "report.json", f"{MINIATURES}:right_only_draws", "--level", "process")
    assert result.returncode == 3
    assert_contract(report)
    assert report["outcome"] == "skipped"
    assert {verdict["outcome"] for verdict in report["verdicts"]} == {"skipped"}
    assert "the engine has no process()" in report["verdicts"][0]["message"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["reference", "--level", "scores"], "--level 'scores' is no level"),
        (["refrence"], "'refrence' is no engine"),
        (["reference", "--false-alarm-rate", "2"], "--false-alarm-rate"),
        (["reference", "--tolerance", "-1"], "--tolerance -1.0 is no total variation"),
        (["no/such/file.py:engine"], "no/such/file.py cannot be imported"),
        ([f"{MINIATURES}:no_such_factory"], "no_such_factory"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, arguments, expected):
    result = sampler("check", *arguments, "--json", tmp_path / "report.json")
    assert_one_clear_line(result, expected)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    (tmp_path / "file").touch()
    result = sampler("check", "reference", "--json", tmp_path / "file" / "report.json")
    assert_one_clear_line(result, "report.json")
    assert result.stdout == ""
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "broken.py"
    path.write_text(BROKEN, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "stage", "expected"),
    [
        ("hangs", "top_k", "no answer within"),
        ("exits", "top_k", "its process ended with exit code 5"),
        ("raises", "min_p", "ZeroDivisionError: division by zero (broken.py, line"),
        ("wrong_shape", "min_p", "scores of shape (12, 299), expected (12, 300)"),
        ("nan", "min_p", "scores are NaN or +inf"),
        ("writes", "purity", "it writes into logits"),
    ],
)
def test_an_engine_that_breaks_gets_a_verdict_and_every_other_check_runs(tmp_path, broken, name, stage, expected):
    result, report = checked(tmp_path / "report.json", f"{broken}:{name}", "--level", "process")
    assert result.returncode == 1
    assert_contract(report)
    assert report["diagnosis"][0]["stage"] == stage
    assert expected in report["diagnosis"][0]["explanation"]
    outcomes = {verdict["case"]: verdict["outcome"] for verdict in report["verdicts"]}
    others = ("nothing", "cfg", "repetition_penalty", "temperature", "top_p")
    assert {outcomes[f"process/{other}/scores"] for other in others} == {"passed"}
    assert "not asked any more" not in result.stdout
    lines = re.findall(r"Reproduce with: sampler (replay .+)", result.stdout)
    again = sampler(*shlex.split(next(line for line in lines if f"/{stage}/" in line or stage == "purity")))
    assert again.returncode == 1, again.stderr
    assert f"(stage {stage})" in again.stdout


def test_a_token_outside_the_vocabulary_is_a_verdict(tmp_path, broken):
    result, report = checked(tmp_path / "report.json", f"{broken}:outside", "--level", "draw")
    assert result.returncode == 1
    assert_contract(report)
    assert "draw() gave the token" in report["diagnosis"][0]["explanation"]
    assert len(report["verdicts"]) > 30
