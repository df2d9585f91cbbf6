"""Tokens of engines in half precision, scored in the class of that precision (sampler/checks/scoring/tolerance.py)."""

import json
from functools import cache

import numpy as np
import pytest

from sampler import finch
from sampler.checks.scoring.tolerance import SINGLE, TOLERANCES, tolerance_of
from sampler.config import SamplingConfig
from sampler.engines.core import CoreEngine
from sampler.requests import Request
from sampler.run.scoring import Model, Scoring
from sampler.run.spoken import Spoken
from sampler.run.tokens import TokenFileRun
from tests.commands import assert_one_clear_line, sampler
from tests.tools.measurements.half_precision import CONFIGS, measure

ASKED = SamplingConfig()
TEXTS = finch.prompts("sentences")[:3]
LEAST_LOST = 1e-7
"""What tokens that count for nothing, and rounding, add to a probability."""

LATER = pytest.mark.nightly("half precision is slow on a CPU; another precision or fault is tested by day")


@cache
def core(dtype="float32"):
    return CoreEngine.load(width=6, dtype=dtype).recording(logits=False, attention=False)


def spoken(dtype, runs, **made):
    requests = [
        Request(text.text, SamplingConfig(**made), 40 + seed, 250, language=text.language)
        for seed, text in enumerate(TEXTS * runs)
    ]
    return [
        Spoken(
            f"run {place}",
            Request(request.prompt, ASKED, 0, 250, language=request.language),
            one.tokens,
            one.stop_reason,
        )
        for place, (request, one) in enumerate(zip(requests, core(dtype).generate(requests), strict=True), 1)
    ]


def scored(runs, name):
    return Scoring(Model(core()), runs, 1e-6, tolerance=TOLERANCES[name]).findings()


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=LATER)])
def test_a_right_engine_is_not_accused_in_its_class(dtype):
    found = scored(spoken(dtype, 2), dtype)
    assert found["impossible"].outcome == "passed", found["impossible"].message
    assert found["evidence"].outcome in ("passed", "inconclusive"), found["evidence"].message
    assert all(f"in {dtype}'s tolerance" in found[name].message for name in ("impossible", "evidence"))


@pytest.mark.parametrize(
    ("made", "stage"),
    [
        ({"min_p": 0.0}, "min_p"),
        pytest.param({"repetition_penalty": 1.0}, "repetition_penalty", marks=LATER),
        pytest.param({"temperature": 0.4}, "temperature", marks=LATER),
    ],
    ids=["min_p dropped", "penalty off", "temperature"],
)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=LATER)])
def test_a_wrong_engine_is_rejected_and_named_in_the_widest_class(dtype, made, stage):
    found = scored(spoken(dtype, 4, **made), "bfloat16")
    failed = [finding for finding in found.values() if finding.outcome == "failed"]
    assert failed, {name: finding.message for name, finding in found.items()}
    assert {finding.stage for finding in failed} == {stage}, [finding.message for finding in failed]


@pytest.mark.parametrize(
    ("dtype", "config", "texts"),
    [
        ("bfloat16", "default", 1),
        *(pytest.param(dtype, name, 4, marks=LATER) for dtype in ("float16", "bfloat16") for name in CONFIGS),
    ],
)  # fmt: skip
def test_the_tolerance_holds_for_every_alternative(dtype, config, texts):
    """By the exact expectation of every bet under what our core and upstream's torch draw, not by draws."""
    tolerance = TOLERANCES[dtype]
    rates = np.array([(each.rate, each.lost) for each in tolerance.beyond]).T
    for name, found in measure(dtype, CONFIGS[config], texts).items():
        assert max(found.sums(tolerance.beyond)) < tolerance.slack, name
        assert found.shares[-1] == 0, f"{name} draws what counts as impossible"
        assert found.shares_lost[-1] < LEAST_LOST, f"{name} draws what cannot have won"
        assert (np.array([found.shares, found.shares_lost])[:, :-1] <= rates).all(), name


def test_the_measurement_detects_a_class_that_is_too_narrow():
    """Rates of rare tokens a tenth of float16's, for bfloat16."""
    found = measure("bfloat16", ASKED, 1)["core"]
    narrow = [each._replace(rate=each.rate / 10) for each in TOLERANCES["float16"].beyond]
    assert max(found.sums(narrow)) > TOLERANCES["bfloat16"].slack


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float32", "float32"), ("float64", "float32"), ("float16", "float16"), ("int8", "bfloat16")],
)
def test_an_engine_is_judged_in_the_class_of_its_dtype(dtype, name):
    assert tolerance_of(dtype).name == name


def test_the_command_takes_the_precision_and_repeats_it(tmp_path):
    file, report = tmp_path / "port.jsonl", tmp_path / "report.json"
    lines = [
        {"prompt": text.id, "tokens": list(one.tokens), "stop_reason": one.stop_reason}
        for text, one in zip(TEXTS, spoken("float32", 1), strict=True)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    sampler("check", file, "--against", "core", "--precision", "float16", "--json", report)
    verdicts = json.loads(report.read_text(encoding="utf-8"))["verdicts"]
    impossible = next(verdict for verdict in verdicts if verdict["check"] == "impossible")
    assert (impossible["outcome"], "in float16's tolerance" in impossible["message"]) == ("passed", True)
    again = TokenFileRun(file, "core", tolerance=TOLERANCES["float16"]).reproduce
    assert again.endswith("--against core --precision float16")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--against", "core", "--precision", "half"), "precisions: float32, float16, bfloat16"),
        (("--precision", "float16"), "without a model"),
    ],
)
def test_a_precision_that_nothing_is_scored_in_is_refused(tmp_path, options, says):
    assert_one_clear_line(sampler("check", tmp_path / "port.jsonl", *options), says)


def test_only_float32_has_no_slack():
    assert [name for name, one in TOLERANCES.items() if not one.slack] == [SINGLE.name]
