"""The generator over the GPT-2 backbone: one BOS row, no guidance, and what a request gets depends on it alone."""

from dataclasses import replace

import numpy as np
import pytest

from sampler import NoiseKey, SamplingConfig, process
from sampler.engines.core import CoreEngine
from sampler.errors import ConfigError
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3
from tests.support import TURBO_TINY, random_text, random_voice, random_weights

CHECKPOINT = Checkpoint(T3(random_weights(TURBO_TINY, 5), TURBO_TINY), None, random_voice(TURBO_TINY, 6), "")
UNGUIDED = SamplingConfig(cfg_weight=0.0)


def request(index: int, config: SamplingConfig = UNGUIDED, cap: int = 12) -> Request:
    key = NoiseKey(0, "turbo", index)
    text = tuple(random_text(TURBO_TINY, 4 + index % 9, index))
    return Request(text, config, 0, cap, lambda step: key.gumbel(step, TURBO_TINY.speech_vocab_size))


def test_a_request_alone_in_its_slot_gets_what_it_got_among_others():
    """Other texts, lengths and caps beside it, before it and after it: bit-equal."""
    generator = Generator(CHECKPOINT, width=3, keep_logits=True, keep_attention=True)
    requests = [request(index, cap=3 + 2 * index) for index in range(8)]
    for asked, answer in zip(requests, generator.generate(requests), strict=True):
        alone = generator.generate([replace(asked, slot=answer.record.slot)])[0]
        assert alone.tokens == answer.tokens
        for name in ("logits", "logprob", "entropy", "attention"):
            np.testing.assert_array_equal(getattr(alone.record, name), getattr(answer.record, name), err_msg=name)


def test_guidance_is_skipped_and_the_record_says_so():
    """As upstream, which warns that Turbo ignores it: the same tokens as with weight 0."""
    plain, guided = (
        Generator(CHECKPOINT, width=2, keep_logits=True).generate([request(1, config)])[0]
        for config in (UNGUIDED, SamplingConfig(cfg_weight=3.0))
    )
    assert guided.tokens == plain.tokens
    assert (guided.record.guided, plain.record.guided) == (False, False)
    assert guided.record.logits.shape == (len(guided.tokens), 1, TURBO_TINY.speech_vocab_size)


def test_the_recorded_logits_are_the_teacher_forced_ones():
    """One BOS row, positions without a gap between prefix and speech; drawn by the chain with the request's noise."""
    asked = request(2, cap=40)
    answer = Generator(CHECKPOINT, width=1, keep_logits=True).generate([asked])[0]
    forced = np.array(CHECKPOINT.model.teacher_forced(asked.prompt, CHECKPOINT.voice, answer.tokens[:-1]))
    np.testing.assert_allclose(answer.record.logits[:, 0], forced[0], atol=1e-4)
    for step, token in enumerate(answer.tokens):
        history = [TURBO_TINY.bos_id, *answer.tokens[:step]]
        scores = np.array(process(answer.record.logits[step], [history], asked.config))[0]
        assert int(np.argmax(scores + asked.noise(step))) == token


def test_attention_covers_the_text():
    asked = request(3, cap=4)
    answer = Generator(CHECKPOINT, width=1, keep_attention=True).generate([asked])[0]
    prefix = CHECKPOINT.model.prefix(asked.prompt, CHECKPOINT.voice)
    _, rows = CHECKPOINT.model.backbone.prefill(
        prefix, KeyValueCache(TURBO_TINY, 1), AttentionRequest(TURBO_TINY.aligned_heads)
    )
    start = 1 + len(CHECKPOINT.voice.prompt)
    expected = np.stack([np.array(row)[-1, start : start + len(asked.prompt)] for row in rows])
    np.testing.assert_allclose(answer.record.attention[:, 0], expected, atol=1e-6)


def test_as_many_tokens_as_there_are_positions():
    most = TURBO_TINY.speech_positions
    asked = replace(request(0, cap=most), prompt=tuple([1] * TURBO_TINY.max_text_tokens))
    assert len(Generator(CHECKPOINT, width=1).generate([asked])[0].tokens) <= most
    with pytest.raises(ConfigError, match=rf"max_new_tokens = {most + 1} \(expected 1 to {most}"):
        Generator(CHECKPOINT).generate([replace(asked, max_new_tokens=most + 1)])


def test_as_an_engine_it_has_no_guidance():
    engine = CoreEngine(Generator(CHECKPOINT, width=1, keep_logits=True))
    assert engine.info.cfg is False
    assert engine.predict(tuple(random_text(TURBO_TINY, 5, 1)), [1, 2, 3]).shape == (4, TURBO_TINY.speech_vocab_size)
