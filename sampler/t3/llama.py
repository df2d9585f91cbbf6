"""The Llama backbone: all rows of a step share each matrix product, each request attends to its own cache."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from sampler.t3.cache import KeyValueCache
from sampler.t3.config import T3Config
from sampler.t3.rotary import RotaryTable, rotate

Tap = Callable[[str, mx.array], None]
"""Receives intermediate values by name: `embeddings`, `layers.0` ..., `norm`."""


def rms_norm(rows: mx.array, weight: mx.array, epsilon: float) -> mx.array:
    """Root-mean-square norm of rows (..., D): x / sqrt(mean(x^2) + epsilon) * weight (arXiv:1910.07467, equation 4).

    The mean is taken in blocks: MLX's on the CPU adds one number after the other and is off by nine half units in the
    last place at D = 192, an error that scales the whole row and reached 1e-4 in guided logits.
    """
    block = math.gcd(rows.shape[-1], 32)
    squares = (rows * rows).reshape(*rows.shape[:-1], -1, block)
    mean = mx.mean(mx.mean(squares, axis=-1), axis=-1, keepdims=True)
    return rows / mx.sqrt(mean + epsilon) * weight


def no_tap(name: str, value: mx.array) -> None:
    """Ignore an intermediate value."""


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer; the products that read the same input are stacked: qkv (3D, D), gate_up (2I, D)."""

    attention_norm: mx.array
    qkv: mx.array
    output: mx.array
    mlp_norm: mx.array
    gate_up: mx.array
    down: mx.array

    @classmethod
    def of(cls, tensors: Mapping[str, mx.array], prefix: str) -> "Layer":
        """Take a layer out of a state dict with upstream's keys."""

        def named(*names: str) -> mx.array:
            return mx.concatenate([tensors[f"{prefix}.{name}.weight"] for name in names])

        return cls(
            attention_norm=named("input_layernorm"),
            qkv=named("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            output=named("self_attn.o_proj"),
            mlp_norm=named("post_attention_layernorm"),
            gate_up=named("mlp.gate_proj", "mlp.up_proj"),
            down=named("mlp.down_proj"),
        )


@dataclass(frozen=True)
class AttentionRequest:
    """Which attention to return. heads: (layer, head) pairs; queries: how many of the last query rows."""

    heads: Sequence[tuple[int, int]] = ()
    queries: int = 1


class Llama:
    """`LlamaModel` without its token embedding, on rows of embeddings; float32."""

    def __init__(self, tensors: Mapping[str, mx.array], config: T3Config) -> None:
        self.config = config
        self.layers = [Layer.of(tensors, f"tfmr.layers.{index}") for index in range(config.num_layers)]
        self.norm = tensors["tfmr.norm.weight"]
        self._rotary = RotaryTable(config)
        self._scale = config.head_size**-0.5

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
        cosine, sine = self._rotary.rows(np.arange(length))
        hidden = embeddings.reshape(rows * length, width)
        tap("embeddings", embeddings)
        kept: dict[tuple[int, int], mx.array] = {}
        for index, layer in enumerate(self.layers):
            query, key, value = self._projections(layer, hidden, (rows, length))
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
            keys, values = cache.append(index, key, value)
            mixed = mx.fast.scaled_dot_product_attention(query, keys, values, scale=self._scale, mask="causal")
            mixed = mixed.transpose(0, 2, 1, 3).reshape(rows * length, width)
            hidden = self._rest(layer, hidden, mixed)
            kept |= self._attention_of(attention, index, query[0], keys[0])
            tap(f"layers.{index}", hidden.reshape(rows, length, width))
        cache.advance(length)
        normed = rms_norm(hidden, self.norm, self.config.rms_norm_eps).reshape(rows, length, width)
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
        positions = np.repeat([0 if cache is None else cache.length for cache in caches], rows_per_slot)
        cosine, sine = (table[:, None] for table in self._rotary.rows(positions))
        hidden = embeddings
        tap("embeddings", hidden)
        kept: list[dict[tuple[int, int], mx.array]] = [{} for _ in caches]
        for index, layer in enumerate(self.layers):
            query, key, value = (part[:, :, 0] for part in self._projections(layer, hidden, (hidden.shape[0], 1)))
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
            parts = []
            for slot, cache in enumerate(caches):
                own = slice(slot * rows_per_slot, (slot + 1) * rows_per_slot)
                if cache is None:
                    parts.append(mx.zeros((rows_per_slot, *query.shape[1:])))
                    continue
                keys, values = cache.append(index, key[own, :, None], value[own, :, None])
                slot_query = query[own, :, None]
                mixed = mx.fast.scaled_dot_product_attention(slot_query, keys, values, scale=self._scale)
                parts.append(mixed[:, :, 0])
                kept[slot] |= self._attention_of(attention, index, slot_query[0], keys[0])
            hidden = self._rest(layer, hidden, mx.concatenate(parts).reshape(hidden.shape))
            tap(f"layers.{index}", hidden)
        for cache in caches:
            if cache is not None:
                cache.advance(1)
        normed = rms_norm(hidden, self.norm, self.config.rms_norm_eps)
        tap("norm", normed)
        return normed, [[found[pair] for pair in attention.heads if pair in found] for found in kept]

    def _projections(self, layer: Layer, hidden: mx.array, shape: tuple[int, int]) -> list[mx.array]:
        """Queries, keys and values of a layer, each (rows, heads, length, head_size)."""
        normed = rms_norm(hidden, layer.attention_norm, self.config.rms_norm_eps)
        joint = (normed @ layer.qkv.T).reshape(*shape, 3, self.config.num_heads, self.config.head_size)
        return [joint[:, :, part].transpose(0, 2, 1, 3) for part in range(3)]

    def _rest(self, layer: Layer, hidden: mx.array, mixed: mx.array) -> mx.array:
        """Output projection and MLP with their residuals; (N, D) -> (N, D)."""
        hidden = hidden + mixed @ layer.output.T
        normed = rms_norm(hidden, layer.mlp_norm, self.config.rms_norm_eps)
        gate, up = mx.split(normed @ layer.gate_up.T, 2, axis=-1)
        return hidden + (gate * mx.sigmoid(gate) * up) @ layer.down.T

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
            scores = query[pair[1], -count:] @ keys[pair[1]].T * self._scale
            result[pair] = mx.softmax(mx.where(future, -mx.inf, scores), axis=-1)
        return result
