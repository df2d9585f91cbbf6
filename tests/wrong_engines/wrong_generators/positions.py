"""Positions: of the rotary embedding, which counts the whole sequence, and of the table for speech, which counts it."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.generation.block import Block
from sampler.t3.llama import Llama
from sampler.t3.model import T3

from .table import ANYTHING, SENTENCES, UNSEEN, Factory, remade, with_block, wrong_generators


def with_backbone(kind: type[Llama]) -> Factory:
    class Changed(Block):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.model = remade(self.model, T3, backbone=remade(self.model.backbone, kind))

    return with_block(Changed)


def with_model(kind: type[T3], **fields: Any) -> Factory:
    class Changed(Block):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.model = remade(self.model, kind)

    return with_block(Changed, **fields)


class Elsewhere:
    """A cache that says other positions than it has."""

    def __init__(self, cache: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.cache, self.change, self.attend, self.advance = cache, change, cache.attend, cache.advance

    def begin(self) -> np.ndarray:
        return self.change(self.cache.begin())


def moved(change: Callable[[np.ndarray], np.ndarray]) -> Factory:
    """Positions of single steps changed; a prefill is right."""

    class Moved(Llama):
        def step(self, embeddings: mx.array, cache: Any, *further: Any) -> Any:
            return super().step(embeddings, Elsewhere(cache, change), *further)

    return with_backbone(Moved)


class LaterAhead:
    """A cache whose layers turn by the next position, except the first one."""

    def __init__(self, cache: Any, angles: Callable[[np.ndarray], Any]) -> None:
        self.cache, self.angles, self.advance = cache, angles, cache.advance

    def begin(self) -> np.ndarray:
        self.positions = self.cache.begin()
        return self.positions

    def attend(self, layer: int, joint: mx.array, angles: Any, heads: Sequence[int]) -> Any:
        return self.cache.attend(layer, joint, self.angles(self.positions + 1) if layer else angles, heads)


class UpperLayersAhead(Llama):
    """The first layer is asked with the position, all others with the next one."""

    def step(self, embeddings: mx.array, cache: Any, *further: Any) -> Any:
        return super().step(embeddings, LaterAhead(cache, self._angles), *further)


def at_positions(change: Callable[[int], int]) -> Factory:
    """The table of speech positions is read elsewhere; the prompt of the voice, a range of positions, is right."""

    class Model(T3):
        def embed_speech(self, tokens: Sequence[int], positions: Sequence[int]) -> mx.array:
            given = isinstance(positions, range)
            return super().embed_speech(tokens, positions if given else [change(position) for position in positions])

    return with_model(Model)


HIDDEN = {"unseen": UNSEEN}

wrong_generators(
    ANYTHING,
    "rotary_is_one_ahead_after_the_prefill: "
    "the offset of the cache is one too large, so that speech stands one position further off [K02].",
    moved(lambda positions: positions + 1),
    HIDDEN,
    "rotary_counts_in_twos: "
    "the offset is added twice, by the cache and by the layer: a step at position 80 is turned as 160 [K02].",
    moved(lambda positions: 2 * positions),
    "rotary_stays_at_0: every step is turned as position 0 [K01].",
    moved(np.zeros_like),
    "rotary_starts_anew_every_25_positions: positions count from the last chunk of 25, not from the beginning [K05].",
    moved(lambda positions: positions % 25),
    "upper_layers_are_one_ahead: "
    "the first layer counts the position, so that all further ones stand at the next [K04].",
    with_backbone(UpperLayersAhead),
    HIDDEN,
    "speech_stays_at_position_0: every token gets the speech position 0, as in a port to a server that had none [K01].",
    at_positions(lambda position: 0),
    "speech_is_one_position_behind: token i stands at speech position i, where BOS is, not at i + 1 [K05].",
    at_positions(lambda position: max(0, position - 1)),
    HIDDEN,
    "speech_positions_wrap_at_16: "
    "the table of speech positions has 16 rows, and whoever is further begins again [K05].",
    at_positions(lambda position: position % 16),
    HIDDEN,
    plan=SENTENCES,
)
