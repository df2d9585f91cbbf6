"""Keys and values that are lost, moved or belong to someone else, and tokens that are fed wrongly."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.t3.cache import KeyValueCache

from .table import (
    ANYTHING,
    FEW,
    PARAGRAPHS,
    SENTENCES,
    UNSEEN,
    Factory,
    answering,
    cut,
    remade,
    with_block,
    wrong_generators,
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


class NeighboursMeet(Block):
    """Two slots whose runs are both at token 3 exchange what they remember."""

    def _step(self, slots: Sequence[Slot | None]) -> None:
        for one, other in zip(slots[::2], slots[1::2], strict=False):
            if one is not None and other is not None and len(one.tokens) == len(other.tokens) == 3:
                one.cache, other.cache = other.cache, one.cache
        super()._step(slots)


def showing(change: Callable[[KeyValueCache, mx.array, mx.array], Pair]) -> Factory:
    """Attention reads what `change` makes of all keys and values."""

    class Changed(KeyValueCache):
        def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
            return change(self, *super().append(layer, keys, values))

    return with_cache(Changed)


def last(most: int) -> Factory:
    return showing(lambda cache, keys, values: (keys[:, :, -most:], values[:, :, -most:]))


class Holes(KeyValueCache):
    """Every other step leaves zeros where its keys and values should be."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        if (self.length - self.start) % 2 == 1:
            keys, values = mx.zeros_like(keys), mx.zeros_like(values)
        return super().append(layer, keys, values)


class Overwrites(KeyValueCache):
    """Does not move on; positions are those of the step after the prefill."""

    def advance(self, count: int) -> None:
        super().advance(count if self.length == self.start else 0)


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


wrong_generators(
    ANYTHING,
    "swaps_the_rows_of_the_cache: "
    "after the prefill keys and values of the conditional and the unconditional row are exchanged [K10].",
    after_prefill(row_swapped),
    "takes_the_cache_of_its_neighbour: "
    "when the batch is put together anew after 3 tokens, keys and values go to the neighbour's slot [P15].",
    with_block(NeighboursMeet, attention="mlx"),
    "remembers_48_positions: "
    "a rotating cache of 48 positions, from which voice and text fall out while they are read [K07].",
    last(48),
    "remembers_192_positions: "
    "a rotating cache of 192 positions: sentences are right, and of longer texts the beginning is lost [K07].",
    last(192),
    {"plan": PARAGRAPHS, "cap": 240, "unseen": UNSEEN},
    "leaves_holes_in_the_cache: every other position is never written and read as zeros [K12].",
    with_cache(Holes),
    "first_step_overwrites_the_prefill: "
    "the length of the cache is one too small, and the first token is written over the last BOS [K10].",
    after_prefill(lambda cache: remade(cache, KeyValueCache, length=cache.length - 1)),
    {"unseen": UNSEEN},
    "reads_the_cache_one_short: "
    "the cache is read up to its old length, so that no token sees its own keys and values [K10].",
    showing(lambda cache, keys, values: (keys[:, :, :-1], values[:, :, :-1])),
    {"unseen": UNSEEN},
    "overwrites_the_step_before: "
    "the offset of the cache stands still after the first step, and each step writes over the last one [K10].",
    with_cache(Overwrites),
    {"plan": FEW},
    "attends_three_times_as_sharply: "
    "another kernel takes over at a length of 10, with three times the scale of the attention [K09].",
    showing(lambda cache, keys, values: (keys * 3 if cache.length - cache.start >= 10 else keys, values)),
    "feeds_the_token_before_the_last: the loop looks ahead, and every step is fed the token before the last one [R11].",
    feeding(lambda tokens: tokens[-2:][0]),
    "feeds_every_tenth_token_twice: "
    "at the end of each chunk of ten the last token is fed in place of the newest [K12].",
    feeding(lambda tokens: tokens[-2] if len(tokens) % 10 == 0 else tokens[-1]),
    "loses_the_first_token: the token that comes with the prefill is fed and not given back [E07].",
    answering(lambda generation: cut(generation, slice(1, None))),
    {"questions": ("drift/length", "drift/tokens", "drift/bigrams")},
    plan=SENTENCES,
)
