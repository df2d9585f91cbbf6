"""What texts share of their prefixes is computed once, and changes nothing: not a bit beside other texts."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest

from sampler.generation.prefix import BLANK_PART, Prefix, Prefixes
from sampler.t3.backbone import AttentionRequest, Backbone
from sampler.t3.cache import KeyValueCache
from sampler.t3.model import T3
from sampler.t3.slot_cache import SlotCache
from tests.support import TINY, TURBO_TINY, random_text, random_voice, random_weights

LENGTHS = (33, 5, 64, 32, 31)
TEXTS = [tuple(random_text(TINY, length - 2, index)) for index, length in enumerate(LENGTHS)]
MODELS = {config.name: T3(random_weights(config, 5), config) for config in (TINY, TURBO_TINY)}
KINDS = pytest.mark.parametrize(("name", "guided"), [("tiny", True), ("tiny", False), ("turbo-tiny", False)])


def prefixes_of(model: T3, *, guided: bool) -> Prefixes:
    heads = AttentionRequest(model.config.aligned_heads)
    return Prefixes(model, random_voice(model.config, 6), heads, guided=guided, bos_count=None)


def arrays(prefix: Prefix) -> list[np.ndarray]:
    pairs = [np.array(array) for pair in prefix.cache.layers() for array in pair]
    return [*pairs, np.array(prefix.logits), *(np.array(rows) for rows in prefix.attention)]


@KINDS
def test_a_prefix_beside_others_is_the_same_to_the_bit(name, guided):
    model = MODELS[name]
    together = prefixes_of(model, guided=guided)
    for text in TEXTS:
        alone = arrays(prefixes_of(model, guided=guided).of(text))
        for left, right in zip(alone, arrays(together.of(text)), strict=True):
            np.testing.assert_array_equal(left, right)


@KINDS
def test_what_prefixes_have_in_common_is_equal_to_the_bit(name, guided):
    prefixes = prefixes_of(MODELS[name], guided=guided)
    made = [prefixes.of(text) for text in TEXTS]
    begun = MODELS[name].text_columns(TEXTS[0], prefixes.voice).start
    assert [prefix.common[0] for prefix in made] == [begun] * len(TEXTS)
    if guided:
        assert [prefix.common[1] for prefix in made] == [begun + BLANK_PART * (size // BLANK_PART) for size in LENGTHS]
    for one in made:
        for other in made:
            for row, counts in enumerate(zip(one.common, other.common, strict=True)):
                for pair in zip(one.cache.layers(), other.cache.layers(), strict=True):
                    for left, right in zip(*pair, strict=True):
                        first = np.s_[row, :, : min(counts)]
                        np.testing.assert_array_equal(np.array(left[first]), np.array(right[first]))


@KINDS
@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_a_prefix_in_parts_is_that_of_one_pass(name, guided, text):
    model = MODELS[name]
    cache = KeyValueCache(model.config, 2 if guided else 1)
    rows = model.prefix(text, random_voice(model.config, 6), guided=guided)
    heads = AttentionRequest(model.config.aligned_heads)
    hidden, attention = model.backbone.prefill(rows, cache, heads)
    whole = arrays(Prefix(cache, (), model.logits(hidden[:, -1]), attention))
    prefixes = prefixes_of(model, guided=guided)
    for other in TEXTS:
        prefixes.of(other)
    for left, right in zip(whole, arrays(prefixes.of(text)), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_voice_and_blank_text_are_computed_once(monkeypatch):
    model = MODELS["tiny"]
    counted = []
    prefill = Backbone.prefill_beside

    def counting(backbone, stretches, *inputs, **keywords):
        counted.extend(embeddings.shape[:2] for embeddings, _ in stretches)
        return prefill(backbone, stretches, *inputs, **keywords)

    monkeypatch.setattr(Backbone, "prefill_beside", counting)
    prefixes = prefixes_of(model, guided=True)
    for text in TEXTS:
        prefixes.of(text)
    voice, bos = 6, 2
    parts = max(LENGTHS) // BLANK_PART
    expected = voice + parts * BLANK_PART + sum(length + length % BLANK_PART + 2 * bos for length in LENGTHS)
    assert {rows for rows, _ in counted} == {1}
    assert sum(length for _, length in counted) == expected
    before = len(counted)
    prefixes.of(TEXTS[0])
    assert len(counted) == before


def test_rows_that_differ_are_not_shared():
    model = MODELS["tiny"]
    prefixes = prefixes_of(model, guided=True)
    rows = model.prefix(TEXTS[2], random_voice(TINY, 6), guided=True)[1]
    changed = mx.concatenate([rows[:40], rows[40:41] + 1, rows[41:]])
    cuts = [6, 38, 66]
    one, other = (np.array(prefixes._begun(each, cuts)[1].layers()[1][0]) for each in (rows, changed))
    np.testing.assert_array_equal(one[:, :, :40], other[:, :, :40])
    assert (np.abs(one - other)[:, :, 40:].max(axis=(0, 1, 3)) > 0).all()


@pytest.mark.parametrize("common", [(80, 80), (40, 70), (33, 31)], ids=str)
def test_slots_that_begin_alike_attend_as_each_does_alone_to_the_bit(common):
    """Also after the slot whose copy was read has another prefix. common: with the first prefix, of each row."""
    rng = np.random.default_rng(9)
    shape = (2, 2, TINY.num_heads, 80, TINY.head_size)
    first_parts = rng.normal(size=(TINY.num_layers, *shape)).astype(np.float32)

    def prefix(common: Sequence[int]) -> KeyValueCache:
        made = KeyValueCache(TINY, 2)
        for layer, first in enumerate(first_parts):
            own = rng.normal(size=shape).astype(np.float32)
            for row, count in enumerate(common):
                own[:, row, :, :count] = first[:, row, :, :count]
            made.append(layer, *map(mx.array, own))
        made.advance(80)
        return made

    first, last = prefix((80, 80)), prefix((0, 0))
    caches = [first, first if common == (80, 80) else prefix(common), prefix((40, 64)), first]
    counts = [(80, 80), common, (40, 64), (80, 80)]
    alone = [SlotCache(TINY, 1, 2, 120) for _ in caches]
    beside = SlotCache(TINY, len(caches), 2, 120)
    for slot, (cache, filled, count) in enumerate(zip(alone, caches, counts, strict=True)):
        beside.fill(slot, filled, count)
        cache.fill(0, filled)
    for step in range(4):
        if step == 2:
            beside.release(0)
            beside.fill(0, last)
            alone[0].fill(0, last)
        joint = rng.normal(size=(2 * len(caches), 3 * TINY.hidden_size)).astype(np.float32)
        for cache, rows in ((beside, joint), *zip(alone, np.split(joint, len(caches)), strict=True)):
            cache.begin()
            for layer in range(TINY.num_layers):
                mixed, kept = cache.attend(layer, mx.array(rows), None, [0])
                cache.found = [np.array(mixed), *(row for rows in kept for row in rows)]
            cache.advance()
        np.testing.assert_array_equal(beside.found[0], np.concatenate([cache.found[0] for cache in alone]))
        for attention, cache in zip(beside.found[1:], alone, strict=True):
            np.testing.assert_array_equal(attention, cache.found[1])
