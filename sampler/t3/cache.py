"""Keys and values of single requests in MLX arrays, for any device and dtype."""

import copy
from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.config import T3Config
from sampler.t3.rotary import Angles, rotate

GROWTH = 256

AttentionRow = mx.array | NDArray[np.float32]

Part = list[tuple[mx.array, mx.array]]
"""Keys and values of consecutive positions, (rows, heads, positions, head_size), layer by layer."""


class KeyValueCache:
    """Keys and values of `rows` sequences of equal length (one, or a conditional and an unconditional one).

    Every layer has two arrays (rows, heads, capacity, head_size) with the dtype of the keys and values; the capacity
    grows by 256 positions at a time.

    identity: an object that no other cache has.
    """

    def __init__(self, config: T3Config, rows: int) -> None:
        self.rows = rows
        self.length = 0
        self.identity = object()
        self._shape = (rows, config.num_heads, 0, config.head_size)
        self._keys = [mx.zeros(self._shape) for _ in range(config.num_layers)]
        self._values = [mx.zeros(self._shape) for _ in range(config.num_layers)]

    def append(self, layer: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write (rows, heads, T, head_size) at the end of one layer and return all of that layer's keys and values.

        Call `advance` once every layer was written.
        """
        end = self.length + keys.shape[2]
        if end > self._keys[layer].shape[2]:
            self._grow(layer, end, keys.dtype)
        self._keys[layer][:, :, self.length : end] = keys
        self._values[layer][:, :, self.length : end] = values
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        """Count `count` positions as written in every layer."""
        self.length += count

    def arrays(self) -> list[mx.array]:
        return [*self._keys, *self._values]

    def layers(self) -> list[tuple[mx.array, mx.array]]:
        """Keys and values of each layer, (rows, heads, length, head_size)."""
        pairs = zip(self._keys, self._values, strict=True)
        return [(keys[:, :, : self.length], values[:, :, : self.length]) for keys, values in pairs]

    def since(self, start: int) -> Part:
        """Copies of each layer's keys and values from position `start` on."""
        pairs = [[mx.contiguous(array[:, :, start:]) for array in pair] for pair in self.layers()]
        mx.eval(pairs)
        return [(keys, values) for keys, values in pairs]

    @classmethod
    def of(cls, config: T3Config, rows: int, parts: "Sequence[Part]") -> "KeyValueCache":
        """A cache with the parts from `since`, concatenated."""
        cache = cls(config, rows)
        for layer, pairs in enumerate(zip(*parts, strict=True)):
            cache.append(layer, *(mx.concatenate(list(part), axis=2) for part in zip(*pairs, strict=True)))
        cache.advance(sum(part[0][0].shape[2] for part in parts))
        return cache

    @classmethod
    def joined(cls, config: T3Config, caches: "Sequence[KeyValueCache]") -> "KeyValueCache":
        """One cache with the rows of several, which have equal length."""
        whole = cls(config, sum(cache.rows for cache in caches))
        for name in ("_keys", "_values"):
            layers = zip(*(vars(cache)[name] for cache in caches), strict=True)
            setattr(whole, name, [mx.concatenate(list(part)) for part in layers])
        whole.advance(caches[0].length)
        return whole

    def copy(self) -> "KeyValueCache":
        """An independent cache that continues from here; MLX copies an array when one of the two writes to it."""
        twin = copy.copy(self)
        twin.identity = object()
        vars(twin).update({name: [mx.array(part) for part in vars(self)[name]] for name in ("_keys", "_values")})
        return twin

    def _grow(self, layer: int, needed: int, dtype: mx.Dtype) -> None:
        more = -(-needed // GROWTH) * GROWTH - self._keys[layer].shape[2]
        empty = mx.zeros((*self._shape[:2], more, self._shape[3]), dtype)
        self._keys[layer] = mx.concatenate([self._keys[layer].astype(dtype), empty], axis=2)
        self._values[layer] = mx.concatenate([self._values[layer].astype(dtype), empty], axis=2)


class DecodeCache(Protocol):
    """The cache for one step of all slots."""

    def begin(self) -> NDArray[np.int64]:
        """Prepare a step; returns the position of the new row of each sequence, (N,), 0 for an idle slot."""

    def attend(
        self, layer: int, joint: mx.array, angles: Angles | None, heads: Sequence[int]
    ) -> tuple[mx.array, Sequence[Sequence[AttentionRow | None]]]:
        """Write one position of a layer and attend to all.

        joint: queries, keys and values side by side, (N, 3D). angles: rotation of queries and keys, (N, head_size)
        each. Returns the result of attention, (N, D), zeros for idle slots, and for each of `heads` the attention of
        each slot's first row, (1, length), None for an idle slot.
        """

    def advance(self) -> None:
        """Count one position as written in every layer."""


class SeparateCaches:
    """A cache for each slot, None if it is idle; MLX computes the attention of each one separately."""

    def __init__(self, config: T3Config, caches: Sequence[KeyValueCache | None], rows_per_slot: int) -> None:
        self.config, self.caches, self.rows_per_slot = config, list(caches), rows_per_slot

    def begin(self) -> NDArray[np.int64]:
        return np.repeat([0 if cache is None else cache.length for cache in self.caches], self.rows_per_slot)

    def attend(
        self, layer: int, joint: mx.array, angles: Angles | None, heads: Sequence[int]
    ) -> tuple[mx.array, list[list[AttentionRow | None]]]:
        apart = joint.reshape(joint.shape[0], 3, self.config.num_heads, 1, self.config.head_size)
        query, key, value = (apart[:, part] for part in range(3))
        if angles is not None:
            cosine, sine = (mx.array(table)[:, None, None] for table in angles)
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        mixed: list[mx.array] = []
        kept: list[list[AttentionRow | None]] = [[] for _ in heads]
        for slot, cache in enumerate(self.caches):
            own = slice(slot * self.rows_per_slot, (slot + 1) * self.rows_per_slot)
            if cache is None:
                mixed.append(mx.zeros_like(query[own]))
                for rows in kept:
                    rows.append(None)
                continue
            keys, values = cache.append(layer, key[own], value[own])
            scale = self.config.head_size**-0.5
            mixed.append(mx.fast.scaled_dot_product_attention(query[own], keys, values, scale=scale))
            for rows, head in zip(kept, heads, strict=True):
                rows.append(attention_rows(query[own][0, head], keys[0, head]))
        return mx.concatenate(mixed).reshape(joint.shape[0], -1), kept

    def advance(self) -> None:
        for cache in self.caches:
            if cache is not None:
                cache.advance(1)


def attention_rows(queries: mx.array, keys: mx.array) -> mx.array:
    """Attention of the last queries (T, head_size) of a sequence to its keys (L, head_size): float32 (T, L)."""
    count, length = queries.shape[0], keys.shape[0]
    future = mx.arange(length)[None] > mx.arange(length - count, length)[:, None]
    scores = (queries @ keys.T).astype(mx.float32) * keys.shape[1] ** -0.5
    return mx.softmax(mx.where(future, -mx.inf, scores), axis=-1)
