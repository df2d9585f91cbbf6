"""Streams that loop are caught with the announced number of runs, and speech that repeats itself is left alone."""

import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice

import numpy as np
import pytest

from sampler import finch
from sampler.checks.longform.loop_rate import LoopingRuns, loops
from sampler.finch.training.measure import held_out_speech
from sampler.loops import LoopRule, LoopRules, foremost
from sampler.statistics.judgement import fewest
from sampler.statistics.stratified import StratifiedCounts
from tests.wrong_engines.generators import RIGHT_STREAMS, WRONG_STREAMS

ALPHA, DETECT, TEXTS = 1e-8, 0.9, 6
RUNS = -(-fewest(lambda n: StratifiedCounts(ALPHA).detectable_rise(0.0, [n], [n]), DETECT) // TEXTS)
"""Runs of each text: enough to see nine of ten runs loop where none of the reference does."""

VOCABULARY, FOLLOWERS = 300, 8


@lru_cache
def followers() -> tuple[np.ndarray, np.ndarray]:
    """A Markov chain: tokens that may follow each, and the edges of their probabilities."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, VOCABULARY, (VOCABULARY, FOLLOWERS))
    return tokens, np.cumsum(rng.dirichlet(np.ones(FOLLOWERS), VOCABULARY), axis=1)


def markov(rng: np.random.Generator) -> Iterator[int]:
    tokens, edges = followers()
    token = int(rng.integers(VOCABULARY))
    while True:
        token = int(tokens[token, min(FOLLOWERS - 1, int(np.searchsorted(edges[token], rng.random())))])
        yield token


def speech(rng: np.random.Generator) -> Iterator[int]:
    """Sentences that Finch has not seen, one after the other."""
    sentences = held_out_speech(finch.folder(), finch.prompts("sentences")[:240])
    return chain.from_iterable(sentences[int(place)].tolist() for place in rng.integers(0, len(sentences), 100))


SOURCES = {"markov": markov, "speech": speech}


def runs_of(name: str, source: str, length: int, change=None, runs: int = RUNS) -> dict[str, list[list[int]]]:
    """Text -> runs; every run has random numbers of its own."""
    found = {}
    for text in range(TEXTS):
        seeds = [[zlib.crc32(f"{name}|{source}".encode()), text, run] for run in range(runs)]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        streams = [change(SOURCES[source](rng), rng) if change else SOURCES[source](rng) for rng in rngs]
        found[f"text {text}"] = [list(islice(stream, length)) for stream in streams]
    return found


@lru_cache
def reference(source: str, length: int) -> dict[str, list[list[int]]]:
    return runs_of("reference", source, length)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", WRONG_STREAMS)
def test_wrong_streams_are_caught(name, source):
    wrong = WRONG_STREAMS[name]
    runs = runs_of(name, source, wrong.tokens, wrong.change)
    finding = loops(runs, reference(source, wrong.tokens), ALPHA, DETECT)
    total = RUNS * TEXTS
    assert (finding.outcome, finding.stage, finding.level) == ("failed", "draw", "generate")
    assert finding.statistic > finding.bound
    assert finding.message.startswith(f"{total} of {total} runs loop, the earliest from token ")
    assert f"; of the reference, 0 of {total} runs loop (p <= " in finding.message
    looping = LoopingRuns.of(runs)
    periods = [foremost(each).period for each in looping.found["text 0"]]
    assert periods.count(wrong.period) > len(periods) / 2
    assert {each[0].kind for runs in looping.found.values() for each in runs} <= set(wrong.kinds)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", RIGHT_STREAMS)
def test_right_streams_are_left_alone(name, source):
    runs = runs_of(name, source, 800, RIGHT_STREAMS[name])
    finding = loops(runs, reference(source, 800), ALPHA, DETECT)
    assert finding.outcome == "passed", finding.message
    total = RUNS * TEXTS
    assert finding.message.startswith(f"0 of {total} runs loop; of the reference, 0 of {total} runs loop (would see")
    assert finding.detectable <= DETECT


def made(counts: list[int], runs: int, length: int = 60) -> dict[str, list[list[int]]]:
    """Of the runs of each text so many loop, from token 30 on."""
    good, bad = [*range(length)], [*range(30), *[5] * (length - 30)]
    return {f"T{text}": [bad] * count + [good] * (runs - count) for text, count in enumerate(counts)}


def test_a_rate_as_high_as_the_references_passes():
    finding = loops(made([6, 0, 20], 20), made([4, 1, 20], 20), 1e-6, 0.7)
    assert finding.outcome == "passed"
    assert finding.n == 120
    assert finding.message.startswith(
        "26 of 60 runs loop, the earliest from token 30 on, the worst in run 0 of 'T0': one token repeated from token "
        "30 on for 30 tokens, told at token 54; of the reference, 25 of 60 runs loop, the earliest"
    )


def test_texts_that_loop_in_the_reference_too_are_no_excuse():
    """The engine loops where the reference does not; over all texts taken together the rates are equal."""
    engine, other = made([20, 0], 20), made([0, 20], 20)
    assert loops(engine, other, 1e-2, 0.9).outcome == "passed"
    assert loops({"T0": engine["T0"]}, {"T0": other["T0"]}, 1e-6, 0.9).outcome == "failed"


def test_fewer_loops_than_the_reference_are_a_difference_too():
    finding = loops(made([0, 0], 30), made([25, 28], 30), 1e-6, 0.9)
    assert finding.outcome == "failed"
    assert finding.message.startswith("0 of 60 runs loop; of the reference, 53 of 60 runs loop")


def test_too_few_runs_do_not_pass():
    finding = loops(made([0, 0], 3), made([0, 0], 3), 1e-8, 0.5)
    assert finding.outcome == "inconclusive"
    assert finding.message.endswith("(too few runs, would see no rise above a rate of 0, must see 0.5)")
    finding = loops(made([0, 0], 20), made([0, 0], 20), 1e-6, 0.1)
    assert "too few runs, would see a rate of 0.6" in finding.message
    assert finding.message.endswith("must see 0.1)")


def test_texts_of_one_side_are_left_out():
    engine, other = made([0, 3, 9], 20), made([0, 4], 20)
    other["T1"], other["T7"] = [], other["T1"]
    finding = loops(engine, other, 1e-6, 0.99)
    assert finding.n == 40
    nothing = loops({"a": [[1, 2]]}, {"b": [[1, 2]]}, 1e-6, 0.5)
    assert (nothing.outcome, nothing.n) == ("skipped", 0)


def test_the_definition_is_the_callers():
    rules = LoopRules((LoopRule(1, 1, 40),), None)
    assert loops(made([9, 9], 10), made([0, 0], 10), 1e-3, 0.9, rules).outcome == "passed"
