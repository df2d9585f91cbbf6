"""The embedded model on held-out texts: it stops, at the right length, follows the text, and needs it.

These are promises about one file, at one seed: Finch's weights are data, and the counts below are exact for them.
MODEL_CARD.md has the same over more runs, those of long texts over ten seeds.
"""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from sampler import SamplingConfig, finch
from sampler.finch.training.measure import (
    LONG_CAP,
    SpeechMeasures,
    held_out_speech,
    long_prompts,
    measure_speech,
    over_languages,
    share_by_text,
    speak,
    text_losses,
)
from sampler.finch.training.sentences import SLOT, Grammar, joined, sentences
from sampler.finch.training.vocabulary import CHARACTERS
from sampler.t3.tokenizer import lower_nfkd, normalize_punctuation

CONFIG = SamplingConfig(temperature=0.8)
checkpoint = pytest.fixture(finch.load, scope="module")
LONG = 20
LANGUAGES = ("en", "de", "fr", "es", "it")


def nightly(count: int):
    return pytest.param(count, marks=pytest.mark.nightly(f"{count} texts are spoken"))


@pytest.fixture(scope="module", params=[20, nightly(200)])
def sentences_spoken(checkpoint, request):
    prompts = over_languages(finch.prompts("sentences"), request.param)
    return prompts, speak(checkpoint, prompts, CONFIG, seed=0)


def measures(prompts, runs) -> list[SpeechMeasures]:
    return [measure_speech(run, prompt) for run, prompt in zip(runs, prompts, strict=True)]


def test_sentences_end_by_themselves_at_the_right_length_and_follow_the_text(sentences_spoken, record_property):
    measured = measures(*sentences_spoken)
    count = len(measured)
    right = sum(each.right_length for each in measured)
    interval = binomtest(right, count).proportion_ci(0.95)
    record_property("right_length", f"{right} of {count}, 95 % interval {interval.low:.3f} to {interval.high:.3f}")
    assert right >= 0.98 * count
    monotone = sum(each.rank_correlation > 0.95 for each in measured)
    record_property("monotone", f"{monotone} of {count}")
    assert monotone >= 0.95 * count
    assert np.mean([each.doubled for each in measured]) < 0.05


def test_each_aligned_head_follows_the_text_by_itself(checkpoint, sentences_spoken):
    heads, (_, runs) = checkpoint.config.aligned_heads, sentences_spoken
    assert len(heads) == len({layer for layer, _ in heads}) == 3
    for pair in range(3):
        attended = [run.record.attention[pair].argmax(axis=-1) for run in runs]
        backwards = np.mean([np.mean(np.diff(columns) < -4) for columns in attended])
        assert backwards < 0.02, heads[pair]
        assert np.mean([columns[-5:].max() >= 0.8 * columns.max() for columns in attended]) > 0.95


@pytest.mark.parametrize("count", [10, nightly(50)])
def test_the_text_matters_and_guidance_makes_it_matter_more(checkpoint, count, record_property):
    prompts = over_languages(finch.prompts("sentences"), count)
    speech = held_out_speech(finch.folder(), prompts)
    (own, wrong), (guided_own, guided_wrong) = (text_losses(checkpoint, prompts, speech, w) for w in (0.0, 0.5))
    record_property("losses", f"{own:.3f} {wrong:.3f}, guided {guided_own:.3f} {guided_wrong:.3f}")
    assert own < 1.6
    assert wrong - own > 1.0
    assert guided_wrong - guided_own > wrong - own


@pytest.mark.parametrize("count", [5, nightly(20)])
def test_paragraphs_end_at_the_right_length(checkpoint, count):
    prompts = over_languages(finch.prompts("paragraphs"), count)
    measured = measures(prompts, speak(checkpoint, prompts, CONFIG, seed=2))
    assert sum(each.right_length for each in measured) >= 0.95 * count


@pytest.mark.nightly("speaks 20 texts of 500 to 900 tokens")
def test_long_texts_end_at_the_right_length_follow_the_text_and_vary(checkpoint, record_property):
    prompts = long_prompts(finch.folder(), LONG)
    runs = speak(checkpoint, prompts, CONFIG, seed=3, cap=LONG_CAP)
    measured = measures(prompts, runs)
    right = sum(each.right_length for each in measured)
    monotone = sum(each.rank_correlation > 0.95 for each in measured)
    record_property("long", f"{right} right, {monotone} monotone of {LONG}")
    assert min(right, monotone) >= 0.95 * LONG
    distinct = [len(set(run.tokens[:500])) for run in runs if len(run.tokens) >= 500]
    record_property("distinct", f"{min(distinct)} to {max(distinct)} of 500")
    assert len(distinct) >= 0.9 * LONG
    assert np.mean(distinct) >= 300


def test_prompts_are_held_out_texts_of_three_kinds():
    groups = {name: finch.prompts(name) for name in ("sentences", "paragraphs", "long")}
    everything = [prompt for prompts in groups.values() for prompt in prompts]
    assert {name: len(prompts) for name, prompts in groups.items()} == {"sentences": 500, "paragraphs": 200, "long": 45}
    assert len({prompt.text for prompt in everything}) == len({prompt.id for prompt in everything}) == 745
    for prompts in groups.values():
        assert tuple(dict.fromkeys(prompt.language for prompt in prompts)) == LANGUAGES
    assert [prompt.id for prompt in groups["sentences"][:2]] == ["en-sentence-000", "en-sentence-001"]
    assert all(12 <= len(prompt.text) <= 130 for prompt in groups["sentences"])
    assert sum(500 <= prompt.tokens <= 900 for prompt in groups["long"]) >= 35
    assert 1_300 < max(prompt.tokens for prompt in groups["long"]) <= 1_500
    speech = held_out_speech(finch.folder(), everything)
    assert [len(codes) for codes in speech] == [prompt.tokens for prompt in everything]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_character_of_a_language_is_in_the_vocabulary(checkpoint, language):
    grammar = Grammar.load(language)
    texts = [*grammar.templates, *(word for words in grammar.lists.values() for word in words)]
    seen = lower_nfkd(normalize_punctuation(SLOT.sub("", " ".join(texts)), "multilingual"))
    assert set(seen) - {" "} <= set(CHARACTERS)
    unknown = checkpoint.tokenizer._tokenizer.token_to_id("[UNK]")
    for prompt in finch.prompts("long"):
        assert unknown not in checkpoint.tokenizer.encode(prompt.text, prompt.language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_grammar_is_whole_and_rich(language):
    grammar = Grammar.load(language)
    phrases = [*grammar.templates, *(phrase for phrases in grammar.lists.values() for phrase in phrases)]
    assert {slot for phrase in phrases for slot in SLOT.findall(phrase)} == set(grammar.lists)
    made = list(itertools.islice(sentences(grammar, seed=77), 3_000))
    assert len(set(made)) > 2_850
    assert all(sentence.lstrip('"¿¡')[0].isupper() for sentence in made)
    assert not any("{" in sentence or "  " in sentence for sentence in made)


@pytest.mark.parametrize(
    ("language", "template", "expected"),
    [
        ("en", "a onion and a key", "An onion and a key"),
        ("fr", "le homme de Yves à le ami de le roi que il aime", "L'homme d'Yves à l'ami du roi qu'il aime"),
        ("es", "¿viene de el río a el mar?", "¿Viene del río al mar?"),
        ("it", "il specchio, una ancora e un zaino a il re", "Lo specchio, un'ancora e uno zaino al re"),
    ],
)
def test_rules_of_a_grammar(language, template, expected):
    assert Grammar.load(language).fill(template, None) == expected


def test_joined_texts_stay_within_their_limit():
    stream = itertools.cycle(["A short one.", "É" * 40 + "."])
    assert joined(stream, 2, 60) == "A short one."
    assert joined(itertools.cycle(["Abc."]), 3) == "Abc. Abc. Abc."


def test_the_interval_by_text_covers():
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(1_000):
        share = share_by_text(np.repeat(rng.random((20, 1)) < 0.9, 10, axis=1))
        missed += not share.low <= 0.9 <= share.high
    assert missed <= 50
    assert (share.runs, share.texts) == (200, 20)
    all_ended = share_by_text(np.ones((20, 10), dtype=bool))
    assert (all_ended.ended, all_ended.high) == (200, 1.0)
    assert all_ended.low == pytest.approx(0.025 ** (1 / 20), abs=1e-6)
