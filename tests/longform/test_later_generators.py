"""Later and held-out generators generate and do something else than a right one; their names say what the fault is."""

import re
from dataclasses import replace
from functools import cache
from math import inf

import pytest

from sampler import finch
from sampler.chain.noise import NoiseKey
from sampler.generation.generator import Generator
from tests.longform.fault_names import HELD_OUT_NAMES, LATER_NAMES
from tests.longform.scored_sets import GENERATORS, Seen, speak
from tests.longform.scoring_table import Page, Row
from tests.longform.wrong_runs import checkpoint, request_of
from tests.wrong_engines.held_out_generators import HELD_OUT_GENERATORS
from tests.wrong_engines.later_generators import LATER_GENERATORS
from tests.wrong_engines.wrong_generators import RIGHT_GENERATORS, WRONG_GENERATORS
from tests.wrong_engines.wrong_generators.table import Around

EOS, TEXTS, CAP = 2_049, 24, 120


OTHERS = LATER_GENERATORS | HELD_OUT_GENERATORS
NAMES = LATER_NAMES | HELD_OUT_NAMES


@pytest.mark.parametrize(
    ("table", "names", "count", "named"),
    [(LATER_GENERATORS, LATER_NAMES, 50, 36), (HELD_OUT_GENERATORS, HELD_OUT_NAMES, 30, 20)],
    ids=["later", "held out"],
)
def test_the_generators_are_none_of_the_others_and_have_their_names(table, names, count, named):
    assert len(table) == count
    assert len(OTHERS) == 80
    assert not set(table) & (set(WRONG_GENERATORS) | set(RIGHT_GENERATORS))
    assert set(names) == set(table)
    assert sum(map(bool, names.values())) >= named


@pytest.mark.parametrize("name", OTHERS)
def test_a_later_generator_is_made_and_its_names_are_those_of_its_fault_alone(name):
    wrong, names = OTHERS[name], re.compile(NAMES[name] or "none")
    assert (wrong.name, wrong.fault[-1]) == (name, ".")
    assert isinstance(wrong.factory(checkpoint(), 4), Generator | Around)
    assert not names.match(": ")
    noise = "draw: the noise of other requests"
    assert bool(names.match(noise)) == (name in ("noise_comes_again_after_16_steps", "neighbours_share_noise"))


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("speech_is_one_position_ahead", "position: speech one position ahead", "position: speech one position behind"),
        ("second_bos_has_a_position_of_its_own", "position: the second BOS at 1", "position: one BOS in place of two"),
        ("voice_is_hardly_emotional", "position: no emotion", "position: full emotion"),
        ("is_greedy_in_every_tenth_step", "draw: likely tokens", "draw: rare tokens"),
        ("takes_the_second_best_at_times", "draw: rare tokens", "draw: likely tokens"),
        ("races_with_uniform_numbers", "draw: likely tokens", "draw: rare tokens"),
        ("noise_serves_two_steps", "draw: the noise of the steps before", "draw: the noise of other requests"),
        ("rotary_base_is_10000", "position: another rotary base", "position: rotary positions one ahead"),
        ("text_is_padded_to_16", "position: padding after the text", "position: no stop id of the text"),
        ("guides_with_the_row_of_a_neighbour", "cfg: another row", "cache: another row"),
        ("first_token_is_the_likeliest", "draw: likely tokens", "draw: rare tokens"),
        ("adds_xtc", "xtc_probability: 0.5", "draw: the likeliest token"),
        ("adds_xtc", "draw: rare tokens", "temperature: a higher one"),
        ("penalty_divides_probabilities", "presence_penalty: 0.2", "frequency_penalty: 0.2"),
        ("keeps_the_likelier_of_two_draws", "temperature: a lower one", "draw: the noise of the steps before"),
        ("neighbours_share_noise", "seed: the noise of other requests", "seed: the noise of the steps before"),
        ("ends_with_the_ids_of_the_text", "alignment: a forced end", "draw: a forced end"),
        (
            "rotary_turns_neighbouring_channels",
            "position: rotary positions of interleaved channels",
            "position: rotary positions one ahead",
        ),
        ("rotary_is_not_scaled", "position: rotary frequencies without scaling", "position: rotary positions shifted"),
        (
            "speech_positions_count_the_prefix",
            "position: speech positions that count the prefix",
            "position: speech positions one behind",
        ),
        ("language_tag_is_missing", "position: no language tag", "position: no start id of the text"),
        ("spaces_are_lost", "position: a text without spaces", "position: a text cut after 24 ids"),
        ("prompt_has_no_positions", "position: a voice prompt without positions", "position: no voice prompt"),
        ("reads_the_whole_buffer", "cache: zeros that were never written", "cache: four bits"),
        ("forgets_speech_at_each_chunk", "cache: the tokens before are forgotten", "cache: four bits"),
        ("left_padding_is_not_hidden", "position: padding before the voice", "position: no voice prompt"),
        ("weights_in_q4_0", "precision: weights in four bits", "precision: a cache in four bits"),
    ],
)
def test_names_of_another_meaning_are_wrong(name, right, wrong):
    assert [bool(re.match(NAMES[name], each)) for each in (right, wrong)] == [True, False]


def test_a_set_of_a_later_generator_is_found_by_its_name(monkeypatch):
    name = "hands_over_ten_bits"
    monkeypatch.setitem(GENERATORS, name, replace(LATER_GENERATORS[name], cap=8))
    (run,) = speak(name, 0, range(1))
    assert (len(run.tokens), run.stop_reason) == (8, "length")
    assert max(run.tokens) < 1_024


def spoken(factory):
    prompts = [prompt for prompt in finch.prompts("sentences") if 38 <= prompt.tokens <= 52][:TEXTS]
    requests = [request_of(prompt, NoiseKey(0, f"later/{prompt.id}"), CAP) for prompt in prompts]
    return factory(checkpoint(), TEXTS).generate(requests)


@cache
def rightly_spoken():
    return [run.tokens for run in spoken(Generator)]


@pytest.mark.nightly("every generator speaks 24 sentences")
@pytest.mark.parametrize("name", OTHERS)
def test_a_later_generator_generates_tokens_that_a_right_one_does_not(name):
    runs = spoken(OTHERS[name].factory)
    assert [run.tokens for run in runs] != rightly_spoken()
    for run in runs:
        assert all(0 <= token <= EOS for token in run.tokens)
        assert run.stop_reason == ("eos" if run.tokens[-1] == EOS else "length")
        assert EOS not in run.tokens[:-1]


def test_later_generators_have_a_table_and_goals_of_their_own():
    named = Seen(40, 1, "impossible", "min_p", "as if it were another one")
    page = Page([], [], [Row("min_p_compares_logits", [named, named]), Row("skips_a_layer", [named, named])])
    assert [goal.kept for goal in page.goals] == [True, True, True]
    text = str(page)
    assert "- 2 of 2 later generators are rejected within 60 runs" in text
    assert "- later generators: 2 of 2 rejected sets whose fault has a name are named rightly (goal 90%)\n" in text
    assert "- later generators: 0 of 2 rejected sets whose fault has no name are given none" in text
    assert "| `min_p_compares_logits` | min_p is a share of the largest logit" in text
    held_out = str(Page(held_out=[Row("penalty_fades", [named])]))
    assert "- 1 of 1 held-out generators are rejected within 60 runs\n" in held_out
    assert "- held-out generators: 0 of 1 rejected sets whose fault has a name are named rightly" in held_out
    assert "held-out generators: 0 of 0" not in held_out
    missed = Page([], [], [Row("adds_top_k", [named, Seen(inf, inf, "", "", "")])])
    assert "later generators: 0 of 1 rejected sets whose fault has a name are named rightly (goal 90%): MISSED" in str(
        missed
    )
