"""What stands before the speech: voice, text, BOS, and whose they are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.generation.block import Block
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.conditioning import Voice
from sampler.t3.model import T3

from .positions import with_model
from .table import ANYTHING, SENTENCES, UNSEEN, Factory, asking, with_block, wrong_generators

Texts = list[tuple[int, ...]]


def reading(change: Callable[[Texts], Texts]) -> Factory:
    """The model reads other ids than the tokenizer gave."""

    class Changed(Block):
        def __init__(self, generator: Generator, requests: Sequence[Request], prompts: Texts, **kind: Any) -> None:
            super().__init__(generator, requests, change(list(prompts)), **kind)

    return with_block(Changed)


def speaking(change: Callable[[Voice], Voice]) -> Factory:
    def make(checkpoint: Checkpoint, width: int) -> Generator:
        return Generator(replace(checkpoint, voice=change(checkpoint.voice)), width)

    return make


class WithoutBos(T3):
    """The prefix ends with the text."""

    def prefix(self, *inputs: Any, **keywords: Any) -> mx.array:
        return super().prefix(*inputs, **keywords)[:, : -self.config.bos_count]


def with_the_tag_before(requests: list[Request]) -> list[Request]:
    return [replace(request, language=requests[place - 1].language) for place, request in enumerate(requests)]


HIDDEN = {"unseen": UNSEEN}

wrong_generators(
    ANYTHING,
    "misses_the_second_bos: one BOS ends the prefix where upstream has two [C06].",
    partial(Generator, bos_count=1),
    HIDDEN,
    "misses_both_bos: speech follows on the text at once, without BOS [C06].",
    with_model(WithoutBos),
    "reads_the_text_of_another_row: "
    "the conditioning is gathered after the batch was sorted: every row speaks its neighbour's text [S11].",
    reading(lambda texts: [*texts[1:], texts[0]]),
    "text_lacks_its_start: "
    "the start token is missing before the text, so that every position of it is one too small [C06].",
    reading(lambda texts: [text[1:] for text in texts]),
    HIDDEN,
    "text_lacks_its_stop: the stop token is missing after the text [C06].",
    reading(lambda texts: [text[:-1] for text in texts]),
    HIDDEN,
    "text_is_cut_at_24_ids: the text is cut at 24 ids without a word, start and stop included [U25].",
    reading(lambda texts: [(*text[:23], text[-1]) if len(text) > 24 else text for text in texts]),
    "text_is_fed_twice: prefill and overlay both bring the text, which is spoken twice [E11].",
    reading(lambda texts: [(*text[:-1], *text[1:]) for text in texts]),
    "voice_is_another_one: the speaker of another request: the sign of its embedding is turned [S11].",
    speaking(lambda voice: replace(voice, speaker=-voice.speaker)),
    HIDDEN,
    "voice_has_no_prompt: the speech prompt of the voice is dropped, and with it 32 rows of the prefix [P05].",
    speaking(lambda voice: replace(voice, prompt=np.empty(0, dtype=np.int64))),
    "voice_is_excited: the emotion of another row, 1.0 in place of 0.5; Finch then speaks faster [S11].",
    speaking(lambda voice: replace(voice, emotion=1.0)),
    "language_is_that_of_another_row: every text gets the language tag of the request before it [S11].",
    asking(with_the_tag_before),
    plan=SENTENCES,
)
