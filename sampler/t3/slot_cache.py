"""Keys and values of all slots of a block on the CPU, written in place and read by one kernel."""

import itertools
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.errors import TextError
from sampler.runtime.threads import in_parts
from sampler.t3.cache import AttentionRow, KeyValueCache
from sampler.t3.config import T3Config
from sampler.t3.kernels import PART, QUERIES, TILE, attend
from sampler.t3.rotary import Angles

IDLE = -1


class SlotCache:
    """Up to `capacity` positions of every slot, in float32; memory is taken part by part, as positions are written.

    Slots have a copy each of what their prefixes have in common, and a step reads its full tiles from one of them,
    while they are in a processor's cache.

    rows_per_slot: 2 with guidance (conditional, unconditional), else 1. threads: they share the rows of a step; each
    row is computed by one of them, so results do not depend on their number.
    """

    def __init__(self, config: T3Config, slots: int, rows_per_slot: int, capacity: int, threads: int = 1) -> None:
        self.slots, self.rows_per_slot = slots, rows_per_slot
        rows, heads, size = slots * rows_per_slot, config.num_heads, config.head_size
        self._capacity, parts = capacity, -(-capacity // (PART * TILE))
        self._keys = [np.zeros((parts, rows, PART, heads, size, TILE), np.float32) for _ in range(config.num_layers)]
        self._values = [np.zeros((parts, rows, PART, heads, TILE, size), np.float32) for _ in range(config.num_layers)]
        self._lengths = np.full(rows, IDLE)
        self._prefixes = [object() for _ in range(slots)]
        self._common, self._begun = np.zeros((slots, rows_per_slot), np.int64), np.zeros(slots, np.int64)
        self._order = self._alike()
        self._mixed = np.zeros((rows, heads, size), np.float32)
        self._straight = np.ones((rows, size), np.float32), np.zeros((rows, size), np.float32)
        self._threads = threads
        self._cuts: list[int] = []

    def fill(self, slot: int, prefix: KeyValueCache, common: Sequence[int] | int = 0) -> None:
        """Set the keys and values of a slot to those of a prefix.

        common: how many first positions of each row are those of every slot that has so many in common.
        """
        self._check(prefix.length)
        own = slice(slot * self.rows_per_slot, (slot + 1) * self.rows_per_slot)
        tiles = -(-prefix.length // TILE)
        mx.eval(prefix.arrays())
        for layer, (keys, values) in enumerate(prefix.layers()):
            pairs = (self._keys, _in_tiles(keys, tiles).swapaxes(3, 4)), (self._values, _in_tiles(values, tiles))
            for (written, given), first in itertools.product(pairs, range(0, tiles, PART)):
                part = given[:, first : first + PART]
                written[layer][first // PART, own, : part.shape[1]] = part
        self._lengths[own] = prefix.length
        self._prefixes[slot], self._common[slot], self._begun[slot] = prefix.identity, common, prefix.length

    def release(self, slot: int) -> None:
        self._lengths[slot * self.rows_per_slot : (slot + 1) * self.rows_per_slot] = IDLE
        self._prefixes[slot], self._common[slot] = object(), 0

    def begin(self) -> NDArray[np.int64]:
        """See `DecodeCache`. Raises TextError if a sequence is full."""
        self._check(int(self._lengths.max()) + 1)
        self._order = self._alike()
        self._cuts = self._equal_parts()
        positions: NDArray[np.int64] = np.maximum(self._lengths, 0)
        return positions

    def attend(
        self, layer: int, joint: mx.array, angles: Angles | None, heads: Sequence[int]
    ) -> tuple[mx.array, list[list[AttentionRow | None]]]:
        """Write one position of a layer and attend to all; see `DecodeCache.attend`. Waits for `joint`."""
        keys, values = self._keys[layer], self._values[layer]
        rows = values.shape[1]
        kept = np.empty((self.slots, len(heads), self._capacity if heads else 0), np.float32)
        apart = np.asarray(joint).reshape(rows, 3, *self._mixed.shape[1:])
        cosine, sine = angles or self._straight
        wanted = np.array(heads, dtype=np.int64)

        def work(first: int, last: int) -> None:
            attend(
                apart, cosine, sine, keys, values, self._lengths, self._order[first:last], self._mixed, wanted,
                self.rows_per_slot, kept,
            )  # fmt: skip

        in_parts(work, rows, self._threads, self._cuts)
        return mx.array(self._mixed.reshape(rows, -1)), [self._rows(kept[:, place]) for place in range(len(heads))]

    def advance(self) -> None:
        self._lengths[self._lengths != IDLE] += 1

    def _check(self, length: int) -> None:
        if length > self._capacity:
            raise TextError(f"{length} positions", hint=f"the cache was made for {self._capacity}")

    def _alike(self) -> NDArray[np.int64]:
        """The rows in the order of a step, (rows, 3); see `kernels.attend`. Those that read the same follow each other.

        A row reads the first tiles of the first slot with the same prefix, or of the one with most in common.
        """
        seen: dict[object, int] = {}
        slots, own = np.arange(self.slots)[:, None], np.arange(self.rows_per_slot)
        first = np.array([seen.setdefault(prefix, slot) for slot, prefix in enumerate(self._prefixes)])[:, None]
        like = np.where(first == slots, self._common.argmax(axis=0), first)
        shared = np.where(first == slots, self._common, self._begun[:, None]) // TILE
        rows = np.stack([slots * len(own) + own, like * len(own) + own, shared], axis=-1).reshape(-1, 3)
        return rows[np.lexsort((-rows[:, 2], rows[:, 1]))]

    def _rows(self, kept: NDArray[np.float32]) -> list[AttentionRow | None]:
        """The attention of each busy slot from (slots, capacity), before the new position is counted."""
        lengths = self._lengths[:: self.rows_per_slot]
        return [None if length == IDLE else row[None, : length + 1] for row, length in zip(kept, lengths, strict=True)]

    def _equal_parts(self) -> list[int]:
        """Where the rows of each thread end, so that all read about equally many positions of their own."""
        rows, _, shared = self._order.T
        work = np.cumsum(self._lengths[rows] + 1 - shared * TILE * (QUERIES - 1) // QUERIES)
        cuts: list[int] = np.searchsorted(work, work[-1] * np.arange(1, self._threads) / self._threads).tolist()
        return cuts


def _in_tiles(array: mx.array, tiles: int) -> NDArray[np.float32]:
    """(rows, heads, length, head_size), padded with zeros, as (rows, tiles, heads, TILE, head_size)."""
    rows, heads, length, size = array.shape
    padded = np.zeros((rows, heads, tiles * TILE, size), np.float32)
    padded[:, :, :length] = np.asarray(array)
    return padded.reshape(rows, heads, tiles, TILE, size).swapaxes(1, 2)
