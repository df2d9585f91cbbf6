"""Streams that loop are caught with the announced number of runs; speech that repeats itself is not accused."""

import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice, product

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
"""Runs of each text: enough to detect that nine of ten loop where none of the reference does."""

VOCABULARY, FOLLOWERS = 300, 8
LATER = pytest.mark.nightly("three faults on one source of tokens stand for the others by day")
BY_DAY = {
    ("repeats_one_token_with_noise", "markov"),
    ("loops_over_7_tokens", "markov"),
    ("babbles_with_3_tokens", "markov"),
}


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
    sentences = held_out_speech(finch.folder(), finch.prompts("sentences")[:240])
    return chain.from_iterable(sentences[int(place)].tolist() for place in rng.integers(0, len(sentences), 100))


SOURCES = {"markov": markov, "speech": speech}


def runs_of(name: str, source: str, length: int, change=None, runs: int = RUNS) -> dict[str, list[list[int]]]:
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


@pytest.mark.parametrize(
    ("name", "source"),
    [pytest.param(*case, marks=() if case in BY_DAY else LATER) for case in product(WRONG_STREAMS, SOURCES)],
)
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
def test_right_streams_are_not_accused(name, source):
    runs = runs_of(name, source, 800, RIGHT_STREAMS[name])
    finding = loops(runs, reference(source, 800), ALPHA, DETECT)
    assert finding.outcome == "passed", finding.message
    total = RUNS * TEXTS
    assert finding.message.startswith(f"0 of {total} runs loop; of the reference, 0 of {total} runs loop (detects")
    assert finding.detectable <= DETECT


def made(counts: list[int], runs: int, length: int = 60) -> dict[str, list[list[int]]]:
    """Of the runs of each text so many loop, from token 30 on."""
    good, bad = [*range(length)], [*range(30), *[5] * (length - 30)]
    return {f"T{text}": [bad] * count + [good] * (runs - count) for text, count in enumerate(counts)}


BOTH_LOOP = ([6, 0, 20], [4, 1, 20], 20, 1e-6, 0.7)
JUDGED = [
    (*BOTH_LOOP, "passed", "26 of 60 runs loop, the earliest from token 30 on, the worst in run 0 of 'T0': one token"),
    (*BOTH_LOOP, "passed", "detected at token 54; of the reference, 25 of 60 runs loop, the earliest"),
    ([20, 0], [0, 20], 20, 1e-2, 0.9, "passed", "20 of 40 runs loop"),
    ([20], [0], 20, 1e-6, 0.9, "failed", "20 of 20 runs loop"),
    ([0, 0], [25, 28], 30, 1e-6, 0.9, "failed", "0 of 60 runs loop; of the reference, 53 of 60 runs loop"),
    ([0, 0], [0, 0], 3, 1e-8, 0.5, "inconclusive", "(too few runs, detects no rise above a rate of 0, required: 0.5)"),
    ([0, 0], [0, 0], 20, 1e-6, 0.1, "inconclusive", "too few runs, detects a rate of 0.6"),
    ([0, 0], [0, 0], 20, 1e-6, 0.1, "inconclusive", "required: 0.1)"),
]


@pytest.mark.parametrize(("engine", "reference", "runs", "alpha", "detect", "outcome", "message"), JUDGED)
def test_rates_of_all_texts_together_are_compared(engine, reference, runs, alpha, detect, outcome, message):
    finding = loops(made(engine, runs), made(reference, runs), alpha, detect)
    assert finding.outcome == outcome
    assert finding.n == 2 * runs * len(engine)
    assert message in finding.message


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
