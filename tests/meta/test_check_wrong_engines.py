"""`sampler check` detects faults of eight kinds and names them; `tox -e meta` checks every wrong engine."""

import pytest

from sampler.checks.verdict import exit_code
from sampler.conformance import examine
from sampler.run.report import Report
from tests.wrong_engines import RIGHT, WRONG

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
