"""From a p-value to an outcome, and from outcomes to the whole: the code that every verdict passes through."""

import pytest

from sampler.checks.verdict import Finding, Verdict, exit_code, overall, some_ids, worst
from sampler.statistics.judgement import Judgement


def verdict(outcome="passed", check="length", level="generate", **more):
    return Verdict(f"m/c/{check}", level, check, "draw", outcome, 10, **more)


@pytest.mark.parametrize(
    ("p_value", "alpha", "rate", "suspicious"),
    [
        (1e-4, 1e-7, 1e-6, True),  # 1e-4 x 10 = 1e-3, once in 1,000 runs
        (1.01e-4, 1e-7, 1e-6, False),
        (1e-6, 1e-8, 1e-6, True),
        (2e-5, 1e-8, 1e-6, False),
        (0.5, 0.5, 1e-3, True),
        (0.5, 0.4, 1e-3, False),
    ],
)
@pytest.mark.parametrize("outcome", ["passed", "inconclusive"])
def test_a_small_p_value_that_does_not_fail_is_suspicious(p_value, alpha, rate, suspicious, outcome):
    before = verdict(outcome, p_value=p_value, alpha=alpha, reason="too_few" if outcome == "inconclusive" else None)
    after = before.doubted(rate)
    if not suspicious:
        assert after == before
        return
    assert (after.outcome, after.reason) == ("inconclusive", "suspicious")
    assert f"one of {1 / (p_value / alpha * rate):,.0f} runs" in after.message


@pytest.mark.parametrize("outcome", ["failed", "errored", "skipped"])
def test_other_outcomes_and_exact_checks_are_not_doubted(outcome):
    assert verdict(outcome, p_value=1e-9, alpha=1e-8).doubted(1e-6).outcome == outcome
    assert verdict(p_value=None, alpha=1e-8).doubted(1e-6).outcome == "passed"
    assert verdict(p_value=1e-9, alpha=None).doubted(1e-6).outcome == "passed"


def test_a_message_is_kept_where_a_verdict_is_doubted():
    doubted = verdict(message="two of ten", p_value=1e-7, alpha=1e-8).doubted(1e-6)
    assert doubted.message.startswith("two of ten; suspicious: ")
    assert verdict(p_value=1e-7, alpha=1e-8).doubted(1e-6).message.startswith("suspicious: ")


LOOPING = {"check": "looping"}


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        ([], "skipped", 3),
        ([verdict()], "agrees", 0),
        ([verdict("skipped", reason="unsupported")], "skipped", 3),
        ([verdict("inconclusive", reason="too_few")], "inconclusive", 3),
        ([verdict(), verdict("skipped", reason="not_recorded")], "agrees", 0),
        ([verdict(), verdict("inconclusive", reason="too_few")], "agrees", 0),
        ([verdict(), verdict("inconclusive", reason="suspicious", **LOOPING)], "inconclusive", 3),
        ([verdict(), verdict("inconclusive", reason="too_few", required=0.2, **LOOPING)], "inconclusive", 3),
        ([verdict(), verdict("inconclusive", reason="too_few", **LOOPING)], "agrees", 0),
        ([verdict(), verdict("skipped", reason="not_recorded", **LOOPING)], "inconclusive", 3),
        ([verdict(), verdict("skipped", reason="no_reference", **LOOPING)], "agrees", 0),
        ([verdict(), verdict("errored")], "errored", 1),
        ([verdict("errored"), verdict("failed")], "disagrees", 1),
        ([verdict(), verdict("failed")], "disagrees", 1),
    ],
)
def test_the_whole_follows_from_its_verdicts(verdicts, expected, code):
    assert overall(verdicts) == expected
    assert overall(reversed(verdicts)) == expected
    assert exit_code(overall(verdicts)) == code


@pytest.mark.parametrize(
    ("rejected", "detectable", "required", "outcome"),
    [
        (True, 0.1, 0.2, "failed"),
        (True, 1.0, 0.2, "failed"),
        (False, 0.2, 0.2, "passed"),
        (False, 0.21, 0.2, "inconclusive"),
        (False, 0.99, None, "passed"),
        (False, 1.0, None, "inconclusive"),
    ],
)
def test_a_test_passes_only_if_it_detects_what_is_required(rejected, detectable, required, outcome):
    judged = Judgement(3.0 if rejected else 1.0, 2.0, 50, 0.1)
    assert judged.rejected == rejected
    more = {} if required is None else {"required": required}
    found = Finding.of_test("draw", "draw", judged, "said", alpha=0.01, detectable=detectable, **more)
    assert (found.outcome, found.reason) == (outcome, "too_few" if outcome == "inconclusive" else None)
    assert (found.statistic, found.bound, found.p_value, found.alpha) == (judged.statistic, judged.bound, 0.1, 0.01)
    assert (found.n, found.detectable, found.message) == (50, detectable, "said")


def test_the_worst_outcome_is_a_cells():
    order = ("failed", "errored", "inconclusive", "skipped", "passed")
    assert [worst(order[place:]) for place in range(5)] == list(order)


@pytest.mark.parametrize(
    ("ids", "shown"),
    [([], "{}"), ([3, 1], "{3, 1}"), (range(6), "{0, 1, 2, 3, 4, 5}"), (range(7), "{0, 1, 2, 3, 4, 5, ...}")],
)
def test_a_set_of_ids_is_cut(ids, shown):
    assert some_ids(ids) == shown
