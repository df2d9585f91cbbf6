"""Wrong generators are caught with the runs that the plan announces; right ones are not accused.

Generating takes the time: two generators are tested by default, those of sentences by night, and all by `tox -e
wrong-generators`, which writes docs/evidence/wrong-generators.md.
"""

import re
from functools import cache

import pytest

from sampler import SamplingConfig, finch
from sampler.checks.longform.power import announced
from sampler.checks.longform.runs import TokenRun
from sampler.checks.longform.same_noise import same
from sampler.generation.generator import Generator
from sampler.run.tokens import findings
from tests.longform.right_runs import RATE, Alarms, cheap
from tests.longform.wrong_runs import (
    CAP,
    SHARED,
    announced_for,
    checkpoint,
    compare_right,
    compare_wrong,
    cut,
    reference_runs,
    speak,
    with_upstreams_noise,
)
from tests.longform.wrong_table import DOCUMENT, Totals, document, row_of
from tests.wrong_engines.token_runs import RIGHT
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS, WRONG_GENERATORS
from tests.wrong_engines.wrong_generators.table import PARAGRAPHS, PLANS

VISIBLE = [name for name, wrong in WRONG_GENERATORS.items() if wrong.plan is not PARAGRAPHS and not wrong.unseen]
HIDDEN = [name for name, wrong in WRONG_GENERATORS.items() if wrong.unseen]
QUICK = (
    *("freezes_noise_for_all_runs", "says_eos_without_it", "text_lacks_its_stop"),
    *("speech_is_one_position_behind", "drops_guidance_after_8_tokens", "reads_the_cache_one_short"),
)
NIGHTLY = pytest.mark.nightly("every generator speaks 30 or more sentences")


def quick_by_day(names):
    return [name if name in QUICK else pytest.param(name, marks=NIGHTLY) for name in names]


@pytest.mark.parametrize("name", quick_by_day(VISIBLE))
def test_a_wrong_generator_is_caught_with_the_runs_that_are_announced(name):
    seen = compare_wrong(WRONG_GENERATORS[name])
    assert seen.expected, {case: finding.message for case, finding in seen.found.items()}
    assert seen.stage in WRONG_GENERATORS[name].stages, seen.failed
    assert seen.caught
    assert not any(finding.outcome == "errored" for finding in seen.found.values())


@pytest.mark.parametrize("name", quick_by_day(HIDDEN))
def test_one_run_with_upstreams_noise_shows_what_many_runs_do_not(name):
    wrong = WRONG_GENERATORS[name]
    found = same(*with_upstreams_noise(wrong.factory(checkpoint(), SHARED), wrong.plan, wrong.cap))
    assert found.outcome == "failed", found.message
    assert "parts at step" in found.message


@pytest.mark.parametrize("name", ["narrow_blocks", "penalty_history_kept_in_chunks"])
def test_a_right_generator_with_upstreams_noise_speaks_upstreams_runs(name):
    right = RIGHT_GENERATORS[name]
    found = same(*with_upstreams_noise(right.factory(checkpoint(), SHARED), right.plan, CAP))
    assert found.outcome == "passed", found.message


@cache
def beside_upstream(name):
    return compare_right(RIGHT_GENERATORS[name])


@pytest.mark.parametrize("name", quick_by_day(RIGHT_GENERATORS))
def test_a_right_generator_is_not_accused(name):
    seen = beside_upstream(name)
    assert seen.failed == [], [seen.found[f"tokens/{question}"].message for question in seen.failed]


@pytest.mark.nightly("speaks 128 paragraphs")
def test_a_temperature_of_0_85_is_no_0_8():
    """64 paragraphs of about 185 tokens a side, without guidance; at a rate of 1e-6 twice as many are needed."""
    prompts = [text for text in finch.prompts("paragraphs") if text.language == "en" and text.tokens <= 250][:8]
    warm, reference = (
        speak(Generator(checkpoint(), 64), prompts, 8, side, 500, SamplingConfig(temperature=t, cfg_weight=0.0))
        for side, t in (("warm", 0.85), ("reference", 0.8))
    )
    found = dict(findings(warm, reference, 1e-2))
    assert found["tokens/drift/entropy"].outcome == "failed", found["tokens/drift/entropy"].message
    assert "mean entropy is larger" in found["tokens/drift/entropy"].message
    assert {found[f"tokens/{case}"].outcome for case in ("stopping/ends", "seeds/distinct")} == {"passed"}


@pytest.mark.parametrize("count", [12, pytest.param(300, marks=pytest.mark.nightly("300 check-runs take minutes"))])
def test_right_runs_are_not_accused_more_often_than_the_budget_says(count):
    alarms = cheap(count)
    assert alarms.good, str(alarms)


def test_too_many_alarms_are_detected():
    many = Alarms("anything", 44, 500)
    assert (many.good, Alarms("anything", 25, 500).good) == (False, True)
    assert "44 of 500 check-runs accuse (8.8%, exact 95 % interval 6.5% to 11.6%; budget 5%)" in str(many)
    assert RATE == 0.05


def test_the_table_is_long_enough_and_says_what_it_holds():
    assert sum(not wrong.unseen for wrong in WRONG_GENERATORS.values()) >= 25
    assert len(RIGHT_GENERATORS) >= 6
    for wrong in WRONG_GENERATORS.values():
        assert re.search(r"\[[A-Z]\d\d\]\.$", wrong.fault), wrong.name
        assert set(wrong.stages) <= {"draw", "stop", "seed"}
        assert set(wrong.questions) <= set(announced_for(wrong.plan)), wrong.name
    assert all(right.why.endswith(".") for right in RIGHT_GENERATORS.values())


def test_the_document_is_about_these_generators():
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert rows == [*WRONG_GENERATORS, *RIGHT_GENERATORS]
    assert f"{len(WRONG_GENERATORS)} of {len(WRONG_GENERATORS)} wrong generators are caught\n" in text


def test_no_reference_run_is_cut_and_a_lower_cap_cuts_as_a_generator_would():
    plan = PLANS[0]
    assert all(run.stop_reason == "eos" for run in reference_runs(plan))
    run = reference_runs(plan)[0]
    assert cut(run, CAP) is run
    short = cut(run, 20)
    assert (short.tokens, short.stop_reason, len(short.entropy)) == (run.tokens[:20], "length", 20)


def test_a_generator_that_is_not_caught_shows_in_the_totals():
    row = row_of(beside_upstream("other_seeds"))
    totals = Totals([row], [row], [Alarms("anything", 44, 500)])
    assert (totals.missed, totals.accused, totals.good) == ([row], [], False)
    assert "0 of 1 wrong generators are caught: other_seeds" in document(totals)


def name_of(case):
    """A question in the plan, by its case."""
    return "loops" if case.endswith("/rate") else case.rpartition("/")[2]


@pytest.mark.parametrize(("texts", "runs"), [(12, 8), (6, 20), pytest.param(30, 3, marks=NIGHTLY)])
def test_a_plan_announces_what_the_runs_then_detect(texts, runs):
    source = type(RIGHT)(lengths=tuple(range(30, 30 + texts)), cap=200)
    said = announced(texts, runs)
    without = [TokenRun(run.text, run.tokens, run.stop_reason) for run in source.runs(runs, 1)]
    for case, finding in findings(source.runs(runs, 1), source.runs(runs, 2)):
        name = name_of(case)
        marked = "/alignment/" in case and "of the reference's 0 of" not in finding.message
        if finding.alpha is not None and not marked:  # announced of a reference without such runs
            assert finding.detectable <= said[name].detects + 0.02, case
            assert finding.alpha == pytest.approx(said[name].alpha)
    counted = dict(findings(without, source.runs(runs, 2)))["tokens/seeds/distinct"]
    assert counted.detectable <= said["distinct"].detects


def test_a_plan_has_every_question_and_more_runs_detect_more():
    names = {name_of(case) for case, _ in findings(RIGHT.runs(2, 1), RIGHT.runs(2, 2))}
    assert set(announced(4, 2)) == names
    few, many = announced(12, 8), announced(12, 16)
    assert all(many[name].detects <= few[name].detects for name in few)
    assert all(each.enough for each in announced(16, 40).values())
    assert not few["tokens"].enough
    assert announced(1, 1)["loops"].detects == 1.0


@pytest.mark.parametrize(("texts", "runs"), [(0, 5), (5, 0), (-1, 3)])
def test_a_plan_without_runs_is_refused(texts, runs):
    with pytest.raises(ValueError, match=f"{texts} texts and {runs} runs"):
        announced(texts, runs)
