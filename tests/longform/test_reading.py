"""Whether a text is read as the reference reads it: wrong readers are caught, right ones are not accused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from sampler import finch
from sampler.checks.longform.reading import FAULTS, REACH, TOLERATED, Reading, alignment, disorder, setback, unread
from sampler.checks.longform.runs import TokenRun, TwoSides, token_run
from sampler.config import SamplingConfig
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.statistics.stratified import StratifiedCounts
from tests.wrong_engines import readers
from tests.wrong_engines.readers import Reader, ends_early, stays, wanders

TEXTS, RUNS = 8, 4
ALPHAS = {fault.name: 1e-8 for fault in FAULTS}
EOS = 9_999
SENTENCES = (
    "the boat left the harbour before the sun was up.",
    "nobody in the village had seen the old lighthouse at night.",
    "we walked along the river until the rain stopped.",
)
places = st.lists(st.integers(0, 11), max_size=30).map(lambda some: np.array(some, dtype=np.int64))


def made(reader, seed, pace=1.4, texts=TEXTS, runs=RUNS, reason="eos"):
    """Runs of texts of 60, 70, 80 ... places, of about `pace` steps a place."""
    rng = np.random.default_rng(seed)
    some = []
    for text, length in ((text, 60 + 10 * text) for text in range(texts) for _ in range(runs)):
        steps = int(length * pace * rng.uniform(0.95, 1.05))
        places, tokens = reader.places(steps, length, rng), (*range(steps - 1), EOS)
        some.append(TokenRun(f"text {text}", tokens, reason, position=places, text_length=length))
    return some


def judged(engine, reference, detect=0.97, alphas=ALPHAS):
    sides = TwoSides.of(engine, reference)
    return {fault.name: alignment(fault, sides, alphas[fault.name], detect) for fault in FAULTS if fault.name in alphas}


def outcomes(found):
    return {name: finding.outcome for name, finding in found.items()}


REFERENCE = made(Reader(), 2)

RIGHT = {
    "other seeds": (Reader(), 1.4),
    "half as fast": (Reader(), 2.8),
    "faster by half": (Reader(), 0.95),
    "longer pauses": (Reader(pauses=0.5), 1.6),
    "more glances": (Reader(slips=0.1), 1.4),
}

WRONG = {
    readers.skips_a_third: {"covering"},
    ends_early: {"covering"},
    readers.starts_again: {"monotone", "back"},
    readers.repeats_a_phrase: {"back"},
    wanders: {"monotone", "back"},
    stays: {"covering", "monotone"},
    readers.backwards: {"monotone", "back"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_reader_is_not_accused(name):
    reader, pace = RIGHT[name]
    found = judged(made(reader, 1, pace), REFERENCE)
    assert set(outcomes(found).values()) == {"passed"}, found
    assert all(0.9 < finding.detectable <= 0.97 for finding in found.values())


@pytest.mark.parametrize("way", WRONG, ids=lambda way: way.__name__)
def test_a_wrong_reader_is_caught_in_eight_texts_of_four_runs(way):
    for seed in range(3, 8):
        found = judged(made(Reader(way), seed), REFERENCE)
        assert {name for name, finding in found.items() if finding.outcome == "failed"} >= WRONG[way], found
        assert all(finding.stage == "alignment" for finding in found.values())


PLACES = np.arange(60)
HOLED = np.where((PLACES > 20) & (PLACES < 41), 20, PLACES)
AGAIN = np.concatenate([PLACES[:50], PLACES[2:12]])
UNREAD = "runs ended with more than 10% of their text unread, of the reference's"
BACK = "runs went back by more than 10% of their text, of the reference's"
STATED = [
    (HOLED, PLACES, "covering", f"40 of 40 {UNREAD} 0 of 40", "run 1 of text 'a': read nothing of places 23 to 38"),
    (AGAIN, PLACES, "back", f"40 of 40 {BACK} 0 of 40", "was near place 4 of 60 at step 50, after place 47"),
    (np.full(60, 7), PLACES, "monotone", "", "run 1 of text 'a': stayed at place 7 of 60 for all of its 60 steps"),
    (PLACES[::-1], PLACES, "monotone", "", "at the earlier place in 100% of the cases"),
    (PLACES, PLACES[::-1], "back", f"0 of 40 {BACK} 40 of 40", "reference run 1 of text 'a': was near place 0 of 60"),
]


@pytest.mark.parametrize(("engine", "reference", "fault", "count", "example"), STATED)
def test_what_was_left_out_and_where_a_run_went_back_is_stated(engine, reference, fault, count, example):
    run = TokenRun("a", (*range(59), EOS), "eos", text_length=60)
    message = judged(*([replace(run, position=places)] * 40 for places in (engine, reference)))[fault].message
    assert message.startswith(count)
    assert example in message


def test_one_text_of_four_runs_is_inconclusive():
    found = judged(made(Reader(wanders), 1, texts=1), made(Reader(), 2, texts=1))
    for finding in found.values():
        assert (finding.outcome, finding.detectable) == ("inconclusive", 1.0)
        assert "too few runs (detects nothing" in finding.message
    assert "4 of 4 runs went back" in found["back"].message


@pytest.mark.parametrize("alpha", [1e-8, 1e-9])
def test_the_share_that_eight_texts_of_four_runs_announce_is_detected(alpha):
    rng, tried, missed = np.random.default_rng(1), 300, 0
    share = StratifiedCounts(alpha).planned_share(RUNS, TEXTS)
    assert 0.9 < share < 1
    for _ in range(tried):
        counts = rng.binomial(RUNS, share, TEXTS).tolist()
        missed += not StratifiedCounts(alpha).judge(counts, [RUNS] * TEXTS, [0] * TEXTS, [RUNS] * TEXTS).rejected
    assert binom.sf(missed - 1, tried, 0.01) > 1e-6


def test_heads_that_follow_nothing_accuse_nobody():
    found = judged(made(Reader(wanders), 1), made(Reader(wanders), 2))
    assert "passed" not in (found["monotone"].outcome, found["back"].outcome)
    assert "failed" not in outcomes(found).values()
    assert judged(REFERENCE, made(Reader(wanders), 2))["back"].outcome == "failed"


def test_a_few_bad_reference_runs_hide_nothing():
    reference = [*made(Reader(stays, slips=0.0), 5)[:3], *REFERENCE[3:]]
    found = judged(made(Reader(stays, slips=0.0), 6), reference)
    assert (found["monotone"].outcome, found["covering"].outcome) == ("failed", "failed")
    more = judged(made(Reader(stays, slips=0.0), 6, runs=9), REFERENCE)
    assert "72 of 72 runs" in more["monotone"].message


def test_other_pieces_of_the_same_text_are_no_difference():
    finer = [replace(run, position=2 * run.position, text_length=2 * run.text_length) for run in made(Reader(), 1, 2.8)]
    assert set(outcomes(judged(finer, REFERENCE)).values()) == {"passed"}


def test_without_positions_every_question_is_skipped():
    bare = [replace(run, position=None, text_length=None) for run in REFERENCE]
    for engine, reference, who in (
        (bare, REFERENCE, "the engine"),
        (REFERENCE, bare, "the reference"),
        (bare, bare, "the engine nor by the reference"),
    ):
        for finding in judged(engine, reference).values():
            assert (finding.outcome, finding.stage) == ("skipped", "alignment")
            assert finding.message == f"'position' was not recorded by {who}"
    apart = [replace(run, text=f"other {run.text}") for run in REFERENCE]
    assert judged(REFERENCE, apart)["back"].message == "no text has runs on both sides"
    assert set(judged(REFERENCE, REFERENCE, alphas={"back": 1e-8})) == {"back"}


def test_runs_that_did_not_end_left_nothing_unread_by_ending():
    cut, forced = (
        judged(made(Reader(ends_early), 3, reason=reason), REFERENCE)["covering"] for reason in ("length", "forced_eos")
    )
    assert (cut.outcome, cut.message) == ("skipped", "no text has runs that ended on both sides")
    assert forced.outcome == "failed"


def test_runs_without_tokens_are_judged_too():
    broken = [TokenRun(run.text, (), "error") for run in REFERENCE]
    found = judged([*broken, *REFERENCE], REFERENCE)
    assert "failed" not in outcomes(found).values()
    assert "0 of 64 runs went back" in found["back"].message


@given(places)
def test_unread_is_its_definition(some):
    missing = [place for place in range(12) if all(abs(place - other) > REACH for other in some.tolist())]
    assert unread(some, 12) == pytest.approx(len(missing) / 12)


@given(places)
def test_disorder_is_its_definition(some):
    pairs = [(one, other) for place, one in enumerate(some) for other in some[place + 1 :] if one != other]
    wanted = sum(other < one for one, other in pairs) / len(pairs) if pairs else 0.5 if len(some) > 1 else 0.0
    assert disorder(some) == pytest.approx(wanted, abs=1e-9)


@given(places)
def test_setback_is_its_definition(some):
    back = [one - other for place, one in enumerate(some.tolist()) for other in some[place:].tolist()]
    assert setback(some, 12) == pytest.approx(max(0, max(back, default=0) - REACH) / 12)


@given(places.filter(len), st.integers(3, 6))
def test_a_slower_reader_reads_as_well(some, times):
    slow = Reading(np.repeat(some, times), 12)
    assert slow.steady.tolist() == slow.places.tolist()
    assert unread(slow.places, 12) == unread(some, 12)
    assert setback(slow.steady, 12) == setback(some, 12)
    if len(set(some.tolist())) > 1:
        assert disorder(slow.steady) == pytest.approx(disorder(some), abs=1e-9)


@given(st.sets(st.integers(0, 59), min_size=2))
def test_whoever_only_goes_forward_is_in_order(visited):
    forward = Reading(np.sort(np.array(list(visited), dtype=np.int64)), 60)
    if len(set(forward.steady.tolist())) > 1:
        assert disorder(forward.steady) == pytest.approx(0, abs=1e-9)
    assert setback(forward.steady, 60) == 0.0


def test_a_glance_is_no_going_back():
    glancing = np.arange(100)
    glancing[[50, 51]] = 3
    assert setback(Reading(glancing, 100).steady, 100) == 0.0
    glancing[[50, 51, 52]] = 3
    assert setback(Reading(glancing, 100).steady, 100) > 0.4


def test_finch_reads_from_the_beginning_to_the_end():
    generator = Generator(finch.load(), width=len(SENTENCES), keep_attention=True)
    requests = [Request(text, SamplingConfig(), seed, 300) for seed, text in enumerate(SENTENCES)]
    for request, generation in zip(requests, generator.generate(requests), strict=True):
        run = token_run(request.prompt, generation)
        assert run.ended
        assert (run.position.shape, run.position.dtype) == ((len(run.tokens),), np.int64)
        parts = [float(np.median(part)) / run.text_length for part in np.array_split(run.position, 8)]
        assert parts == sorted(parts)
        assert parts[0] < 0.2
        assert parts[-1] > 0.8
        for fault in FAULTS:
            assert fault.share(Reading.of(run)) < TOLERATED, fault.name
