"""What the benchmarks measure with: runs that cannot end, filled caches, means over lengths, the roofline's counts."""

import math

import numpy as np
import pytest
import torch

from sampler import SamplingConfig, finch
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.config import CHATTERBOX_ENGLISH
from sampler.t3.weights import expected_shapes
from tests.benchmarks import analyzer, chain, clock, endless, full_size, loops, roofline
from tests.benchmarks import finch as finch_benchmark
from tests.support import TINY, random_text, random_weights

TOKENS = 60


@pytest.fixture(scope="module")
def short_text() -> tuple[int, ...]:
    shortest = min(finch.prompts("sentences"), key=lambda prompt: prompt.tokens)
    assert shortest.tokens < TOKENS - 20
    return tuple(finch.load().tokenizer.encode(shortest.text, shortest.language))


def test_runs_of_ours_go_on_where_they_would_end(short_text):
    asked = [Request(short_text, SamplingConfig(), seed, TOKENS) for seed in range(4)]
    ordinary = Generator(finch.load(), width=4).generate(asked)
    assert "eos" in {each.stop_reason for each in ordinary}
    with pytest.raises(RuntimeError, match=r"\d+ tokens of 60: eos"):
        endless.check_lengths(ordinary, asked)
    generator = Generator(endless.checkpoint(*endless.finch_tensors()), width=4)
    endless.check_lengths(generator.generate(asked), asked)


@pytest.mark.nightly("upstream's own loop draws up to 2,000 tokens")
def test_runs_of_upstream_go_on_where_they_would_end(short_text, monkeypatch):
    from tests import upstream

    monkeypatch.setattr(upstream.module("chatterbox.models.t3.t3"), "tqdm", None)  # put back at the end
    config, tensors = endless.finch_tensors()
    voice = endless.checkpoint(config, tensors).voice
    endless.upstream_run(endless.upstream_model(config, tensors), voice, short_text, TOKENS)
    model = upstream.build(finch.load().config, tensors, "sdpa")
    with pytest.raises(RuntimeError, match=r"upstream drew \d+ tokens of 2000"):
        endless.upstream_run(model, voice, short_text, 2_000)


class Counted:
    """A layer that writes down how many rows it is given."""

    def __init__(self, layer: object, rows: list[int]) -> None:
        self.layer, self.rows, self.rest = layer, rows, layer.rest

    def projections(self, hidden):
        self.rows.append(hidden.shape[0])
        return self.layer.projections(hidden)


def test_a_long_text_is_filled_in_and_steps_are_computed():
    made = endless.checkpoint(TINY, random_weights(TINY, 1), fill_beyond=8)
    backbone, rows = made.model.backbone, []
    for layer in backbone.layers:
        layer._layer = Counted(layer._layer, rows)
    asked = [Request(tuple(random_text(TINY, 30, seed)), SamplingConfig(), seed, 1) for seed in range(4)]
    Generator(made, width=4).generate(asked)
    assert rows == [6] * TINY.num_layers  # the voice, once
    rows.clear()
    longer = [Request(request.prompt, request.config, request.seed, 3) for request in asked]
    answers = Generator(made, width=4).generate(longer)
    assert rows[: TINY.num_layers] == [6] * TINY.num_layers
    assert set(rows[TINY.num_layers :]) == {8}
    assert all(np.isfinite(each.record.logprob).all() for each in answers)


def test_the_mean_over_500_tokens_is_that_of_a_line():
    seconds = [0.1 + 0.001 * length for length in range(500)]
    rates = dict(full_size.mean_rate(lambda length: 0.1 + 0.001 * length, 32))
    assert math.isclose(rates["mean"], 32 * 500 / sum(seconds))
    assert math.isclose(rates["at 300"], 32 / 0.4)


def test_the_roofline_counts_the_weights_and_the_cache_once():
    shapes = expected_shapes(CHATTERBOX_ENGLISH)
    products = [name for name in shapes if name.endswith("_proj.weight") or name == "speech_head.weight"]
    products = [name for name in products if not name.startswith("cond_enc")]
    assert roofline.multiplications(CHATTERBOX_ENGLISH, 64) == 64 * sum(math.prod(shapes[name]) for name in products)
    keys = np.zeros((64, 16, 600, 64), dtype=np.float32)
    assert roofline.cache_bytes(CHATTERBOX_ENGLISH, 64, 600) == 30 * 2 * keys.nbytes


def test_texts_of_the_benchmark_fit_their_length():
    for tokens in finch_benchmark.GOALS:
        prompts = finch_benchmark.texts(tokens)
        assert len({prompt.id for prompt in prompts}) == finch_benchmark.REQUESTS
        assert abs(np.mean([prompt.tokens for prompt in prompts]) / tokens - 1) < 0.1


LIBRARIES = list(chain.STEPS.values())


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("rows", "top_p"), [(1, 0.95), (3, 1.0)])
def test_a_step_of_a_chain_draws_a_token_a_row(library, rows, top_p):
    step = library(rows, 300, top_p)
    drawn = np.stack([np.array(step()) for _ in range(20)])
    assert drawn.shape == (20, rows)
    assert ((drawn >= 0) & (drawn < 300)).all()
    assert len(np.unique(drawn)) > 1


@pytest.mark.parametrize("peer", LIBRARIES[1:])
def test_what_is_timed_is_the_same_chain(peer):
    works = [library(4, 500, 0.95) for library in (peer, chain.our_step)]
    drawn, others = (np.stack([step() for _ in range(300)]) for step in works)
    for theirs, own in zip(drawn.T, others.T, strict=True):
        assert {int(token) for token in own if (own == token).mean() > 0.2} <= set(theirs.tolist())
        assert {int(token) for token in theirs if (theirs == token).mean() > 0.2} <= set(own.tolist())


LATE = pytest.param(4_000, marks=pytest.mark.nightly("the definition takes long at token 4,000"))


@pytest.mark.parametrize("place", [400, LATE])
@pytest.mark.parametrize("stream", loops.STREAMS)
def test_the_guard_finds_the_loops_of_the_definition(stream, place):
    tokens = loops.STREAMS[stream](place + loops.ROUND)
    guards = [loops.guard_at(rules, tokens, place) for rules in loops.RULES.values()]
    found = [work() for work in (loops.definition_at(tokens, place), *guards)]
    assert found == [0 if stream == "speech" else loops.ROUND] * 3


def test_no_step_of_an_analyzer_that_is_timed_forces_or_suppresses():
    decisions = analyzer.ours_at(400, 2).step(range(2), [analyzer.ROW] * 2, [7] * 2)
    assert decisions.complete.all()
    assert not decisions.forced.any()
    logits = torch.zeros(1, analyzer.VOCABULARY)
    assert torch.equal(analyzer.theirs_at(400).step(logits, next_token=7), logits)


def test_a_median_leaves_out_the_first_calls():
    calls = []
    assert clock.median_seconds(lambda: calls.append(None), for_seconds=0) >= 0
    assert len(calls) == clock.WARM + clock.LEAST
