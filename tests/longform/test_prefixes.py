"""What texts share of their prefixes is computed once, and changes nothing: not a bit beside other texts."""

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
@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_a_prefix_in_parts_is_that_of_one_pass(name, guided, text):
    model = MODELS[name]
    cache = KeyValueCache(model.config, 2 if guided else 1)
    rows = model.prefix(text, random_voice(model.config, 6), guided=guided)
    heads = AttentionRequest(model.config.aligned_heads)
    hidden, attention = model.backbone.prefill(rows, cache, heads)
    whole = arrays(Prefix(cache, model.logits(hidden[:, -1]), attention))
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


def test_slots_with_one_prefix_attend_as_each_does_alone_to_the_bit():
    """Also after the slot whose copy was read has another prefix."""
    rng = np.random.default_rng(9)
    shape = (2, 2, TINY.num_heads, 80, TINY.head_size)

    def prefix() -> KeyValueCache:
        made = KeyValueCache(TINY, 2)
        for layer in range(TINY.num_layers):
            made.append(layer, *map(mx.array, rng.normal(size=shape).astype(np.float32)))
        made.advance(80)
        return made

    first, second = prefix(), prefix()
    alone = [SlotCache(TINY, 1, 2, 120) for _ in range(3)]
    beside = SlotCache(TINY, 3, 2, 120)
    for slot, cache in enumerate(alone):
        beside.fill(slot, first)
        cache.fill(0, first)
    for step in range(4):
        if step == 2:
            beside.release(0)
            beside.fill(0, second)
            alone[0].fill(0, second)
        joint = rng.normal(size=(6, 3 * TINY.hidden_size)).astype(np.float32)
        for cache, rows in ((beside, joint), *zip(alone, np.split(joint, 3), strict=True)):
            cache.begin()
            for layer in range(TINY.num_layers):
                mixed, kept = cache.attend(layer, mx.array(rows), None, [0])
                cache.found = [np.array(mixed), *(row for rows in kept for row in rows)]
            cache.advance()
        np.testing.assert_array_equal(beside.found[0], np.concatenate([cache.found[0] for cache in alone]))
        for attention, cache in zip(beside.found[1:], alone, strict=True):
            np.testing.assert_array_equal(attention, cache.found[1])
