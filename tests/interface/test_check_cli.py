"""`sampler check` and `sampler plan` as a user types them; every line that shows a failure again is typed too."""

import json
import re
import shlex

import pytest

from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.longform.power import announced
from sampler.checks.verdict import exit_code
from sampler.conformance import Disagreement, examine, run_conformance
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.errors import ConfigError
from sampler.run.report import SHARES
from tests import miniatures
from tests.commands import sampler

FILE = miniatures.__file__
LONG = pytest.mark.nightly("a whole check and its replay; docs and token files are checked by day")
TESTED = pytest.mark.nightly("right engines agree in several other tests")
RIGHT = [pytest.param(engine, marks=TESTED) for engine in (ReferenceEngine, HuggingFaceEngine)]


@pytest.mark.parametrize(
    ("engine", "level", "stage", "words"),
    [
        ("top_p_drops_the_crossing_token", "process", "top_p", "drops the token that crosses the threshold"),
        ("draw_ignores_min_p", "draw", "min_p", "is accepted and ignored"),
    ],
)
@LONG
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


def test_plan_prints_n_power_alpha_and_time():
    result = sampler("plan", "--false-alarm-rate", "1e-4")
    assert result.returncode == 0, result.stderr
    assert "nothing/frequencies" in result.stdout
    assert "share 7.5e-05 false alarms" in result.stdout
    matrix = sampler("plan", "smoke")
    assert matrix.returncode == 0, matrix.stderr
    assert "smoke/temperature:0.8+cfg_weight:0.5" in matrix.stdout


def test_plan_of_token_runs_gives_the_difference_that_each_question_detects():
    result = sampler("plan", "--texts", "16", "--runs", "20")
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines()[1:]}
    assert list(rows)[:20] == list(announced(16, 20))
    assert rows["loops"][1:4] == [f"{announced(16, 20)['loops'].detects:.2g}", "0.5", "5.6e-08"]
    assert rows["looping"][1:4] == [f"{announced(16, 20)['looping'].detects:.2g}", "0.2", "2.8e-08"]
    assert "320 runs on either side, 16 texts x 20" in result.stdout
    few = sampler("plan", "--texts", "2", "--runs", "2", "--false-alarm-rate", "1e-3")
    assert "nothing" in few.stdout
    assert "too few runs to pass, though they may fail: looping, endless, loops, distinct" in few.stdout


@pytest.mark.parametrize("make", [miniatures.right_by_masks, *RIGHT])
def test_the_one_line_for_an_engines_author(make):
    report = run_conformance(make(), levels=("process",))
    assert report.outcome == "agrees"
    assert exit_code(report.outcome) == 0


def test_the_one_line_says_what_is_wrong():
    with pytest.raises(Disagreement, match="min_p: is accepted and ignored"):
        run_conformance(miniatures.min_p_without_effect(), levels=("process",))
    with pytest.raises(ConfigError, match="'proces' is no level"):
        run_conformance(ReferenceEngine(), levels=("proces",))


def test_every_passed_statistical_verdict_has_the_power_that_the_plan_asks_for():
    plan = DrawPlan(0, 1e-6 * SHARES["draw"])
    assert 0.749e-6 < sum(plan.alphas.values()) <= 0.75e-6
    checks = {check.name: check for check in plan.checks}
    assert len(checks) == len(plan.checks)
    report = examine(miniatures.right_only_draws_every_stage(), levels=("draw",))
    assert report.outcome == "agrees"
    tests = [verdict for verdict in report.verdicts if verdict.p_value is not None]
    statistical = {verdict.case.removeprefix("draw/"): verdict for verdict in tests}
    assert statistical.keys() == checks.keys() == plan.alphas.keys()
    for name, verdict in statistical.items():
        assert verdict.outcome == "passed", verdict.message
        assert verdict.detectable <= checks[name].detect
        assert verdict.alpha == plan.alphas[name]
        assert verdict.n <= checks[name].n
