"""An unconditional row without a voice, another rotary base, a cache in four bits, and texts that are filled up."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Voice
from sampler.t3.llama import Llama
from sampler.t3.model import T3
from sampler.t3.rotary import Angles, inverse_frequencies
from tests.wrong_engines.wrong_generators.memory import Pair, after_prefill
from tests.wrong_engines.wrong_generators.positions import with_backbone, with_model
from tests.wrong_engines.wrong_generators.prompts import reading
from tests.wrong_engines.wrong_generators.table import remade

from .table import later_generators


class WithoutVoice(T3):
    """The unconditional row has zeros for the voice, where upstream's has the voice of the other row."""

    def prefix(self, text: Sequence[int], voice: Voice, **keywords: Any) -> mx.array:
        made = super().prefix(text, voice, **keywords)
        made[1:, : self.text_columns(text, voice).start] = 0.0
        return made


class OtherBase(Llama):
    """Rotary frequencies fall from a base of 10,000, the default of most ports."""

    def _angles(self, positions: NDArray[np.int64]) -> Angles:
        frequencies = inverse_frequencies(replace(self.config, rope_theta=10_000.0))
        angles = positions.astype(np.float32)[:, None] * np.tile(frequencies, 2)
        return np.cos(angles), np.sin(angles)


def in_four_bits(rows: mx.array) -> mx.array:
    """Each head's vector on 16 even steps from its smallest to its largest number."""
    low, high = rows.min(axis=-1, keepdims=True), rows.max(axis=-1, keepdims=True)
    step = mx.maximum(high - low, 1e-8) / 15
    return low + step * mx.round((rows - low) / step)


class FourBits(KeyValueCache):
    """Keys and values are rounded when they are written."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        return super().append(layer, in_four_bits(keys), in_four_bits(values))


def quantised(cache: KeyValueCache) -> KeyValueCache:
    rounded = {name: [in_four_bits(array) for array in vars(cache)[name]] for name in ("_keys", "_values")}
    return remade(cache, FourBits, **rounded)


later_generators(
    "unconditional_row_has_no_voice: the voice of the unconditional row is zeroed together with its text [C06].",
    with_model(WithoutVoice),
    "rotary_base_is_10000: rotary frequencies have the common base of 10,000, where the model has 500,000.",
    with_backbone(OtherBase),
    "cache_in_four_bits: keys and values are kept in four bits, to save memory.",
    after_prefill(quantised),
    "text_is_padded_to_16: "
    "texts are filled up with stop ids to a multiple of 16, for fewer shapes, and no mask hides them [K10].",
    reading(lambda texts: [(*text, *text[-1:] * (-len(text) % 16)) for text in texts]),
)
