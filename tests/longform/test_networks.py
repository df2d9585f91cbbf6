"""Wrong generators whose fault is an input of the network: their tokens are right under the network of their cause."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sampler import finch
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.tolerance import SINGLE
from sampler.run.network_causes import CAUSES, CHUNKS, WINDOWS, Input
from sampler.run.networks import other_logits, prompts
from sampler.run.other_models import rounded_by_mlx
from sampler.t3.prefix_attention import Reading
from tests.duel.faults import quantized_weights
from tests.longform.scored_sets import reference, speak
from tests.longform.wrong_runs import DEFAULT, RATE

RUNS = 4
BY_GENERATOR = {
    "misses_both_bos": "no BOS",
    "second_bos_has_a_position_of_its_own": "a position of its own for the last BOS",
    "speech_stays_at_position_0": "speech positions that stay at 0",
    "rotary_is_one_ahead_after_the_prefill": "rotary positions one ahead after the prompt",
    "text_is_fed_twice": "the text fed twice",
    "text_is_cut_at_24_ids": "a text cut after 24 ids",
    "voice_is_hardly_emotional": "an emotion of 0.1",
    "unconditional_row_has_no_positions": "no text positions in the unconditional row",
    "unconditional_row_has_no_voice": "no voice in the unconditional row",
    "text_is_padded_to_16": "a text filled up with stop ids to a multiple of 16",
    "rotary_base_is_10000": "a rotary base of 10,000",
    "rotary_counts_in_twos": "rotary positions that are counted twice",
    "rotary_stays_at_0": "rotary positions that stay at 0 after the prompt",
    "rotary_turns_neighbouring_channels": "rotary pairs of neighbouring channels",
    "speech_positions_count_the_prefix": "speech positions that go on from the whole prompt",
    "spaces_are_lost": "a text without its spaces",
    "language_tag_is_missing": "a text without its language tag",
    "unconditional_row_has_padding": "the text id 0, not zeros, in the unconditional row",
    "remembers_48_positions": "a window of the last 48 positions",
    "forgets_speech_at_each_chunk": "no speech before the last multiple of 25 tokens",
    "reads_the_cache_one_short": "each token without its own keys and values",
    "weights_in_q4_0": "weights of the layers in GGML's Q4_0",
    "mlp_has_another_activation": "GELU in place of SiLU",
}


@cache
def spoken(name):
    return list(speak(name, 0, range(RUNS)))


def impossible_tokens(name, network):
    """How many tokens of a generator's runs are impossible under a network, None: the right one."""
    score = replace(reference().score(DEFAULT, RATE), networks=())
    for run in spoken(name):
        score.add(reference().run(run.name, run.request, run.tokens, run.stop_reason).under(network))
    return len(score.impossible)


@pytest.mark.parametrize("name", BY_GENERATOR)
def test_tokens_are_possible_under_the_network_of_their_cause(name):
    network = next(named for named in CAUSES if named.text == BY_GENERATOR[name])
    assert impossible_tokens(name, network) == 0
    if name != "rotary_is_one_ahead_after_the_prefill":  # whose tokens are too near to the right ones
        assert impossible_tokens(name, None) > 0


def test_only_networks_that_differ_are_computed():
    """One BOS in place of two is another input, a second language none for a text in it."""
    engine = reference().engine
    request = spoken("misses_both_bos")[0].request
    known = other_logits(engine, request, (1, 2, 3), None, guided=True)
    own = Named("position", f"{request.language} as the language")
    assert own not in known
    assert {named.text for named in known} >= {"no BOS", "one BOS in place of two", "the text fed twice"}
    unguided = other_logits(engine, request, (1, 2, 3), None, guided=False)
    assert {named.text for named in known} - {named.text for named in unguided} == {
        "no text positions in the unconditional row",
        "no voice in the unconditional row",
        "the text id 0, not zeros, in the unconditional row",
    }
    as_ids = replace(request, prompt=tuple(engine.ids(request.prompt, request.language)))
    languages = {named.text for named in other_logits(engine, as_ids, (1, 2, 3), None, guided=True)}
    assert not any(text.endswith("as the language") for text in languages)


def test_every_network_gives_other_logits_than_the_right_one():
    """But for windows and chunks that a run does not outgrow: no row of the tables stands for nothing."""
    engine, run = reference().engine, spoken("misses_both_bos")[0]
    tokens, right = run.tokens, reference().run(run.name, run.request, run.tokens, run.stop_reason).steps.logits
    found = {named: of() for named, of in other_logits(engine, run.request, tokens, None, guided=True).items()}
    assert {named.text for named in CAUSES} - {named.text for named in found} <= {
        named.text for named in CAUSES if "text cut after" in named.text or "filled up" in named.text
    }
    assert all(logits.shape == right.shape and np.isfinite(logits).all() for logits in found.values())
    same = {named.text for named, logits in found.items() if np.abs(logits - right).max() < SINGLE.logit}
    checkpoint = engine.generator.checkpoint
    ids = engine.ids(run.request.prompt, run.request.language)
    positions = checkpoint.model.prefix_length(ids, checkpoint.voice) + len(tokens) - 1
    windows = {f"a window of the last {size} positions" for size in WINDOWS if size >= positions}
    chunks = {f"no speech before the last multiple of {size} tokens" for size in CHUNKS if size >= len(tokens) - 1}
    assert same == windows | chunks
    assert 0 < len(windows) < len(WINDOWS)


@pytest.mark.parametrize(
    "reading",
    [
        Reading(visible=lambda prompt, queries, keys: keys >= 0 * queries),
        Reading(empty=np.zeros_like),
        Reading(rounded=lambda rows: rows),
        Reading(turned=lambda prompt, places: places),
    ],
    ids=["visible", "empty", "rounded", "turned"],
)
def test_a_reading_that_changes_nothing_gives_the_right_logits(reading):
    engine, text = reference().engine, finch.prompts("sentences")[0]
    given = Input(engine, tuple(engine.ids(text.text, text.language)), engine.generator.bos_count)
    right, other = (
        given.checkpoint.model.forced_together([each.speech((5, 9, 200, 7), guided=True)])[0][0]
        for each in (given, replace(given, reading=reading))
    )
    np.testing.assert_allclose(np.array(other), np.array(right), atol=2e-5)


def test_what_comes_before_the_speech_is_known_to_penalties():
    engine, request = reference().engine, spoken("misses_both_bos")[0].request
    found = prompts(engine, request)
    assert found["the ids of the text"] == engine.ids(request.prompt, request.language)
    assert len(found["the tokens of the voice's prompt"]) == len(engine.generator.checkpoint.voice.prompt)


def test_a_shift_moves_all_tokens_and_not_what_is_before_them():
    """By logits: of the first step nothing changes, of every later one something does."""
    engine, text = reference().engine, finch.prompts("sentences")[0]
    given = Input(engine, tuple(engine.ids(text.text, text.language)), engine.generator.bos_count)
    model, tokens = given.checkpoint.model, (5, 9, 200, 7)
    ahead_of = next(change for named, change in CAUSES.items() if "rotary positions one ahead" in named.text)
    right, ahead = (
        model.forced_together([change(given).speech(tokens, guided=True)])[0][0]
        for change in (lambda one: one, ahead_of)
    )
    apart = abs(right - ahead).max(axis=-1).tolist()
    assert all(row[0] == 0 and min(row[1:]) > 1e-3 for row in apart)


def test_weights_in_bits_are_those_of_a_quantised_port():
    """tests/duel rounds the file's tensors before the model is made."""
    engine, text = reference().engine, finch.prompts("sentences")[0]
    checkpoint = engine.generator.checkpoint
    ids = checkpoint.tokenizer.encode(text.text, text.language)
    model = checkpoint.model
    models = (quantized_weights(4)(checkpoint, 1).checkpoint.model, rounded_by_mlx(4)(model), model)
    forced = [np.array(model.teacher_forced(ids, checkpoint.voice, [1, 2, 3])) for model in models]
    np.testing.assert_array_equal(forced[0], forced[1])
    assert np.abs(forced[0] - forced[2]).max() > 0.1
