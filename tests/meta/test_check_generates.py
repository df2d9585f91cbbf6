"""The level `generate` of `sampler check`, and two engines beside each other at `predict` and `generate`."""

from functools import partial

import pytest

from sampler.checks.verdict import exit_code
from sampler.conformance import examine
from sampler.engines.calls import Offer
from sampler.engines.isolation import Local
from sampler.engines.registry import under_test
from sampler.run.conformance import ConformanceRun
from sampler.run.report import Report
from tests import miniatures
from tests.commands import ROOT, assert_one_clear_line, sampler
from tests.wrong_engines.speakers import Speaker, right_speaker, right_speaker_with_its_own_noise

MINIATURES = ROOT / "tests" / "miniatures.py"
later = partial(pytest.param, marks=pytest.mark.nightly("the same questions to a similar engine"))
model = partial(pytest.param, marks=pytest.mark.nightly("Finch speaks a cell of the plan in some seconds"))


def bad(report: Report) -> dict[str, str]:
    return {verdict.case: verdict.stage for verdict in report.verdicts if verdict.bad}


@pytest.mark.parametrize("make", [right_speaker, later(right_speaker_with_its_own_noise)])
def test_a_right_engine_agrees(make):
    report = examine(make(), levels=("predict", "generate"))
    assert bad(report) == {}
    assert report.outcome == "agrees", [verdict.message for verdict in report.verdicts if verdict.essential]
    looping = next(verdict for verdict in report.verdicts if verdict.case == "generate/loops/looping")
    assert (looping.outcome, looping.n) == ("passed", 144)
    assert looping.detectable < 0.2
    assert {verdict.level for verdict in report.verdicts} == {"predict", "generate"}


FAULTS = [
    (Speaker(stays_at=8), "generate/loops/looping", "draw"),
    later(Speaker(stays_at=8, own_noise=True, records=False), "generate/loops/looping", "draw"),
    later(Speaker(ends=False), "generate/stopping/endless", "stop"),
    later(Speaker(says="length"), "generate/sampled/ends", "stop"),
    later(Speaker(change={"min_p": 0.0}), "generate/sampled/draws", "min_p"),
    later(Speaker(change={"top_p": 1.0}), "generate/filtered/draws", "top_p"),
    later(Speaker(own_noise=True, seed_counts=False), "generate/seeds/distinct", "seed"),
]


@pytest.mark.parametrize(("engine", "case", "stage"), FAULTS)
def test_a_wrong_engine_disagrees_and_its_line_is_for_this_level(engine, case, stage):
    report = examine(engine, levels=("generate",))
    assert (report.outcome, exit_code(report.outcome)) == ("disagrees", 1)
    found = {verdict.case.replace("/missing", "/endless"): verdict for verdict in report.verdicts if verdict.bad}
    assert found[case].stage == stage, found[case].message
    assert stage in [cause.stage for cause in report.diagnosis]
    assert found[case].reproduce == f"sampler replay {found[case].case} --seed 0 --engine speaker"


@pytest.mark.nightly("the level is asked of a looping engine above")
def test_a_loop_is_named_with_its_token_its_first_step_and_its_length():
    looping = next(
        verdict
        for verdict in examine(Speaker(stays_at=0), levels=("generate",)).verdicts
        if verdict.case == "generate/loops/looping"
    )
    assert looping.outcome == "failed"
    assert looping.n == 16  # no run ended, so more were not needed
    assert "16 of 16 runs loop" in looping.message
    assert "from token 0 on for 200 tokens" in looping.message


def beside(engine, other, levels=("predict", "generate"), **settings) -> Report:
    return ConformanceRun(Local(engine), "mine", levels, against=(Local(other), "theirs"), **settings).run()


def verdict_of(report: Report, case: str):
    return next(verdict for verdict in report.verdicts if verdict.case == case)


@pytest.mark.nightly("two engines speak every run; those of two laws do by day")
def test_two_engines_of_one_law_agree_token_for_token():
    report = beside(Speaker(), Speaker("other", weights=0, bias=1e-6))
    assert report.outcome == "agrees", bad(report)
    assert report.against == "theirs"
    assert verdict_of(report, "predict/against/logits").outcome == "passed"
    same = verdict_of(report, "generate/against/same")
    assert same.outcome == "passed"
    assert same.message.startswith("144 of 144 runs with other's noise are other's token for token")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Speaker("other", weights=1), "first at position 0 of 'The harbour is quiet tonight.', conditional logits"),
        later(Speaker("other", bias=0.5), "first at position"),
    ],
)
def test_two_engines_of_two_laws_disagree_and_their_first_difference_is_named(other, words):
    report = beside(Speaker(), other)
    assert report.outcome == "disagrees"
    logits, same = (verdict_of(report, case) for case in ("predict/against/logits", "generate/against/same"))
    assert (logits.outcome, same.outcome) == ("failed", "failed")
    assert words in logits.message
    assert "parts at step" in same.message
    assert same.reproduce.endswith("--engine mine --against theirs")


@pytest.mark.nightly("four engines speak every run; those of two laws do by day")
def test_an_engine_with_noise_of_its_own_is_compared_by_samples():
    report = beside(Speaker(), Speaker("other", own_noise=True), levels=("generate",))
    same, rate = (verdict_of(report, case) for case in ("generate/against/same", "generate/loops/rate"))
    assert (same.outcome, same.reason, same.message) == ("skipped", "unsupported", "other draws with its own noise")
    assert rate.outcome == "passed"
    assert rate.detectable <= 0.5
    assert report.outcome == "agrees", bad(report)
    ends_late = beside(Speaker(), Speaker("other", own_noise=True, bias=-12.0), levels=("generate",))
    assert ends_late.outcome == "disagrees"
    assert verdict_of(ends_late, "generate/drift/length").outcome == "failed"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        later(Speaker("other", size=40), "speaker has a vocabulary of 32 tokens, other 40"),
        (miniatures.OnlyProcesses(), "has no predict()"),
    ],
)
def test_engines_that_cannot_be_compared_never_agree(other, words):
    report = beside(Speaker(), other, levels=("predict",))
    assert (report.outcome, exit_code(report.outcome)) == ("inconclusive", 3)
    assert words in verdict_of(report, "predict/against/logits").message
    report = beside(Speaker(), other, levels=("generate",), only="generate/against")
    assert (report.outcome, exit_code(report.outcome)) == ("skipped", 3)


def test_what_is_compared_is_said_in_one_line():
    assert_one_clear_line(sampler("check", "core", "--against", "runs.jsonl"), "runs.jsonl is a file of token runs")
    assert_one_clear_line(
        sampler("check", "core", "--against", "reference", "--level", "draw"), "--against is not for --level draw"
    )


@pytest.mark.parametrize(
    ("name", "inner", "shown"),
    [("core", "core:finch", "core:finch"), ("mine.py:Mine", "core:finch", "mine.py:Mine"), ("mine.py:Mine", "m", "m")],
)
def test_an_engine_is_named_by_what_the_user_gave_unless_it_has_a_name_of_its_own(name, inner, shown):
    info = Speaker(inner).info
    assert under_test(Offer(info), name).info.name == shown
    assert under_test(Offer(info), name).info.version == info.version


FINCH = [
    ("ignores_min_p", "sampled", "min_p"),
    ("ignores_top_p", "filtered", "top_p"),
    ("truncates_before_temperature", "sampled", "min_p"),
    ("ignores_the_penalty", "sampled", "repetition_penalty"),
    ("tempers_twice", "sampled", "draw"),
    ("always_greedy", "sampled", "draw"),
    ("swaps_guidance", "sampled", "draw"),
    ("freezes_noise", "sampled", "draw"),
    ("ignores_the_seed", "sampled", "seed"),
    ("seeds_by_slot", "sampled", "batch"),
    ("returns_places_in_the_sorted_order", "sampled", "draw"),
    ("drops_the_crossing_token", "filtered", "top_p"),
    ("says_eos_at_the_cap", "sampled", "stop"),
    ("loses_a_request", "sampled", "seed"),
    ("says_that_it_is_done", "sampled", "seed"),
]


@pytest.mark.parametrize(("name", "cell", "stage"), [model(*row) for row in FINCH])
def test_a_wrong_port_of_finch_is_caught(name, cell, stage):
    report = examine(getattr(miniatures, name)(), levels=("generate",), only=f"generate/{cell}")
    assert report.outcome in ("disagrees", "errored")
    assert stage in bad(report).values()


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        model(name, cell)
        for name in ("right", "without_top_p", "draws_with_its_own_generator")
        for cell in ("filtered",)
    ],
)
def test_a_right_port_of_finch_is_not_accused(name, cell):
    report = examine(getattr(miniatures, name)(), levels=("generate",), only=f"generate/{cell}")
    assert bad(report) == {}
    assert report.outcome == "agrees"
