"""Positions: of the rotary embedding, which counts the whole sequence, and of the table for speech, which counts it."""

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.generation import Generator, _Block
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.llama import Llama
from sampler.t3.model import T3
from tests.liars.wrong_generators.table import ANYTHING, SENTENCES, UNSEEN, Factory, remade, with_block, wrong_generator

Turn = Callable[[mx.array], mx.array]


def with_backbone(kind: type[Llama]) -> Factory:
    class Block(_Block):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.model = remade(self.model, T3, backbone=remade(self.model.backbone, kind))

    return with_block(Block)


def with_model(kind: type[T3]) -> Factory:
    class Block(_Block):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.model = remade(self.model, kind)

    return with_block(Block)


def moved(change: Callable[[np.ndarray], np.ndarray]) -> Factory:
    """Positions of single steps changed; a prefill, which has many, is right."""

    class Moved(Llama):
        def _turn(self, positions: np.ndarray) -> Turn:
            return super()._turn(change(positions) if positions.shape[1] == 1 else positions)

    return with_backbone(Moved)


@wrong_generator(*ANYTHING, plan=SENTENCES, unseen=UNSEEN)
def rotary_is_one_ahead_after_the_prefill(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the offset of the cache is one too large, so that speech stands one position further off [K02]."""
    return moved(lambda positions: positions + 1)(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def rotary_counts_in_twos(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the offset is added twice, by the cache and by the layer: a step at position 80 is turned as 160 [K02]."""
    return moved(lambda positions: 2 * positions)(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def rotary_stays_at_0(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: every step is turned as position 0 [K01]."""
    return moved(np.zeros_like)(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def rotary_starts_anew_every_25_positions(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: positions count from the last chunk of 25, not from the beginning [K05]."""
    return moved(lambda positions: positions % 25)(checkpoint, width)


class UpperLayersAhead(Llama):
    """The first layer asks twice, for queries and keys; whoever asks later gets the next position."""

    def _turn(self, positions: np.ndarray) -> Turn:
        if positions.shape[1] > 1:
            return super()._turn(positions)
        turns = chain([super()._turn(positions)] * 2, repeat(super()._turn(positions + 1)))

        def turn(rows: mx.array) -> mx.array:
            return next(turns)(rows)

        return turn


@wrong_generator(*ANYTHING, plan=SENTENCES, unseen=UNSEEN)
def upper_layers_are_one_ahead(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the first layer counts the position, so that all further ones stand at the next [K04]."""
    return with_backbone(UpperLayersAhead)(checkpoint, width)


def at_positions(change: Callable[[int], int]) -> Factory:
    """The table of speech positions is read elsewhere; the prompt of the voice, a range of positions, is right."""

    class Model(T3):
        def embed_speech(self, tokens: Sequence[int], positions: Sequence[int]) -> mx.array:
            given = isinstance(positions, range)
            return super().embed_speech(tokens, positions if given else [change(position) for position in positions])

    return with_model(Model)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def speech_stays_at_position_0(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: every token gets the speech position 0, as in a port to a server that had none [K01]."""
    return at_positions(lambda position: 0)(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES, unseen=UNSEEN)
def speech_is_one_position_behind(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: token i stands at speech position i, where BOS is, not at i + 1 [K05]."""
    return at_positions(lambda position: max(0, position - 1))(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES, unseen=UNSEEN)
def speech_positions_wrap_at_16(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the table of speech positions has 16 rows, and whoever is further begins again [K05]."""
    return at_positions(lambda position: position % 16)(checkpoint, width)
