"""Blocks: what a request gets depends on the request alone; stopping, records, broken rows."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from sampler import NoiseKey, SamplingConfig, process
from sampler.chain.pipeline import Scores, run_rows
from sampler.engines.core import CoreEngine
from sampler.errors import ConfigError, TextError
from sampler.generation.generator import Generator
from sampler.requests import Batch, Generation, Request
from sampler.runtime import blas
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from tests.support import TINY, TURBO_TINY, configs, random_text, random_voice, random_weights


@dataclass(frozen=True)
class NoTokenizer:
    """Prompts are ids."""

    config: T3Config


def tiny_checkpoint(config: T3Config = TINY) -> Checkpoint:
    return Checkpoint(T3(random_weights(config, 5), config), NoTokenizer(config), random_voice(config, 6), "")


CHECKPOINT, TURBO = tiny_checkpoint(), tiny_checkpoint(TURBO_TINY)
RECORDED = {"keep_logits": True, "keep_attention": True}
GENERATORS = {
    **{kind: Generator(CHECKPOINT, **RECORDED, attention=kind) for kind in ("auto", "mlx")},
    "turbo": Generator(TURBO, **RECORDED),
}
MANY = pytest.param("auto", 300, marks=pytest.mark.nightly("300 blocks take minutes"))
DEFAULT, UNGUIDED = SamplingConfig(), SamplingConfig(cfg_weight=0.0)
TEXT_LENGTHS = (4, 31, 7, 30, 12, 29, 8, 62, 5)
"""Without start and stop: around the parts of the unconditional row, and up to the most that the model takes."""


def request(index: int, config: SamplingConfig = DEFAULT, cap: int = 12, slot: int | None = None) -> Request:
    key = NoiseKey(0, "generation", index)
    text = tuple(random_text(TINY, TEXT_LENGTHS[index % len(TEXT_LENGTHS)], index))
    return Request(text, config, 0, cap, lambda step: key.gumbel(step, TINY.speech_vocab_size), slot=slot)


def assert_bit_equal(left: Generation, right: Generation):
    assert left.tokens == right.tokens
    assert left.stop_reason == right.stop_reason
    for name in ("logits", "logprob", "rank", "entropy", "margin", "attention"):
        np.testing.assert_array_equal(getattr(left.record, name), getattr(right.record, name), err_msg=name)


def generate(requests: list[Request], width: int = 1, checkpoint: Checkpoint = CHECKPOINT, **fields: object):
    return Generator(checkpoint, width=width, **fields).generate(requests)


@pytest.mark.parametrize(("kind", "examples"), [("auto", 15), MANY, ("mlx", 5), ("turbo", 5)])
def test_a_request_alone_in_its_slot_gets_what_it_got_among_others(kind, examples):
    @settings(max_examples=examples)
    @given(
        st.lists(st.tuples(configs(), st.integers(1, 15)), min_size=1, max_size=9),
        st.integers(2, 64),
        st.lists(st.integers(0, 63), max_size=9),
        st.data(),
    )
    def alone_as_among_others(asked, width, slots, data):
        generator = replace(GENERATORS[kind], width=width)
        places = [slot % width for slot in slots] + [None] * len(asked)
        requests = [
            request(index, config, cap, slot)
            for index, ((config, cap), slot) in enumerate(zip(asked, places, strict=False))
        ]
        together = generator.generate(requests)
        index = data.draw(st.integers(0, len(requests) - 1))
        slot = together[index].record.slot
        alone = generator.generate([replace(requests[index], slot=slot)])[0]
        assert (alone.record.slot, alone.record.width) == (slot, width)
        assert_bit_equal(alone, together[index])

    alone_as_among_others()


@pytest.mark.parametrize("guided", [True, False])
def test_a_slot_gives_the_same_after_any_history(guided):
    config = replace(DEFAULT, cfg_weight=0.5 * guided)
    checkpoint = tiny_checkpoint(replace(TINY, max_speech_tokens=500))
    generator = replace(GENERATORS["auto"], checkpoint=checkpoint, width=3)
    long, short = request(1, config, cap=400, slot=1), request(2, config, cap=60, slot=1)
    neighbour = request(3, config, cap=90, slot=0)
    after = generator.generate([long, neighbour, short])[2]
    assert_bit_equal(generator.generate([short])[0], after)


def test_both_kinds_of_attention_give_the_same_tokens():
    requests = [request(index, cap=120) for index in range(6)]
    kernel, own = (replace(GENERATORS[kind], width=4).generate(requests) for kind in ("auto", "mlx"))
    assert min(answer.record.margin.min() for answer in kernel) > 1e-4
    for left, right in zip(kernel, own, strict=True):
        assert left.tokens == right.tokens
        np.testing.assert_allclose(left.record.logits, right.record.logits, atol=1e-4)
        np.testing.assert_allclose(left.record.attention, right.record.attention, atol=1e-5)


def test_a_request_in_another_slot_of_another_width_has_the_same_tokens():
    places = ((1, 0), (2, 1), (8, 5), (64, 0), (64, 63))
    answers = [generate([request(4, cap=60, slot=slot)], width)[0] for width, slot in places]
    assert min(answer.record.margin.min() for answer in answers) > 1e-4
    assert len({answer.tokens for answer in answers}) == 1


def test_a_prefix_is_computed_once_for_all_requests_of_its_text(monkeypatch):
    texts = []
    prefix = T3.prefix

    def counted(model, text, *inputs, **keywords):
        texts.append(tuple(text))
        return prefix(model, text, *inputs, **keywords)

    monkeypatch.setattr(T3, "prefix", counted)
    requests = [request(index % 3, cap=3 + index % 5) for index in range(12)]
    generate(requests, 2)
    assert sorted(texts) == sorted(requests[index].prompt for index in range(3))


def test_the_width_is_checked_against_memory(monkeypatch):
    asked = request(0, cap=100)
    generator = Generator(CHECKPOINT, width=7)
    prompts = generator.tokenize([asked])
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10_000_000))
    positions = generator.positions(asked, prompts[0])
    needed = 2 * 14 * positions * TINY.num_layers * TINY.hidden_size * 4
    assert positions == CHECKPOINT.model.prefix(asked.prompt, CHECKPOINT.voice).shape[1] + 100
    processes = 10_000_000 // needed + 1
    generator.check_memory([asked], prompts, processes - 1)
    with pytest.raises(ConfigError, match=rf"width = 7 slots of {positions} positions") as failure:
        generator.check_memory([asked], prompts, processes)
    assert "lower width" in failure.value.hint


def test_what_is_recorded_is_counted_too(monkeypatch):
    """Logits of every step, two rows where there is guidance, and the attention of each aligned head to the text."""
    asked = [request(0, cap=100), request(1, cap=30)]
    generator = Generator(CHECKPOINT, width=1, keep_logits=True, keep_attention=True)
    prompts = generator.tokenize(asked)
    (first, second) = generator.generate(asked)
    for each, text, made in zip(asked, prompts, (first, second), strict=True):
        record, share = made.record, len(made.tokens) / each.max_new_tokens
        recorded = record.logits.nbytes + record.attention.nbytes
        assert generator.record_bytes(each, text) * share == pytest.approx(recorded)
    longest = max(map(generator.positions, asked, prompts))
    needed = 2 * 2 * longest * TINY.num_layers * TINY.hidden_size * 4 + sum(map(generator.record_bytes, asked, prompts))
    for free in (needed, needed - 1):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        if free == needed:
            generator.check_memory(asked, prompts)
    with pytest.raises(ConfigError, match="recorded logits and attention of 2 runs"):
        generator.check_memory(asked, prompts)


def test_the_queue_decides_which_slot_a_request_gets_and_its_record_has_it():
    requests = [request(index, cap=3 + index % 4) for index in range(10)]
    records, again = ([answer.record for answer in generate(requests, 3)] for _ in range(2))
    slots = [record.slot for record in records]
    assert slots == [record.slot for record in again]
    assert (slots[:3], set(slots)) == ([0, 1, 2], {0, 1, 2})
    assert {(each.width, each.blas, each.threads) for each in records} == {(3, blas.prepare().name, blas.threads())}
    assert records[0].blas
    assert records[0].threads >= 1


def test_answers_stand_in_the_order_of_the_requests_whatever_their_kind():
    mixed = [request(index, SamplingConfig(cfg_weight=0.5 * (index % 2)), cap=4 + index) for index in range(5)]
    for index, answer in enumerate(generate(mixed, 2, keep_logits=True)):
        alone = generate([replace(mixed[index], slot=answer.record.slot)], 2)
        assert answer.tokens == alone[0].tokens
        assert answer.record.logits.shape == (len(answer.tokens), 1 + index % 2, TINY.speech_vocab_size)


def test_one_row_without_guidance_gives_the_tokens_of_two_rows_with_weight_zero():
    """`c + 0 (c - u)` is c, and so is `u + 1 (c - u)`: the unconditional row may be left out."""
    configs = (SamplingConfig(cfg_weight=0), SamplingConfig(cfg_weight=1.0, cfg_convention="unconditional"))
    one_row, two_rows = (generate([request(1, config)])[0].tokens for config in configs)
    assert one_row == two_rows


def test_tokens_are_drawn_from_the_recorded_logits_with_the_noise_of_the_request():
    config = SamplingConfig(top_p=0.9)
    asked = request(2, config, cap=20)
    answer = generate([asked], 2, keep_logits=True)[0]
    history = [TINY.bos_id]
    for step, token in enumerate(answer.tokens):
        cond, uncond = answer.record.logits[step]
        scores = np.array(process(cond[None], [history], config, uncond[None]))[0]
        raced = scores + asked.noise(step)
        assert int(np.argmax(raced)) == token
        log_p = log_softmax(scores.astype(np.float64))
        kept = log_p[log_p > -np.inf]
        assert answer.record.logprob[step] == pytest.approx(log_p[token], abs=1e-5)
        assert answer.record.entropy[step] == pytest.approx(-(np.exp(kept) * kept).sum(), abs=1e-5)
        assert answer.record.rank[step] == (scores > scores[token]).sum()
        assert answer.record.margin[step] == pytest.approx(raced[token] - np.sort(raced)[-2], abs=1e-5)
        history.append(token)


def test_the_margin_of_a_greedy_draw_is_that_of_the_scores():
    config = SamplingConfig(temperature=0, min_p=0, repetition_penalty=1, cfg_weight=0)
    answer = generate([request(3, config)], keep_logits=True)[0]
    ordered = np.sort(answer.record.logits[:, 0], axis=-1)
    np.testing.assert_allclose(answer.record.margin, ordered[:, -1] - ordered[:, -2], atol=1e-6)
    assert answer.tokens == tuple(answer.record.logits[:, 0].argmax(-1).tolist())


@pytest.mark.parametrize(("checkpoint", "start"), [(CHECKPOINT, 6), (TURBO, 1 + TURBO_TINY.prompt_length)])
def test_attention_covers_the_text_and_is_that_of_the_aligned_heads(checkpoint, start):
    """Beside the whole sequence at once. start: of the text, after speaker, 4 rows of the perceiver, and emotion."""
    asked, config = request(4, cap=5), checkpoint.config
    answer = generate([asked], 1, checkpoint, keep_attention=True)[0]
    text = slice(start, start + len(asked.prompt))
    assert answer.record.attention.shape == (len(config.aligned_heads), len(answer.tokens), len(asked.prompt))
    prefix = checkpoint.model.prefix(asked.prompt, checkpoint.voice)
    for step in range(len(answer.tokens)):
        parts = [prefix]
        if step:
            speech = checkpoint.model.embed_speech(answer.tokens[:step], range(1, step + 1))
            parts.append(mx.stack([speech] * len(prefix)))
        cache, heads = KeyValueCache(config, len(prefix)), AttentionRequest(config.aligned_heads)
        _, rows = checkpoint.model.backbone.prefill(mx.concatenate(parts, axis=1), cache, heads)
        expected = np.stack([np.array(row)[-1, text] for row in rows])
        np.testing.assert_allclose(answer.record.attention[:, step], expected, atol=1e-5)


def only(token: int):
    def chain(batch: Batch) -> Scores:
        kept = mx.arange(batch.logits.shape[-1])[None] == token
        scores = mx.where(kept, mx.zeros_like(batch.logits), -mx.inf)
        return Scores(scores, scores)

    return chain


@pytest.mark.parametrize(("token", "tokens", "reason"), [(TINY.eos_id, (TINY.eos_id,), "eos"), (7, (7,) * 9, "length")])
def test_a_run_ends_with_eos_or_is_cut_at_its_cap(token, tokens, reason):
    answer = generate([request(0, cap=9)], chain=only(token))[0]
    assert (answer.tokens, answer.stop_reason) == (tokens, reason)


def test_a_broken_row_ends_alone():
    def breaks_at_step_two(batch):
        scores, chosen = run_rows(batch), mx.array([config.min_p == 0.5 for config in batch.configs])
        broken = chosen[:, None] & (mx.sum(mx.array(batch.seen), -1, keepdims=True) > 2)
        return Scores(mx.where(broken, -mx.inf, scores.final), scores.ranked)

    configs = (DEFAULT, SamplingConfig(min_p=0.5, repetition_penalty=50.0), DEFAULT)
    requests = [request(index, config, cap=8) for index, config in enumerate(configs)]
    answers, healthy = generate(requests, 3, chain=breaks_at_step_two), generate(requests, 3)
    assert answers[1].stop_reason == "error"
    assert answers[1].record.error == "no token was left after the chain"
    assert len(answers[1].tokens) == 2
    assert [answers[index].tokens for index in (0, 2)] == [healthy[index].tokens for index in (0, 2)]


def test_without_noise_the_seed_decides():
    requests = [replace(request(0), noise=None, seed=seed) for seed in (1, 1, 2)]
    tokens = [answer.tokens for answer in generate(requests)]
    assert tokens[0] == tokens[1] != tokens[2]


def test_progress_counts_every_token_and_every_request():
    steps: list[tuple[int, int]] = []
    requests = [request(index, cap=3 + index) for index in range(5)]
    answers = Generator(CHECKPOINT, width=2).generate(requests, lambda *counts: steps.append(counts))
    assert sum(tokens for tokens, _ in steps) == sum(len(answer.tokens) for answer in answers)
    assert sum(finished for _, finished in steps) == len(requests)


def test_positions_are_right_on_both_sides_of_a_growth_of_the_cache():
    checkpoint = tiny_checkpoint(replace(TINY, max_speech_tokens=1_000))
    asked = request(0, SamplingConfig(repetition_penalty=1.0, suppressed_tokens=[TINY.eos_id]), cap=600)
    answer = generate([asked], 1, checkpoint, keep_logits=True)[0]
    assert len(answer.tokens) == 600
    forced = np.array(checkpoint.model.teacher_forced(asked.prompt, checkpoint.voice, answer.tokens[:-1]))
    np.testing.assert_allclose(answer.record.logits, forced.swapaxes(0, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"prompt": ()}, TextError, "the prompt has no ids"),
        ({"prompt": (3, 99, 0)}, TextError, "text id 99 is no token (expected 0 to 39)"),
        ({"prompt": (3,) * 70}, TextError, "the text has 70 tokens with its start and stop (tiny takes 66; split"),
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens = 0 (expected 1 to 132, as many as tiny has speech posi"),
        ({"max_new_tokens": 133}, ConfigError, "max_new_tokens = 133"),
        ({"slot": 4}, ConfigError, "slot = 4 (expected 0 to 3)"),
    ],
)
def test_requests_that_cannot_be_served_are_refused_by_name(change, error, expected):
    with pytest.raises(error) as caught:
        generate([request(0), replace(request(1), **change)], 4)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(("fields", "text"), [({"width": 0}, "width = 0 slots"), ({"bos_count": 3}, "bos_count = 3")])
def test_generators_out_of_range_are_refused(fields, text):
    with pytest.raises(ConfigError, match=text):
        Generator(CHECKPOINT, **fields)


def test_turbo_skips_guidance_and_the_record_says_so():
    configs = (UNGUIDED, SamplingConfig(cfg_weight=3.0))
    plain, guided = (generate([request(1, config)], 2, TURBO, keep_logits=True)[0] for config in configs)
    assert guided.tokens == plain.tokens
    assert (guided.record.guided, plain.record.guided) == (False, False)
    assert guided.record.logits.shape == (len(guided.tokens), 1, TURBO_TINY.speech_vocab_size)


def test_the_recorded_logits_of_turbo_are_the_teacher_forced_ones():
    asked = request(2, UNGUIDED, cap=40)
    answer = generate([asked], 1, TURBO, keep_logits=True)[0]
    forced = np.array(TURBO.model.teacher_forced(asked.prompt, TURBO.voice, answer.tokens[:-1]))
    np.testing.assert_allclose(answer.record.logits[:, 0], forced[0], atol=1e-4)
    for step, token in enumerate(answer.tokens):
        history = [TURBO_TINY.bos_id, *answer.tokens[:step]]
        scores = np.array(process(answer.record.logits[step], [history], asked.config))[0]
        assert int(np.argmax(scores + asked.noise(step))) == token


def test_turbo_gives_as_many_tokens_as_there_are_positions():
    most = TURBO_TINY.speech_positions
    asked = replace(request(0, UNGUIDED, cap=most), prompt=tuple([1] * TURBO_TINY.max_text_tokens))
    assert len(Generator(TURBO, width=1).generate([asked])[0].tokens) <= most
    with pytest.raises(ConfigError, match=rf"max_new_tokens = {most + 1} \(expected 1 to {most}"):
        Generator(TURBO).generate([replace(asked, max_new_tokens=most + 1)])


def test_turbo_as_an_engine_has_no_guidance():
    engine = CoreEngine(Generator(TURBO, width=1, keep_logits=True))
    assert engine.info.cfg is False
    assert engine.predict(tuple(random_text(TURBO_TINY, 5, 1)), [1, 2, 3]).shape == (4, TURBO_TINY.speech_vocab_size)


def test_what_turbo_does_not_have_is_refused():
    model, voice = TURBO.model, TURBO.voice
    with pytest.raises(ConfigError, match=r"guided = True \(turbo-tiny has no unconditional row\)"):
        model.prefix(random_text(TURBO_TINY, 5, 7), voice, guided=True)
    with pytest.raises(TextError, match=r"the text has 65 tokens \(turbo-tiny takes 64; split the text\)"):
        model.prefix([1] * 65, voice)
    with pytest.raises(TextError, match=r"132 speech tokens \(at most 131\)"):
        model.teacher_forced([1] * 64, voice, [1] * 132)
    assert np.isfinite(np.array(model.teacher_forced([1] * 64, voice, [1] * 131))).all()
    with pytest.raises(TextError, match=r"position 218 \(turbo-tiny has 218 positions for voice, text and speech\)"):
        model.backbone.prefill(mx.zeros((1, 219, TURBO_TINY.hidden_size)), KeyValueCache(TURBO_TINY, 1))
