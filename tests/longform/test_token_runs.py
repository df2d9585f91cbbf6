"""Stopping, drift and distinct runs: a wrong source is caught with the announced runs, the right one is not accused."""

import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler.checks.longform import reading, series
from sampler.checks.longform.runs import TokenRun, TwoSides
from sampler.checks.longform.severity import frequencies_apart
from sampler.checks.verdict import CaseId
from sampler.run.tokens import WEIGHTS, diagnosis, findings
from sampler.statistics.budget import Budget
from sampler.statistics.exceedances import Exceedances
from sampler.statistics.ranks import RankSum
from sampler.statistics.stratified import StratifiedCounts
from tests.longform.wrong_runs import true_superiority
from tests.wrong_engines.token_runs import RIGHT, WRONG

ALPHAS = Budget(1e-6).split(WEIGHTS)
TEXTS = len(RIGHT.lengths)
MANY = 60
"""Runs of a text that measure how far a wrong source is off."""


@cache
def right_runs(count, seed):
    return RIGHT.runs(count, seed)


def judged(source, count, seed=5, reference=None):
    other = reference.runs(count, seed + 1) if reference else right_runs(count, seed + 1)
    return dict(findings(source.runs(count, seed), other))


def announced(source, name):
    """How many runs of each text the design functions ask for, to see what this source does."""
    cell, check = name.split("/")
    runs = source.runs(MANY, 13)
    if cell == "drift":
        sides = TwoSides.of(source.runs(MANY, 11), right_runs(MANY, 12))
        share = min(0.97, true_superiority(sides, check) - 0.03)
        return math.ceil(RankSum(ALPHAS[check] / 4).samples_needed(share, TEXTS) / 0.9)
    if cell == "alignment":
        (fault,) = (each for each in reading.FAULTS if each.name == check)
        shares = [fault.share(reading.Reading.of(run)) for run in runs]
        share = np.mean(np.array(shares) > reading.TOLERATED)
        return StratifiedCounts(ALPHAS[check]).samples_needed(min(0.97, 0.9 * share), TEXTS)
    if check in ("missing", "forced"):
        reason = {"missing": "length", "forced": "forced_eos"}[check]
        share = np.mean([run.stop_reason == reason for run in runs])
        return StratifiedCounts(ALPHAS[check]).samples_needed(min(0.97, 0.9 * share), TEXTS)
    if check in ("early", "late"):
        sign = 1 if check == "late" else -1
        of = [[np.array([sign * run.length / run.expected for run in some])] for some in (runs, right_runs(MANY, 14))]
        share = np.mean(of[0][0] > Exceedances(0.5).bound(of[1]))
        return Exceedances(ALPHAS[check]).samples_needed(min(0.97, 0.9 * share), TEXTS)
    assert name == "seeds/distinct"
    return 4  # of each text, so that there are pairs


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_source_is_caught_with_the_runs_that_are_announced(name):
    wrong = WRONG[name]
    count = announced(wrong.source, wrong.checks[0])
    assert count < 90
    found = judged(wrong.source, count)
    failed = {case.removeprefix("tokens/") for case, finding in found.items() if finding.outcome == "failed"}
    assert wrong.checks[0] in failed, found[f"tokens/{wrong.checks[0]}"].message
    assert not any(finding.outcome == "errored" for finding in found.values())


@pytest.mark.nightly("the first check of each source is tested by day, with the announced runs")
@pytest.mark.parametrize("name", WRONG)
def test_all_checks_that_must_catch_a_wrong_source_do_with_enough_runs(name):
    wrong = WRONG[name]
    found = judged(wrong.source, 40)
    for check in wrong.checks:
        assert found[f"tokens/{check}"].outcome == "failed", found[f"tokens/{check}"].message


LONGER = pytest.mark.nightly("one end stands for the others")
OTHERS = ("ten_percent_shorter", "ten_percent_longer", "forced_ends", "eos_never")


@pytest.mark.parametrize("name", ["eos_early", *(pytest.param(name, marks=LONGER) for name in OTHERS)])
def test_runs_of_another_length_are_no_drift(name):
    failed = {case for case, finding in judged(WRONG[name].source, 30).items() if finding.outcome == "failed"}
    assert {case for case in failed if case.startswith("tokens/drift/")} == {"tokens/drift/length"}


def test_the_right_source_passes_with_other_seeds_and_states_its_power():
    found = judged(RIGHT, 80)
    for case, finding in found.items():
        assert finding.outcome == "passed", f"{case}: {finding.message}"
        if finding.alpha is not None:
            assert finding.detectable <= (0.85 if "/drift/" in case else 0.5)
            assert f"detects at least {finding.detectable:.2f}" in finding.message or "detects" in finding.message
    alphas = [finding.alpha for finding in found.values() if finding.alpha]
    assert sum(alphas) <= 1e-6


def test_few_runs_are_no_reason_to_say_passed():
    found = judged(RIGHT, 5)
    for case, finding in found.items():
        if finding.alpha is not None and case != "tokens/seeds/distinct":
            assert finding.outcome == "inconclusive", f"{case}: {finding.message}"
            assert "too few" in finding.message
            assert "detects" in finding.message


def test_as_many_runs_as_are_asked_for_are_enough():
    few = judged(RIGHT, 8)
    for quantity in ("length", "tokens"):
        needed = int(re.search(r"(\d+) runs of each on either side", few[f"tokens/drift/{quantity}"].message)[1])
        finding = judged(RIGHT, needed + 2)[f"tokens/drift/{quantity}"]
        assert finding.outcome == "passed", finding.message


def test_where_a_drift_begins_is_stated():
    long = replace(RIGHT, lengths=(250, 270, 260), cap=400)
    found = judged(replace(long, late_temperature=0.5, late_from=100), 30, reference=long)["tokens/drift/entropy"]
    assert found.outcome == "failed"
    assert "it shows first at positions 100 to 200" in found.message


def test_the_most_likely_cause_comes_first():
    def causes(name):
        found = judged(WRONG[name].source, 30)
        return list(diagnosis([finding.verdict(CaseId.parse(case), "line") for case, finding in found.items()]))

    warmer, (never,) = causes("warmer")[0], causes("eos_never")
    assert (warmer.stage, never.stage) == ("draw", "stop")
    assert "entropy" in warmer.explanation
    assert never.explanation.startswith("stop: endless, missing, length; ")
    assert causes("frozen_noise")[0].stage == "seed"


def test_one_equal_pair_of_long_runs_is_proof():
    runs = RIGHT.runs(10, 3)
    again = [*runs[:-1], replace(runs[-1], tokens=runs[-2].tokens, logprobs=runs[-2].logprobs)]
    found = dict(findings(again, []))
    assert found["tokens/seeds/distinct"].outcome == "failed"
    assert "2 of 40 runs repeat another one" in found["tokens/seeds/distinct"].message
    assert dict(findings(runs, []))["tokens/seeds/distinct"].outcome == "passed"


def test_equal_runs_of_a_greedy_engine_are_no_failure():
    greedy = [TokenRun("a", (1, 2, 3, 40), "eos", np.zeros(4)) for _ in range(30)]
    found = dict(findings(greedy, greedy))
    assert found["tokens/seeds/distinct"].outcome == "inconclusive"  # nothing can be detected
    without = [replace(run, logprobs=None) for run in greedy]
    assert dict(findings(without, without))["tokens/seeds/distinct"].outcome == "inconclusive"
    assert dict(findings(without, []))["tokens/seeds/distinct"].outcome == "skipped"


def test_frozen_noise_is_detected_without_probabilities_beside_a_reference():
    frozen = [replace(run, logprobs=None) for run in WRONG["frozen_noise"].source.runs(8, 3)]
    found = dict(findings(frozen, RIGHT.runs(8, 4)))["tokens/seeds/distinct"]
    assert found.outcome == "failed"
    assert "32 of 32 runs repeat another one of their text, of the reference's 0 of 32" in found.message


@pytest.mark.parametrize(
    ("tokens", "reason", "problem"),
    [
        ((1, 40, 2, 40), "eos", "went on after EOS at step 1"),
        ((1, 2), "eos", "says eos and ends with 2"),
        ((), "eos", "says eos and ends with no token at all"),
        ((1, 2, 40), "length", "says length and ends with EOS"),
        ((1, 2), "error", "stopped early after 2 tokens"),
    ],
)
def test_ends_that_are_not_what_they_say(tokens, reason, problem):
    good = [TokenRun("a", (3, 5, 40), "eos") for _ in range(20)]
    found = dict(findings([*good, TokenRun("b", tokens, reason)], good))["tokens/stopping/ends"]
    assert found.outcome == "failed"
    assert f"run 21, text 'b', {problem}" in found.message
    assert dict(findings(good, good))["tokens/stopping/ends"].outcome == "passed"


def test_tokens_without_eos_are_not_taken_for_runs_that_go_on():
    runs = [TokenRun(run.text, run.tokens[:-1], "eos") for run in RIGHT.runs(20, 3)]
    found = dict(findings(runs, []))["tokens/stopping/ends"]
    assert found.outcome == "skipped"
    assert "no token in common that may be EOS" in found.message


def test_a_run_that_hits_its_cap_is_named_without_a_reference():
    runs = [TokenRun("a", (1, 40), "eos"), TokenRun("a", (1, 2), "length")]
    found = dict(findings(runs, []))
    endless = found["tokens/stopping/endless"]
    assert (endless.outcome, endless.reason) == ("inconclusive", "suspicious"), "half of them, but two say little"
    assert "1 of 2 runs never ended (run 2, text 'a': 2 tokens without an end)" in endless.message
    assert all(found[f"tokens/stopping/{name}"].outcome == "skipped" for name in ("early", "late", "missing", "forced"))
    assert all(found[f"tokens/alignment/{fault.name}"].outcome == "skipped" for fault in reading.FAULTS)
    assert "--against" in found["tokens/drift/entropy"].message


def test_without_expected_lengths_held_out_runs_say_how_long_a_text_is():
    def early(source):
        runs = source.runs(40, 5), right_runs(40, 6)
        sides = ([replace(run, expected=None) for run in side] for side in runs)
        return dict(findings(*sides))["tokens/stopping/early"]

    assert (early(RIGHT).outcome, early(RIGHT).n) == ("passed", 320)
    assert early(WRONG["ten_percent_shorter"].source).outcome == "failed"


def test_strange_runs_are_compared_as_well():
    other = [replace(run, text=f"other {run.text}") for run in RIGHT.runs(3, 1)]
    apart = dict(findings(RIGHT.runs(3, 2), other))
    assert {finding.outcome for case, finding in apart.items() if "/drift/" in case} == {"skipped"}
    assert apart["tokens/drift/length"].message == "no text has runs on both sides"
    empty = [TokenRun("a", (40,), "eos") for _ in range(30)]
    found = dict(findings(empty, empty))
    assert not any(finding.outcome in ("failed", "errored") for finding in found.values())
    assert dict(findings(empty, RIGHT.runs(2, 3) + empty))["tokens/drift/length"].n == 60
    many = replace(RIGHT, lengths=(30,) * 60)
    assert judged(many, 1, reference=many)["tokens/drift/length"].outcome == "inconclusive"


@given(st.lists(st.integers(0, 300), max_size=260), st.booleans())
def test_repetitions_are_their_definition(tokens, few):
    tokens = [token % 7 for token in tokens] if few else tokens
    expected = [token in tokens[max(0, place - series.LOOKBACK) : place] for place, token in enumerate(tokens)]
    assert series.repetitions(np.array(tokens, dtype=np.int64)).tolist() == expected


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=2, max_size=5), st.integers(1, 4))
def test_rarity_is_its_definition(texts, first):
    """One text; the frequency of a token among the other runs, and a tenth of what it is among all other runs."""
    runs = [TokenRun("a", tuple(tokens), "length") for tokens in texts]
    first = min(first, len(runs) - 1)
    sides = TwoSides.of(runs[:first], runs[first:])
    engine, reference = series.unusual(series.Coded(sides), pairs=False)
    size = max(1, len({token for tokens in texts for token in tokens}))
    for place, (tokens, values) in enumerate(zip(texts, [*engine[0], *reference[0]], strict=True)):
        others = [token for other, some in enumerate(texts) if other != place for token in some]
        for token, value in zip(tokens, values, strict=True):
            count = others.count(token)
            share = 0.9 * count / max(1, len(others)) + 0.1 * (count + 0.5) / (len(others) + size / 2)
            assert value == pytest.approx(-math.log(share), rel=1e-9)


def test_the_side_of_a_run_changes_no_rarity():
    runs = RIGHT.runs(6, 1)
    by_split = []
    for chosen in ([0, 1, 2], [1, 3, 5]):
        mine = [run for place, run in enumerate(runs) if place % 6 in chosen]
        sides = TwoSides.of(mine, [run for run in runs if run not in mine])
        sums = {}
        for pairs in (False, True):
            engine, reference = series.unusual(series.Coded(sides), pairs=pairs)
            for some, values in zip([*sides.engine, *sides.reference], [*engine, *reference], strict=True):
                sums.update({(run.tokens, pairs): value.sum() for run, value in zip(some, values, strict=True)})
        by_split.append(sums)
    assert by_split[0].keys() == by_split[1].keys()
    assert all(by_split[0][key] == pytest.approx(by_split[1][key], rel=1e-12) for key in by_split[0])


def test_a_direction_is_learnt_from_other_runs_than_it_scores():
    runs, reference = RIGHT.runs(6, 1), RIGHT.runs(6, 2)
    sides = TwoSides.of(runs, reference)
    engine, _ = series.pointing(series.Coded(sides), pairs=False)
    assert [len(some) for some in engine] == [3, 3, 3, 3]
    places = [(text, place) for text in range(TEXTS) for place in range(6) if series.is_scored(text, place)]
    lengths = [sides.engine[text][place].length for text, place in places]
    assert [len(values) for some in engine for values in some] == lengths


def without_eos(run):
    """A run that ended, without its last token."""
    kept = [None if values is None else values[:-1] for values in (run.logprobs, run.entropy, run.rank, run.margin)]
    names = ("logprobs", "entropy", "rank", "margin")
    return replace(run, tokens=run.tokens[:-1], **dict(zip(names, kept, strict=True))) if run.ended else run


def replaced_eos(run):
    """A run that ended, whose last token is replaced by the one before it."""
    return replace(run, tokens=(*run.tokens[:-1], run.tokens[-2])) if run.ended else run


def forced(run):
    """Likewise without EOS, and a guard ended it."""
    return replace(without_eos(run), stop_reason="forced_eos") if run.ended else run


@pytest.mark.parametrize("change", [without_eos, replaced_eos, forced])
def test_runs_that_end_without_eos_are_told_that_it_is_missing(change):
    runs = [change(run) for run in right_runs(6, 5)]
    with_reference = dict(findings(runs, right_runs(6, 6)))["tokens/stopping/ends"]
    assert (with_reference.outcome, with_reference.stage) == ("failed", "stop")
    assert "EOS is missing from the runs" in with_reference.message
    alone = dict(findings(runs, []))["tokens/stopping/ends"]
    assert alone.outcome != "passed"


def test_a_single_run_without_eos_is_no_missing_eos():
    runs = right_runs(6, 5)
    found = dict(findings([without_eos(runs[0]), *runs[1:]], right_runs(6, 6)))["tokens/stopping/ends"]
    assert found.outcome == "failed"
    assert "missing from the runs" not in found.message


def test_frequencies_are_as_far_apart_as_the_tokens_are():
    same = TwoSides.of(right_runs(20, 5), right_runs(20, 6))
    warm = TwoSides.of(WRONG["collapses_late"].source.runs(20, 5), right_runs(20, 6))
    apart, chance = frequencies_apart(same)
    assert apart < 1.5 * chance
    apart, chance = frequencies_apart(warm)
    assert apart > 1.5 * chance
    moved = [replace(run, tokens=tuple(token + 100 for token in run.tokens)) for run in right_runs(6, 5)]
    assert frequencies_apart(TwoSides.of(moved, right_runs(6, 6)))[0] == pytest.approx(1)
    assert frequencies_apart(TwoSides.of(right_runs(6, 5), [])) == (0.0, 0.0)
