"""What stands before the speech, where it stands, and what is remembered of both."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Voice
from sampler.t3.model import T3
from tests.wrong_engines.wrong_generators.memory import Pair, showing, with_cache
from tests.wrong_engines.wrong_generators.positions import with_model
from tests.wrong_engines.wrong_generators.prompts import reading
from tests.wrong_engines.wrong_generators.table import remade, with_block

from .table import held_out_generators

TAG, SPACE = 1, 2
"""The place of the language tag in a text, and the id of a space."""

CHUNK = 25


class FilledText(T3):
    """The text of the unconditional row is that of the id 0, at the right positions."""

    def prefix(self, text: Sequence[int], voice: Voice, **keywords: Any) -> mx.array:
        made = super().prefix(text, voice, **keywords)
        columns = self.text_columns(text, voice)
        made[1:, columns] = made[1:, columns] + self._text[0]
        return made


class PlainPrompt(T3):
    """The tokens of the voice's speech prompt are embedded without positions."""

    def conditioning(self, voice: Voice) -> mx.array:
        return self._conditioning.rows(voice, self._speech[mx.array(voice.prompt)])


class Further(T3):
    """Fed tokens stand further on. ahead: by how many positions, for each row of a step."""

    ahead: Sequence[int]

    def embed_speech(self, tokens: Sequence[int], positions: Sequence[int]) -> mx.array:
        return super().embed_speech(tokens, np.add(positions, self.ahead).tolist())


class CountsThePrefix(Block):
    """A fed token stands at the speech position that is the length of the cache."""

    def _step(self, slots: Sequence[Slot | None]) -> None:
        model, voice = self.model, self.settings.checkpoint.voice
        lengths = [0 if slot is None else model.prefix_length(self.prompts[slot.index], voice) - 1 for slot in slots]
        self.model = remade(model, Further, ahead=np.repeat(lengths, self.rows).tolist())
        super()._step(slots)
        self.model = model


class PaddedLeft(T3):
    """Zeros before every prefix, as far as the longest text is longer."""

    longest: int

    def prefix(self, text: Sequence[int], voice: Voice, **keywords: Any) -> mx.array:
        made = super().prefix(text, voice, **keywords)
        zeros = mx.zeros((made.shape[0], self.longest - len(text), made.shape[2]), made.dtype)
        return mx.concatenate([zeros, made], axis=1)

    def text_columns(self, text: Sequence[int], voice: Voice) -> slice:
        right, before = super().text_columns(text, voice), self.longest - len(text)
        return slice(right.start + before, right.stop + before)


class PadsLeft(Block):
    """All prefixes of its requests have equal lengths."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.model = remade(self.model, PaddedLeft, longest=max(map(len, self.prompts)))


class WholeBuffer(KeyValueCache):
    """Shows all positions that it has room for, zeros where nothing was written yet."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        super().append(layer, keys, values)
        return self._keys[layer], self._values[layer]


def of_this_chunk(cache: Any, keys: mx.array, values: mx.array) -> Pair:
    """Those of the prefix and of the tokens that were fed since the last multiple of CHUNK."""
    first = cache.start + (keys.shape[2] - cache.start - 1) // CHUNK * CHUNK
    shown = [mx.concatenate([rows[:, :, : cache.start], rows[:, :, first:]], axis=2) for rows in (keys, values)]
    return shown[0], shown[1]


held_out_generators(
    "unconditional_row_has_padding: "
    "the text of the unconditional row is filled up with the id 0, whose embedding is not zero [C06].",
    with_model(FilledText),
    "speech_positions_count_the_prefix: "
    "the offset of the cache, which counts voice and text too, is taken for the position of the speech [K13].",
    with_block(CountsThePrefix),
    "language_tag_is_missing: texts have no language tag before their words, as if no language was given [C06].",
    reading(lambda texts: [(*text[:TAG], *text[TAG + 1 :]) for text in texts]),
    "spaces_are_lost: spaces are not replaced by their own id before the tokenizer, which drops them [C06].",
    reading(lambda texts: [tuple(token for token in text if token != SPACE) for text in texts]),
    "prompt_has_no_positions: "
    "tokens of the voice's speech prompt are embedded without their positions, which speech alone gets [K01].",
    with_model(PlainPrompt),
    "left_padding_is_not_hidden: "
    "the prefixes of a batch are filled up with zeros on the left, and no mask hides these [K10].",
    with_block(PadsLeft, attention="mlx"),
    "reads_the_whole_buffer: "
    "attention reads all positions that the cache has room for, zeros where nothing was written yet [K09].",
    with_cache(WholeBuffer),
    "forgets_speech_at_each_chunk: "
    "speech is streamed in chunks of 25 tokens, and of the chunks before its own a token sees nothing [K12].",
    showing(of_this_chunk),
)
