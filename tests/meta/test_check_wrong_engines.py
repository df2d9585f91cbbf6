"""`sampler check` detects faults of eight kinds and names them; `tox -e meta` checks every wrong engine."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from sampler.checks.conformance.draw.at_zero import greedy
from sampler.checks.conformance.draw.drawer import Drawer
from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import ProbeSet
from sampler.checks.conformance.settings import NEUTRAL
from sampler.checks.conformance.severity import is_common, measured, severity_probe
from sampler.checks.verdict import exit_code
from sampler.conformance import examine
from sampler.engines.isolation import Local
from sampler.engines.reference.chain import ReferenceEngine
from sampler.run.report import Report
from tests.wrong_engines import AT_TIES, RIGHT, WRONG

ROOT = Path(__file__).parents[2]

CAUGHT = [
    ("top_p_drops_the_crossing_token", "top_p", "drops the token that crosses the threshold"),
    ("rows_share_the_history", "batch", "rows are right by themselves and wrong among others"),
    ("frequencies_are_10_percent_off", "draw", "from the distribution in total variation"),
]
LATER = [
    ("temperature_after_the_filters", "order", "equals the dialect 'truncate, then temper'"),
    ("scores_overwrite_the_logits", "purity", "it writes into logits"),
    ("rounds_logits_to_bfloat16", "precision", "logits are rounded to bfloat16"),
    ("seed_is_always_zero", "seed", "every seed gives the same draws"),
    ("draw_has_a_window_of_20", "repetition_penalty", "a window of 20: sees only the last 20 ids"),
]
"""Engine, stage and a part of the explanation that come first."""

BY_NIGHT = pytest.mark.nightly("every engine is a whole conformance run; three kinds of faults are enough by day")


def failing(report: Report) -> dict[str, object]:
    return {verdict.case: verdict for verdict in report.verdicts if verdict.outcome in ("failed", "errored")}


@pytest.mark.parametrize(
    ("name", "stage", "explanation"), [*CAUGHT, *(pytest.param(*row, marks=BY_NIGHT) for row in LATER)]
)
def test_a_fault_is_caught_and_named(name, stage, explanation):
    levels = ("process",) if stage not in ("draw", "seed") and "process" in WRONG[name].offers else ("draw",)
    report = examine(WRONG[name].factory(), levels=levels)
    assert (report.outcome, exit_code(report.outcome)) == ("disagrees", 1)
    first = report.diagnosis[0]
    assert first.stage == stage
    assert explanation in first.explanation
    bad = failing(report)
    assert first.cases
    assert set(first.cases) <= set(bad)
    for case, verdict in bad.items():
        assert verdict.reproduce == f"sampler replay {case} --seed 0 --engine {report.info.name}"
        assert verdict.message


NAMED = [name for name, entry in WRONG.items() if entry.says]
BY_DAY = ("takes_other_keywords",)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in BY_DAY else BY_NIGHT) for name in NAMED])
def test_a_cause_is_named_by_its_stage_and_in_words(name):
    wrong = WRONG[name]
    report = examine(wrong.factory(), levels=wrong.seen)
    assert report.outcome in ("disagrees", "errored")
    first = report.diagnosis[0]
    assert first.stage in (wrong.stage, *wrong.also), first.explanation
    assert wrong.says in first.explanation


@pytest.mark.parametrize("name", sorted(AT_TIES))
@BY_NIGHT
def test_a_difference_at_ties_is_a_dialect_that_fails_in_strict_runs(name):
    factory, stage = WRONG[name].factory, WRONG[name].stage
    report = examine(factory(), levels=("process",))
    assert (report.outcome, report.dialect) == ("agrees", "at ties")
    (cause,) = report.diagnosis
    assert cause.stage == stage
    assert "dialect at ties: " in cause.explanation
    verdict = next(verdict for verdict in report.verdicts if verdict.case == f"process/{stage}/scores")
    assert (verdict.outcome, "dialect at ties: " in verdict.message) == ("passed", True)
    strict = examine(factory(), levels=("process",), strict=True)
    assert (strict.outcome, strict.diagnosis[0].stage) == ("disagrees", stage)
    assert all("--strict" in verdict.reproduce for verdict in strict.verdicts if verdict.outcome == "failed")


@pytest.mark.parametrize("strict", [False, True])
def test_temperature_0_may_draw_another_of_the_maxima_unless_the_run_is_strict(strict):
    engine = WRONG["temperature_0_takes_the_highest_id"].factory()
    judge = Judge(Local(engine), reference=ReferenceEngine(), strict=strict)
    finding = greedy(Drawer(judge, 0), DrawPlan(0))
    assert finding.outcome == ("failed" if strict else "passed")
    assert ("dialect at ties" in finding.message) != strict


SEVERE = {
    "temperature_twice": ("differs by up to", 0.02),
    "top_k_keeps_one_more": ("differs by up to", 0.001),
}


@pytest.mark.parametrize("name", SEVERE)
@BY_NIGHT
def test_a_failure_says_how_much_it_matters_on_ordinary_rows(name):
    report = examine(WRONG[name].factory(), levels=("process",))
    words, least = SEVERE[name]
    explanation = report.diagnosis[0].explanation
    value = float(re.search(rf"{words} ([\d.e-]+) in total variation on ordinary rows", explanation)[1])
    assert value > least
    for verdict in report.verdicts:
        assert verdict.outcome != "failed" or "on ordinary rows" in verdict.message, verdict.message


def test_the_severity_is_the_total_variation_on_rows_without_ties():
    """Against a direct sum over the rows that are asked."""
    engine = WRONG["top_k_keeps_one_more"].factory()
    judge = Judge(Local(engine), reference=ReferenceEngine())
    cell = ProbeSet("top_k", ("top_k",), ())
    probe = severity_probe(cell, replace(NEUTRAL, top_k=5))
    assert all(len(set(row)) == len(row) for row in probe.logits.tolist())
    assert is_common(probe.config)
    assert not is_common(replace(NEUTRAL, top_k=5))
    right, theirs = (
        softmax(each.process(*probe.inputs), axis=-1).astype(np.float64) for each in (ReferenceEngine(), engine)
    )
    failing = [judge.compare(probe)]
    expected = np.abs(right - theirs).sum(axis=-1).max() / 2
    assert measured(judge, cell, failing) == pytest.approx(expected, rel=1e-3)
    assert 0 < expected < 0.05


def test_a_wrong_order_names_its_dialect_and_accuses_no_stage():
    report = examine(WRONG["temperature_after_the_filters"].factory(), levels=("process",))
    assert report.dialect == "truncate, then temper"
    assert [cause.stage for cause in report.diagnosis] == ["order"]
    alone = [verdict for verdict in report.verdicts if verdict.case == f"process/{verdict.stage}/scores"]
    assert {verdict.outcome for verdict in alone} <= {"passed", "skipped", "inconclusive"}


@pytest.mark.parametrize("name", ["right_by_masks", "right_only_draws_by_gumbel_max"])
@BY_NIGHT
def test_no_right_engine_is_accused(name):
    report = examine(RIGHT[name]())
    assert failing(report) == {}
    assert (report.outcome, exit_code(report.outcome)) == ("agrees", 0)
    assert report.diagnosis == ()


@pytest.mark.nightly("starts the command that makes the page, and an engine that ends its process")
def test_the_command_of_the_page_asks_an_engine_that_ends_its_process():
    done = subprocess.run(
        [sys.executable, "-m", "tests.meta.table", "exits"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| `exits` | process, draw | yes |" in done.stdout
