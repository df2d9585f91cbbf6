"""The embedded model on held-out texts: it stops, at the right length, follows the text, and needs it.

These are promises about one file, at one seed: Finch's weights are data, and the counts below are exact for them.
"""

import numpy as np
import pytest
from scipy.stats import binomtest

from sampler import SamplingConfig, finch
from sampler.finch.measure import SpeechMeasures, held_out_speech, measure_speech, speak, text_losses

CONFIG = SamplingConfig(temperature=0.8)
SENTENCES = 200


@pytest.fixture(scope="module")
def checkpoint():
    return finch.load()


@pytest.fixture(scope="module")
def measured(checkpoint) -> list[SpeechMeasures]:
    prompts = finch.prompts("sentences")[:SENTENCES]
    runs = speak(checkpoint, prompts, CONFIG, seed=0)
    return [measure_speech(run, prompt) for run, prompt in zip(runs, prompts, strict=True)]


def test_sentences_end_by_themselves_at_the_right_length(measured, record_property):
    """At least 98 % between 0.7 and 1.4 times the length of the true speech."""
    right = sum(each.right_length for each in measured)
    interval = binomtest(right, SENTENCES).proportion_ci(0.95)
    record_property("right_length", f"{right} of {SENTENCES}, 95 % interval {interval.low:.3f} to {interval.high:.3f}")
    assert right >= 0.98 * SENTENCES


def test_aligned_heads_move_through_the_text(measured, record_property):
    """Spearman correlation of step and attended position above 0.95 in at least 95 % of the sentences."""
    monotone = sum(each.rank_correlation > 0.95 for each in measured)
    record_property("monotone", f"{monotone} of {SENTENCES}")
    assert monotone >= 0.95 * SENTENCES


def test_each_aligned_head_follows_the_text_by_itself(checkpoint):
    """Three heads in three layers, none of them carried by the others."""
    heads = checkpoint.config.aligned_heads
    assert len(heads) == 3
    assert len({layer for layer, _ in heads}) == 3
    runs = speak(checkpoint, finch.prompts("sentences")[:40], CONFIG, seed=0)
    for pair in range(3):
        attended = [run.record.attention[pair].argmax(axis=-1) for run in runs]
        backwards = np.mean([np.mean(np.diff(columns) < -4) for columns in attended])
        assert backwards < 0.02, heads[pair]
        assert np.mean([columns[-5:].max() >= 0.8 * columns.max() for columns in attended]) > 0.95


def test_the_text_matters_and_guidance_makes_it_matter_more(checkpoint, record_property):
    """Loss of true speech under its own text and under another one: guidance 0.5 sets the wrong text further apart."""
    speech = held_out_speech(finch.folder(), 48)
    prompts = finch.prompts("sentences")[:48]
    (own, wrong), (guided_own, guided_wrong) = (text_losses(checkpoint, prompts, speech, w) for w in (0.0, 0.5))
    record_property("losses", f"{own:.3f} {wrong:.3f}, guided {guided_own:.3f} {guided_wrong:.3f}")
    assert own < 1.6
    assert wrong - own > 1.0
    assert guided_wrong - guided_own > wrong - own


def test_tokens_vary(measured):
    """Few doubled tokens, many distinct ones: the repetition penalty has something to separate."""
    assert np.mean([each.doubled for each in measured]) < 0.05
    assert np.mean([each.distinct for each in measured]) > 40


def test_paragraphs_end_too(checkpoint):
    """Two to six sentences joined: all end by themselves, at the right length."""
    prompts = finch.prompts("paragraphs")[:20]
    runs = speak(checkpoint, prompts, CONFIG, seed=2)
    measured = [measure_speech(run, prompt) for run, prompt in zip(runs, prompts, strict=True)]
    assert sum(each.right_length for each in measured) >= 19


def test_prompts_are_held_out_texts_of_both_kinds():
    sentences, paragraphs = finch.prompts("sentences"), finch.prompts("paragraphs")
    assert (len(sentences), len(paragraphs)) == (240, 100)
    assert len({prompt.text for prompt in sentences + paragraphs}) == 340
    assert all(12 <= len(prompt.text) <= 90 for prompt in sentences)
    assert max(prompt.tokens for prompt in paragraphs) > 300
    speech = held_out_speech(finch.folder(), 240)
    assert [len(codes) for codes in speech] == [prompt.tokens for prompt in sentences]
