"""Further processors in generation see what was generated, the EOS id of the model and a uniform number a step."""

from dataclasses import replace

import numpy as np
import pytest

from sampler import NoiseKey, SamplingConfig, process
from sampler.errors import ConfigError
from sampler.stages import STAGES
from tests.longform.test_generation import generate, request
from tests.support import TINY

NEUTRAL = SamplingConfig(cfg_weight=0.5).without(set(STAGES) - {"cfg"})
FURTHER = (
    SamplingConfig(frequency_penalty=0.7, presence_penalty=0.3, penalty_window=5, repetition_penalty=1.3),
    SamplingConfig(logit_bias={3: 4.0}, suppressed_tokens=[1, 2], min_new_tokens=9),
    SamplingConfig(dry_multiplier=1.0, no_repeat_ngram_size=2, top_n_sigma=1.5),
    SamplingConfig(typical_p=0.7, xtc_probability=0.5, xtc_threshold=0.02, min_p=0),
)


@pytest.mark.parametrize("config", FURTHER)
def test_generation_draws_what_the_chain_gives_at_every_step(config):
    asked = request(1, config, cap=25)
    answer = generate([asked], keep_logits=True)[0]
    assert len(answer.tokens) > 3
    for step, token in enumerate(answer.tokens):
        conditional, unconditional = answer.record.logits[step]
        scores = process(
            conditional[None],
            [[TINY.bos_id, *answer.tokens[:step]]],
            config,
            unconditional[None],
            prompt_length=1,
            eos_ids=[TINY.eos_id],
            uniforms=[NoiseKey(0).uniform(step)],
        )
        assert token == int(np.argmax(np.array(scores)[0] + asked.noise(step)))


def test_a_request_gets_alone_what_it_got_among_others():
    requests = [request(index, config) for index, config in enumerate((*FURTHER, SamplingConfig(), NEUTRAL))]
    for asked, answer in zip(requests, generate(requests, 3), strict=True):
        assert generate([replace(asked, slot=answer.record.slot)], 3)[0].tokens == answer.tokens


def test_no_text_ends_before_its_minimum():
    certain = replace(NEUTRAL, logit_bias={TINY.eos_id: 1_000.0})
    late = replace(certain, min_new_tokens=7)
    answers = generate([request(0, certain), request(1, late)], 2)
    assert answers[0].tokens == (TINY.eos_id,)
    assert (len(answers[1].tokens), answers[1].tokens[-1], answers[1].stop_reason) == (8, TINY.eos_id, "eos")
    assert TINY.eos_id not in answers[1].tokens[:-1]


def test_the_uniform_of_the_request_is_taken():
    greedy = request(0, replace(NEUTRAL, temperature=0))
    asked = replace(greedy, config=replace(greedy.config, xtc_probability=0.5, xtc_threshold=0.0001))
    never, always = (generate([replace(asked, uniform=lambda step, u=u: u)])[0].tokens for u in (0.9, 0.1))
    assert never == generate([greedy])[0].tokens != always


def test_ids_beyond_the_vocabulary_are_refused_before_anything_is_generated():
    with pytest.raises(ConfigError, match=r"logit_bias names the id 66 \(the vocabulary has 66 ids\)"):
        generate([request(0), request(1, SamplingConfig(logit_bias={66: 1.0}))])
