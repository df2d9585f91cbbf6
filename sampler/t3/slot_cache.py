"""Keys and values of all slots of a block on the CPU, written in place and read by one kernel."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.errors import TextError
from sampler.runtime.threads import in_parts
from sampler.t3.cache import AttentionRow, KeyValueCache
from sampler.t3.config import T3Config
from sampler.t3.kernels import TILE, attend
from sampler.t3.rotary import Angles

IDLE = -1
FIRST = 256
"""Initial number of positions, so that a cell of sentences uses little memory."""


class SlotCache:
    """Up to `capacity` positions of every slot, in float32; it starts small and doubles when it is full.

    Slots that were filled with the same prefix have a copy each, and a step reads its full tiles from one of them while
    they are in a processor's cache.

    rows_per_slot: 2 with guidance (conditional, unconditional), else 1. threads: they share the rows of a step; each
    row is computed by one of them, so results do not depend on their number.
    """

    def __init__(self, config: T3Config, slots: int, rows_per_slot: int, capacity: int, threads: int = 1) -> None:
        self.slots, self.rows_per_slot = slots, rows_per_slot
        rows, heads, size = slots * rows_per_slot, config.num_heads, config.head_size
        self._capacity, self._room = capacity, 0
        self._keys = [np.zeros((rows, 0, heads, size, TILE), np.float32) for _ in range(config.num_layers)]
        self._values = [np.zeros((rows, 0, heads, TILE, size), np.float32) for _ in range(config.num_layers)]
        self._lengths = np.full(rows, IDLE)
        self._prefixes: list[KeyValueCache | None] = [None] * slots
        self._order = self._alike()
        self._mixed = np.zeros((rows, heads, size), np.float32)
        self._straight = np.ones((rows, size), np.float32), np.zeros((rows, size), np.float32)
        self._threads = threads
        self._cuts: list[int] = []

    def fill(self, slot: int, prefix: KeyValueCache) -> None:
        """Set the keys and values of a slot to those of a prefix."""
        self._make_room(prefix.length)
        own = slice(slot * self.rows_per_slot, (slot + 1) * self.rows_per_slot)
        tiles = -(-prefix.length // TILE)
        mx.eval(prefix.arrays())
        for layer, (keys, values) in enumerate(prefix.layers()):
            self._keys[layer][own, :tiles] = _in_tiles(keys, tiles).swapaxes(3, 4)
            self._values[layer][own, :tiles] = _in_tiles(values, tiles)
        self._lengths[own] = prefix.length
        self._prefixes[slot], self._order = prefix, self._alike()

    def release(self, slot: int) -> None:
        self._lengths[slot * self.rows_per_slot : (slot + 1) * self.rows_per_slot] = IDLE
        self._prefixes[slot], self._order = None, self._alike()

    def begin(self) -> NDArray[np.int64]:
        """Make room for one position of each sequence; see `DecodeCache`. Raises TextError if one is full."""
        self._make_room(int(self._lengths.max()) + 1)
        self._cuts = self._equal_parts()
        positions: NDArray[np.int64] = np.maximum(self._lengths, 0)
        return positions

    def attend(
        self, layer: int, joint: mx.array, angles: Angles | None, heads: Sequence[int]
    ) -> tuple[mx.array, list[list[AttentionRow | None]]]:
        """Write one position of a layer and attend to all; see `DecodeCache.attend`. Waits for `joint`."""
        keys, values = self._keys[layer], self._values[layer]
        rows = values.shape[0]
        kept = np.empty((self.slots, len(heads), self._room if heads else 0), np.float32)
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

    def _make_room(self, length: int) -> None:
        """Ensure that `length` positions fit; existing ones are moved when the room doubles, layer by layer."""
        if length > self._capacity:
            raise TextError(f"{length} positions", hint=f"the cache was made for {self._capacity}")
        if length <= self._room:
            return
        tiles = -(-min(max(2 * self._room, length, FIRST), self._capacity) // TILE)
        used = self._room // TILE
        for arrays in (self._keys, self._values):
            for layer, old in enumerate(arrays):
                arrays[layer] = np.zeros((old.shape[0], tiles, *old.shape[2:]), np.float32)
                arrays[layer][:, :used] = old
        self._room = tiles * TILE

    def _alike(self) -> NDArray[np.int64]:
        """The rows in the order of a step, (rows, 3); see `kernels.attend`. Those of one prefix follow each other."""
        first: dict[KeyValueCache, int] = {}
        slots = [
            (slot, 0) if prefix is None else (first.setdefault(prefix, slot), prefix.length // TILE)
            for slot, prefix in enumerate(self._prefixes)
        ]
        like, tiles = np.repeat(slots, self.rows_per_slot, axis=0).T
        rows = np.arange(len(like))
        like = like * self.rows_per_slot + rows % self.rows_per_slot
        return np.stack([rows, like, tiles], axis=-1)[np.argsort(like, kind="stable")]

    def _rows(self, kept: NDArray[np.float32]) -> list[AttentionRow | None]:
        """The attention of each busy slot from (slots, capacity), before the new position is counted."""
        lengths = self._lengths[:: self.rows_per_slot]
        return [None if length == IDLE else row[None, : length + 1] for row, length in zip(kept, lengths, strict=True)]

    def _equal_parts(self) -> list[int]:
        """Where the rows of each thread end, so that all have about equally many positions."""
        work = np.cumsum(self._lengths[self._order[:, 0]] + 1)
        cuts: list[int] = np.searchsorted(work, work[-1] * np.arange(1, self._threads) / self._threads).tolist()
        return cuts


def _in_tiles(array: mx.array, tiles: int) -> NDArray[np.float32]:
    """(rows, heads, length, head_size), padded with zeros, as (rows, tiles, heads, TILE, head_size)."""
    rows, heads, length, size = array.shape
    padded = np.zeros((rows, heads, tiles * TILE, size), np.float32)
    padded[:, :, :length] = np.asarray(array)
    return padded.reshape(rows, heads, tiles, TILE, size).swapaxes(1, 2)
