"""`sampler check` and `sampler plan` as a user types them; every line that shows a failure again is typed too."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.longform.power import announced
from sampler.checks.verdict import exit_code
from sampler.conformance import Disagreement, examine, run_conformance
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.errors import ConfigError
from tests import miniatures

FILE = Path(__file__).parents[1] / "miniatures.py"


def sampler(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sampler", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("engine", "level", "stage", "words"),
    [
        ("top_p_drops_the_crossing_token", "process", "top_p", "drops the token that crosses the threshold"),
        ("draw_ignores_min_p", "draw", "min_p", "is accepted and ignored"),
    ],
)
def test_a_wrong_engine_is_named_and_its_line_shows_the_failure_again(engine, level, stage, words, tmp_path):
    result = sampler("check", f"{FILE}:{engine}", "--level", level, "--json", tmp_path / "report.json")
    assert result.returncode == 1, result.stderr
    assert f"1. {stage}: {words}" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["outcome"] == "disagrees"
    assert report["diagnosis"][0]["stage"] == stage
    assert words in report["diagnosis"][0]["explanation"]
    line = re.search(r"Reproduce with: sampler (replay .+)", result.stdout)
    again = sampler(*shlex.split(line[1]))
    assert again.returncode == 1, again.stderr
    assert f"failed (stage {stage})" in again.stdout


def test_replay_says_which_case_there_is_not():
    result = sampler("replay", "process/top_q/scores", "--seed", 0, "--engine", "reference")
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no case 'process/top_q/scores'")
    assert "Traceback" not in result.stderr


def test_plan_prints_n_power_alpha_and_time():
    result = sampler("plan", "--false-alarm-rate", "1e-4")
    assert result.returncode == 0, result.stderr
    assert "nothing/frequencies" in result.stdout
    assert "share 0.0001 false alarms" in result.stdout
    matrix = sampler("plan", "smoke")
    assert matrix.returncode == 0, matrix.stderr
    assert "smoke/temperature:0.8+cfg_weight:0.5" in matrix.stdout


def test_plan_of_token_runs_says_what_each_question_would_see():
    result = sampler("plan", "--texts", "16", "--runs", "20")
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines()[1:19]}
    assert list(rows) == list(announced(16, 20))
    assert rows["loops"][1:4] == [f"{announced(16, 20)['loops'].sees:.2g}", "0.5", "1.1e-07"]
    assert "320 runs on either side, 16 texts x 20" in result.stdout
    few = sampler("plan", "--texts", "2", "--runs", "2", "--false-alarm-rate", "1e-3")
    assert "nothing" in few.stdout
    assert "too few runs to pass, though they may fail: loops, distinct" in few.stdout


@pytest.mark.parametrize("options", [["--texts", "3"], ["--runs", "3"], ["smoke", "--texts", "3", "--runs", "3"]])
def test_half_a_plan_of_token_runs_is_refused(options):
    result = sampler("plan", *options)
    assert result.returncode == 2
    assert "a plan of token runs needs both numbers, and no matrix" in result.stderr


@pytest.mark.parametrize("make", [ReferenceEngine, HuggingFaceEngine, miniatures.right_by_masks])
def test_the_one_line_for_an_engines_author(make):
    report = run_conformance(make(), levels=("process",))
    assert report.outcome == "agrees"
    assert exit_code(report.outcome) == 0


def test_the_one_line_says_what_is_wrong():
    with pytest.raises(Disagreement, match="min_p: is accepted and ignored"):
        run_conformance(miniatures.min_p_without_effect(), levels=("process",))
    with pytest.raises(ConfigError, match="'proces' is no level"):
        run_conformance(ReferenceEngine(), levels=("proces",))


def test_the_parts_of_the_budget_are_together_the_rate():
    plan = DrawPlan(0, 1e-3)
    assert 0.999e-3 < sum(plan.alphas.values()) <= 1e-3
    assert set(plan.alphas) == {check.name for check in plan.checks}
    names = [check.name for check in plan.checks]
    assert len(names) == len(set(names))


def test_every_passed_statistical_verdict_has_the_power_that_the_plan_asks_for():
    plan = DrawPlan(0)
    report = examine(ReferenceEngine(), levels=("draw",))
    tests = [verdict for verdict in report.verdicts if verdict.p_value is not None]
    statistical = {verdict.case.removeprefix("draw/"): verdict for verdict in tests}
    assert set(statistical) == {check.name for check in plan.checks}
    for check in plan.checks:
        verdict = statistical[check.name]
        assert verdict.outcome == "passed", verdict.message
        assert verdict.detectable <= check.detect
        assert verdict.alpha == plan.alphas[check.name]
        assert verdict.n <= check.n
