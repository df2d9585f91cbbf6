"""What both backbones share: all rows of a step share each matrix product, each request attends to its own cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.cache import KeyValueCache
from sampler.t3.config import T3Config

Tap = Callable[[str, mx.array], None]
"""Receives intermediate values by name: `embeddings`, `layers.0` ..., `norm`."""


def no_tap(name: str, value: mx.array) -> None:
    """Ignore an intermediate value."""


@dataclass(frozen=True)
class AttentionRequest:
    """Which attention to return. heads: (layer, head) pairs; queries: how many of the last query rows."""

    heads: Sequence[tuple[int, int]] = ()
    queries: int = 1


class DecoderLayer(Protocol):
    """A layer without its attention."""

    def projections(self, hidden: mx.array) -> mx.array:
        """Queries, keys and values side by side, from the normed input: (N, D) -> (N, 3D)."""
        ...

    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        """Output projection of the attention and MLP, with their residuals: (N, D), (N, D) -> (N, D)."""
        ...


class Backbone(ABC):
    """A decoder on rows of embeddings, without a token embedding; in the type of its weights."""

    layers: Sequence[DecoderLayer]

    def __init__(self, config: T3Config) -> None:
        self.config = config
        self._scale = config.head_size**-0.5

    def _enter(self, embeddings: mx.array, positions: NDArray[np.int64]) -> mx.array:  # noqa: ARG002
        """What the first layer reads: (rows, L, D) -> (rows, L, D); positions: (rows or 1, L)."""
        return embeddings

    def _turn(self, positions: NDArray[np.int64]) -> Callable[[mx.array], mx.array]:  # noqa: ARG002
        """What is done to queries and keys (rows, heads, L, head_size) at positions (rows or 1, L)."""
        return lambda rows: rows

    @abstractmethod
    def _leave(self, hidden: mx.array) -> mx.array:
        """Final norm, (N, D) -> (N, D)."""

    def prefill(
        self,
        embeddings: mx.array,
        cache: KeyValueCache,
        attention: AttentionRequest = AttentionRequest(),
        tap: Tap = no_tap,
    ) -> tuple[mx.array, list[mx.array]]:
        """Run a whole prefix through an empty cache.

        embeddings: (rows, L, D). Returns the normed hidden states (rows, L, D), and for each pair of `attention` the
        attention of the conditional row's last queries, (queries, L).
        """
        rows, length, width = embeddings.shape
        positions = np.arange(length)[None]
        turn, entered = self._turn(positions), self._enter(embeddings, positions)
        tap("embeddings", entered)
        hidden = entered.reshape(rows * length, width)
        kept: dict[tuple[int, int], mx.array] = {}
        for index, layer in enumerate(self.layers):
            query, key, value = self._heads(layer.projections(hidden), (rows, length))
            query, key = turn(query), turn(key)
            keys, values = cache.append(index, key, value)
            mixed = mx.fast.scaled_dot_product_attention(query, keys, values, scale=self._scale, mask="causal")
            mixed = mixed.transpose(0, 2, 1, 3).reshape(rows * length, width)
            hidden = layer.rest(hidden, mixed)
            kept |= self._attention_of(attention, index, query[0], keys[0])
            tap(f"layers.{index}", hidden.reshape(rows, length, width))
        cache.advance(length)
        normed = self._leave(hidden).reshape(rows, length, width)
        tap("norm", normed)
        return normed, [kept[pair] for pair in attention.heads]

    def step(
        self,
        embeddings: mx.array,
        caches: Sequence[KeyValueCache | None],
        rows_per_slot: int,
        attention: AttentionRequest = AttentionRequest(),
        tap: Tap = no_tap,
    ) -> tuple[mx.array, list[list[mx.array]]]:
        """Run one new position of every slot.

        embeddings: (slots * rows_per_slot, D); the rows of a slot stand together. caches: one for each slot, None
        where it is idle: its rows go through the matrix products, whose width never changes, and attend to nothing.
        Returns the normed hidden states, and for each slot the attention (1, length) of each pair of `attention`.
        """
        lengths = [0 if cache is None else cache.length for cache in caches]
        positions = np.repeat(lengths, rows_per_slot)[:, None]
        turn, hidden = self._turn(positions), self._enter(embeddings[:, None], positions)[:, 0]
        tap("embeddings", hidden)
        kept: list[dict[tuple[int, int], mx.array]] = [{} for _ in caches]
        for index, layer in enumerate(self.layers):
            query, key, value = self._heads(layer.projections(hidden), (hidden.shape[0], 1))
            query, key = turn(query), turn(key)
            parts = []
            for slot, cache in enumerate(caches):
                own = slice(slot * rows_per_slot, (slot + 1) * rows_per_slot)
                if cache is None:
                    parts.append(mx.zeros_like(query[own]))
                    continue
                keys, values = cache.append(index, key[own], value[own])
                parts.append(mx.fast.scaled_dot_product_attention(query[own], keys, values, scale=self._scale))
                kept[slot] |= self._attention_of(attention, index, query[own][0], keys[0])
            hidden = layer.rest(hidden, mx.concatenate(parts).reshape(hidden.shape))
            tap(f"layers.{index}", hidden)
        for cache in caches:
            if cache is not None:
                cache.advance(1)
        normed = self._leave(hidden)
        tap("norm", normed)
        return normed, [[found[pair] for pair in attention.heads if pair in found] for found in kept]

    def _heads(self, joint: mx.array, shape: tuple[int, int]) -> list[mx.array]:
        """Queries, keys and values of a layer, each (rows, heads, length, head_size)."""
        apart = joint.reshape(*shape, 3, self.config.num_heads, self.config.head_size)
        return [apart[:, :, part].transpose(0, 2, 1, 3) for part in range(3)]

    def _attention_of(
        self, attention: AttentionRequest, layer: int, query: mx.array, keys: mx.array
    ) -> dict[tuple[int, int], mx.array]:
        """Softmax rows of the chosen heads of this layer alone; query (heads, T, size), keys (heads, L, size)."""
        wanted = [(at, head) for at, head in attention.heads if at == layer]
        count = min(attention.queries, query.shape[1])
        length = keys.shape[1]
        future = mx.arange(length)[None] > mx.arange(length - count, length)[:, None]
        result = {}
        for pair in wanted:
            scores = (query[pair[1], -count:] @ keys[pair[1]].T).astype(mx.float32) * self._scale
            result[pair] = mx.softmax(mx.where(future, -mx.inf, scores), axis=-1)
        return result
