"""The generator over the GPT-2 backbone: one BOS row, no guidance, and what a request gets depends on it alone."""

from dataclasses import replace

import numpy as np
import pytest

from sampler import SamplingConfig, process
from sampler.engines.core import CoreEngine
from sampler.errors import ConfigError
from sampler.generation.generator import Generator
from tests.longform.test_generation import TURBO as CHECKPOINT
from tests.longform.test_generation import generate, request
from tests.support import TURBO_TINY, random_text

UNGUIDED = SamplingConfig(cfg_weight=0.0)


def test_guidance_is_skipped_and_the_record_says_so():
    """As upstream, which warns that Turbo ignores it: the same tokens as with weight 0."""
    configs = (UNGUIDED, SamplingConfig(cfg_weight=3.0))
    plain, guided = (generate([request(1, config)], 2, CHECKPOINT, keep_logits=True)[0] for config in configs)
    assert guided.tokens == plain.tokens
    assert (guided.record.guided, plain.record.guided) == (False, False)
    assert guided.record.logits.shape == (len(guided.tokens), 1, TURBO_TINY.speech_vocab_size)


def test_the_recorded_logits_are_the_teacher_forced_ones():
    """One BOS row, positions without a gap between prefix and speech; drawn by the chain with the request's noise."""
    asked = request(2, UNGUIDED, cap=40)
    answer = generate([asked], 1, CHECKPOINT, keep_logits=True)[0]
    forced = np.array(CHECKPOINT.model.teacher_forced(asked.prompt, CHECKPOINT.voice, answer.tokens[:-1]))
    np.testing.assert_allclose(answer.record.logits[:, 0], forced[0], atol=1e-4)
    for step, token in enumerate(answer.tokens):
        history = [TURBO_TINY.bos_id, *answer.tokens[:step]]
        scores = np.array(process(answer.record.logits[step], [history], asked.config))[0]
        assert int(np.argmax(scores + asked.noise(step))) == token


def test_as_many_tokens_as_there_are_positions():
    most = TURBO_TINY.speech_positions
    asked = replace(request(0, UNGUIDED, cap=most), prompt=tuple([1] * TURBO_TINY.max_text_tokens))
    assert len(Generator(CHECKPOINT, width=1).generate([asked])[0].tokens) <= most
    with pytest.raises(ConfigError, match=rf"max_new_tokens = {most + 1} \(expected 1 to {most}"):
        Generator(CHECKPOINT).generate([replace(asked, max_new_tokens=most + 1)])


def test_as_an_engine_it_has_no_guidance():
    engine = CoreEngine(Generator(CHECKPOINT, width=1, keep_logits=True))
    assert engine.info.cfg is False
    assert engine.predict(tuple(random_text(TURBO_TINY, 5, 1)), [1, 2, 3]).shape == (4, TURBO_TINY.speech_vocab_size)
