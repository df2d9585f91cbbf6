"""The common part of both backbones: all rows of a step share each matrix product, each request has its own cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.branches import Branches
from sampler.t3.cache import AttentionRow, DecodeCache, KeyValueCache, attention_rows
from sampler.t3.config import T3Config
from sampler.t3.prefix_attention import causal_attention, span_attention, span_attention_rows
from sampler.t3.rotary import Angles, rotate

Tap = Callable[[str, mx.array], None]
"""Receives intermediate values by name: `embeddings`, `layers.0` ..., `norm`."""


def no_tap(name: str, value: mx.array) -> None:
    """Ignore an intermediate value."""


@dataclass(frozen=True)
class AttentionRequest:
    """Which attention to return. heads: (layer, head) pairs; queries: number of last query rows."""

    heads: Sequence[tuple[int, int]] = ()
    queries: int = 1

    def of_layer(self, layer: int) -> list[int]:
        return [head for at, head in self.heads if at == layer]


class DecoderLayer(Protocol):
    """A layer without its attention."""

    def projections(self, hidden: mx.array) -> mx.array:
        """Queries, keys and values side by side, from the normed input: (N, D) -> (N, 3D)."""

    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        """Output projection of the attention and MLP, with their residuals: (N, D), (N, D) -> (N, D)."""


class Backbone(ABC):
    """A decoder on rows of embeddings, without a token embedding; in the dtype of its weights."""

    layers: Sequence[DecoderLayer]

    def __init__(self, config: T3Config) -> None:
        self.config = config

    def _enter(self, embeddings: mx.array, positions: NDArray[np.int64]) -> mx.array:  # noqa: ARG002
        """The input of the first layer: (rows, L, D) -> (rows, L, D); positions: (rows or 1, L)."""
        return embeddings

    def _angles(self, positions: NDArray[np.int64]) -> Angles | None:  # noqa: ARG002
        """Rotation of queries and keys at positions (N,); None: no rotation."""
        return None

    @abstractmethod
    def _leave(self, hidden: mx.array) -> mx.array:
        """Final norm, (N, D) -> (N, D)."""

    def prefill(
        self,
        embeddings: mx.array,
        cache: KeyValueCache,
        attention: AttentionRequest = AttentionRequest(),
        tap: Tap = no_tap,
        *,
        last: int | None = None,
    ) -> tuple[mx.array, list[mx.array]]:
        """Run L positions of each sequence through a cache, after those that it already has.

        embeddings: (rows, L, D). last: number of last positions to return; None: all. Returns the normed hidden states
        (rows, last, D), and for each pair of `attention` the attention of the conditional row's last queries, (queries,
        all positions).
        """
        (normed,), kept = self.prefill_beside([(embeddings, cache)], attention, tap, last=last)
        return normed, kept

    def prefill_beside(
        self,
        stretches: Sequence[tuple[mx.array, KeyValueCache]],
        attention: AttentionRequest = AttentionRequest(),
        tap: Tap = no_tap,
        *,
        last: int | None = None,
    ) -> tuple[list[mx.array], list[mx.array]]:
        """As `prefill`, for several stretches, each with its own cache, which share the matrix products.

        stretches: embeddings (rows, L, D) and cache; L may differ. Returns the normed hidden states of each; attention
        and taps are those of the first one.
        """
        shapes = [embeddings.shape[:2] for embeddings, _ in stretches]
        positions = [np.arange(cache.length, cache.length + embeddings.shape[1]) for embeddings, cache in stretches]
        tables = [self._tables(part) for part in positions]
        entered = [self._enter(part, at[None]) for (part, _), at in zip(stretches, positions, strict=True)]
        tap("embeddings", entered[0])
        hidden = _flat(entered)
        kept: dict[tuple[int, int], mx.array] = {}
        for index, layer in enumerate(self.layers):
            joint = _apart(layer.projections(hidden), shapes)
            if layer is self.layers[-1] and last is not None:  # its other positions are not needed
                hidden = _flat([part[:, part.shape[1] - last :] for part in _apart(hidden, shapes)])
                shapes = [(rows, last) for rows, _ in shapes]
            mixed = []
            for place, (part, table, (_, cache), (_, count)) in enumerate(
                zip(joint, tables, stretches, shapes, strict=True)
            ):
                query, key, value = self._heads(part)
                if table is not None:
                    query, key = rotate(query, *table), rotate(key, *table)
                keys, values = cache.append(index, key, value)
                for head in attention.of_layer(index) if place == 0 else ():
                    kept[index, head] = attention_rows(query[0, head, -attention.queries :], keys[0, head])
                mixed.append(causal_attention(query[:, :, query.shape[2] - count :], keys, values))
            hidden = layer.rest(hidden, mx.concatenate(mixed))
            tap(f"layers.{index}", _apart(hidden, shapes)[0])
        for (_, cache), at in zip(stretches, positions, strict=True):
            cache.advance(len(at))
        normed = _apart(self._leave(hidden), shapes)
        tap("norm", normed[0])
        return normed, [kept[pair] for pair in attention.heads]

    def branches(
        self, branches: Branches, last: int, heads: Sequence[tuple[int, int]] = ()
    ) -> tuple[mx.array, list[list[mx.array]]]:
        """Run sequences that may share what they begin with, without a cache. Their new prefixes are kept.

        last: number of spans at the end whose hidden states are returned, normed, (M, D), and for each of them the
        attention of each pair of `heads`, (count, all positions of the sequence).
        """
        config, spans, known = self.config, branches.spans, branches.kept
        own = np.concatenate([span.positions for span in spans])
        positions = np.concatenate([*(np.arange(len(each[0])) for each in known), own])
        angles = self._angles(positions)
        hidden = self._enter(branches.rows[None], own[None])[0]
        asked, kept = spans[len(spans) - last :], dict[tuple[int, int], list[mx.array]]()
        for index, layer in enumerate(self.layers):
            joint = layer.projections(hidden).reshape(-1, 3, config.num_heads, config.head_size)
            if known:
                before = mx.concatenate([each[index] for each in known])
                joint = mx.concatenate([mx.concatenate([before[:, :1], before], axis=1), joint])
            branches.note(joint, len(self.layers))
            for head in AttentionRequest(heads).of_layer(index):
                kept[index, head] = [span_attention_rows(joint, angles, span, head) for span in asked]
            if layer is self.layers[-1]:  # its other positions are not needed
                spans, hidden = asked, hidden[asked[0].rows.start - len(positions) + len(own) :]
            hidden = layer.rest(hidden, span_attention(joint, angles, spans))
        return self._leave(hidden), [list(rows) for rows in zip(*(kept[pair] for pair in heads), strict=True)]

    def _tables(self, positions: NDArray[np.int64]) -> list[mx.array] | None:
        """The angles of positions (N,) for MLX; None: queries and keys are not rotated."""
        angles = self._angles(positions)
        return None if angles is None else [mx.array(table) for table in angles]

    def step(
        self,
        embeddings: mx.array,
        cache: DecodeCache,
        attention: AttentionRequest = AttentionRequest(),
        tap: Tap = no_tap,
    ) -> tuple[mx.array, list[list[AttentionRow]]]:
        """Run one new position of every slot.

        embeddings: (N, D); the rows of a slot are adjacent. The rows of an idle slot take part in the matrix products,
        whose width is constant, and attend to nothing. Returns the normed hidden states (N, D), and for each slot the
        attention (1, length) of each pair of `attention`, empty for an idle slot; no slots without pairs.
        """
        positions = cache.begin()
        angles, hidden = self._angles(positions), self._enter(embeddings[:, None], positions[:, None])[:, 0]
        tap("embeddings", hidden)
        kept: dict[tuple[int, int], Sequence[AttentionRow | None]] = {}
        for index, layer in enumerate(self.layers):
            heads = attention.of_layer(index)
            mixed, rows = cache.attend(index, layer.projections(hidden), angles, heads)
            hidden = layer.rest(hidden, mixed)
            kept |= {(index, head): of_slots for head, of_slots in zip(heads, rows, strict=True)}
            tap(f"layers.{index}", hidden)
        cache.advance()
        normed = self._leave(hidden)
        tap("norm", normed)
        by_slot = zip(*(kept[pair] for pair in attention.heads), strict=True)
        return normed, [[row for row in rows if row is not None] for rows in by_slot]

    def _heads(self, joint: mx.array) -> list[mx.array]:
        """Split (rows, length, 3D) into queries, keys and values of a layer, each (rows, heads, length, head_size)."""
        apart = joint.reshape(*joint.shape[:2], 3, self.config.num_heads, self.config.head_size)
        return [apart[:, :, part].transpose(0, 2, 1, 3) for part in range(3)]


def _flat(stretches: Sequence[mx.array]) -> mx.array:
    """Concatenate the rows of stretches (rows, L, D): (N, D)."""
    return mx.concatenate([part.reshape(-1, part.shape[2]) for part in stretches])


def _apart(flat: mx.array, shapes: Sequence[tuple[int, ...]]) -> list[mx.array]:
    """Split (N, D) into stretches (rows, L, D)."""
    ends = np.cumsum([rows * length for rows, length in shapes])[:-1].tolist()
    return [part.reshape(*shape, -1) for part, shape in zip(mx.split(flat, ends), shapes, strict=True)]
