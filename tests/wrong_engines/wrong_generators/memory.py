"""Keys and values that are lost, moved or belong to someone else, and tokens that are fed wrongly."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from sampler.generation.block import Block
from sampler.generation.generator import Generator
from sampler.generation.slot import Slot
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint
from tests.wrong_engines.wrong_generators.table import (
    ANYTHING,
    PARAGRAPHS,
    SENTENCES,
    UNSEEN,
    Around,
    Factory,
    remade,
    with_block,
    wrong_generator,
)

Pair = tuple[mx.array, mx.array]


def after_prefill(change: Callable[[KeyValueCache], KeyValueCache]) -> Factory:
    class Changed(Block):
        def _admit(self, queue: deque[int], place: int) -> Slot | None:
            slot = super()._admit(queue, place)
            if slot is not None:
                slot.cache = change(slot.cache)
            return slot

    return with_block(Changed, attention="mlx")


def with_cache(kind: type[KeyValueCache], **attributes: Any) -> Factory:
    return after_prefill(lambda cache: remade(cache, kind, start=cache.length, **attributes))


def row_swapped(cache: KeyValueCache) -> KeyValueCache:
    changes = {name: [array[::-1] for array in vars(cache)[name]] for name in ("_keys", "_values")}
    return remade(cache, KeyValueCache, **changes)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def swaps_the_rows_of_the_cache(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: after the prefill keys and values of the conditional and the unconditional row are exchanged [K10]."""
    return after_prefill(row_swapped)(checkpoint, width)


class NeighboursMeet(Block):
    """Two slots whose runs are both at token 3 exchange what they remember."""

    def _step(self, slots: Sequence[Slot | None]) -> None:
        for one, other in zip(slots[::2], slots[1::2], strict=False):
            if one is not None and other is not None and len(one.tokens) == len(other.tokens) == 3:
                one.cache, other.cache = other.cache, one.cache
        super()._step(slots)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def takes_the_cache_of_its_neighbour(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: when the batch is put together anew after 3 tokens, keys and values go to the neighbour's slot [P15]."""
    return with_block(NeighboursMeet, attention="mlx")(checkpoint, width)


class Window(KeyValueCache):
    """Gives the last `most` positions."""

    most: int

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        return tuple(array[:, :, -self.most :] for array in super().append(layer, keys, values))


@wrong_generator(*ANYTHING, plan=SENTENCES)
def remembers_48_positions(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: a rotating cache of 48 positions, from which voice and text fall out while they are read [K07]."""
    return with_cache(Window, most=48)(checkpoint, width)


@wrong_generator(*ANYTHING, plan=PARAGRAPHS, cap=240, unseen=UNSEEN)
def remembers_192_positions(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: a rotating cache of 192 positions: sentences are right, and of longer texts the beginning is lost [K07]."""
    return with_cache(Window, most=192)(checkpoint, width)


class Holes(KeyValueCache):
    """Every other step leaves zeros where its keys and values should be."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        if (self.length - self.start) % 2 == 1:
            keys, values = mx.zeros_like(keys), mx.zeros_like(values)
        return super().append(layer, keys, values)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def leaves_holes_in_the_cache(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: every other position is never written and read as zeros [K12]."""
    return with_cache(Holes)(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES, unseen=UNSEEN)
def first_step_overwrites_the_prefill(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the length of the cache is one too small, and the first token is written over the last BOS [K10]."""
    return after_prefill(lambda cache: remade(cache, KeyValueCache, length=cache.length - 1))(checkpoint, width)


class OneShort(KeyValueCache):
    """Gives what was there before the step."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        return tuple(array[:, :, :-1] for array in super().append(layer, keys, values))


@wrong_generator(*ANYTHING, plan=SENTENCES, unseen=UNSEEN)
def reads_the_cache_one_short(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the cache is read up to its old length, so that no token sees its own keys and values [K10]."""
    return with_cache(OneShort)(checkpoint, width)


class Overwrites(KeyValueCache):
    """Does not move on; positions are those of the step after the prefill."""

    def advance(self, count: int) -> None:
        super().advance(count if self.length == self.start else 0)


@wrong_generator(*ANYTHING)
def overwrites_the_step_before(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the offset of the cache stands still after the first step, and each step writes over the last one [K10]."""
    return with_cache(Overwrites)(checkpoint, width)


class Scaled(KeyValueCache):
    """From the 10th step on all keys are three times as large, as if the scale of the attention were."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        every, own = super().append(layer, keys, values)
        return (every * 3 if self.length - self.start >= 10 else every), own


@wrong_generator(*ANYTHING, plan=SENTENCES)
def attends_three_times_as_sharply(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: another kernel takes over at a length of 10, with three times the scale of the attention [K09]."""
    return with_cache(Scaled)(checkpoint, width)


def feeding(change: Callable[[list[int]], int]) -> Factory:
    """The model is fed something else than the token that was drawn."""

    class Changed(Block):
        def _step(self, slots: Sequence[Slot | None]) -> None:
            shown = [slot and replace(slot, tokens=[*slot.tokens[:-1], change(slot.tokens)]) for slot in slots]
            super()._step(shown)
            for slot, other in zip(slots, shown, strict=True):
                if slot is not None and other is not None:
                    slot.logits, slot.attention = other.logits, other.attention

    return with_block(Changed)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def feeds_the_token_before_the_last(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: the loop looks ahead, and every step is fed the token before the last one [R11]."""
    return feeding(lambda tokens: tokens[-2:][0])(checkpoint, width)


@wrong_generator(*ANYTHING, plan=SENTENCES)
def feeds_every_tenth_token_twice(checkpoint: Checkpoint, width: int) -> Generator:
    """Lie: at the end of each chunk of ten the last token is fed in place of the newest [K12]."""
    return feeding(lambda tokens: tokens[-2] if len(tokens) % 10 == 0 else tokens[-1])(checkpoint, width)


@wrong_generator("drift/length", "drift/tokens", "drift/bigrams", plan=SENTENCES)
def loses_the_first_token(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: the token that comes with the prefill is fed and not given back [E07]."""

    def answer(generation: Any) -> Any:
        record = generation.record
        kept = {name: getattr(record, name)[1:] for name in ("logprob", "rank", "entropy", "margin")}
        return replace(generation, tokens=generation.tokens[1:], record=replace(record, **kept))

    return Around(Generator(checkpoint, width), answer=answer)
