"""Models as a port may have them by mistake: other weights, layers, rotary frequencies or attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.activations import gelu_new
from sampler.t3.config import T3Config
from sampler.t3.llama import Layer
from sampler.t3.model import T3
from sampler.t3.norms import rms_norm
from sampler.t3.prefix_attention import Places, Reading

OtherModel = Callable[[T3], T3]

GROUP = 64
"""Weights of a row that `mlx.nn.quantize` rounds with one scale."""

GGML_GROUP = 32
"""The same in GGML's formats."""


@dataclass(frozen=True)
class OtherRotary:
    """With fields of T3Config that make other rotary frequencies."""

    changes: tuple[tuple[str, float], ...]

    def __call__(self, model: T3) -> T3:
        return model.with_rotary(**dict(self.changes))

    def differs(self, config: T3Config) -> bool:
        """Whether a model of this config has other ones."""
        return any(getattr(config, name) != value for name, value in self.changes)


def rounded_by_mlx(bits: int) -> OtherModel:
    """Every matrix as `mlx.nn.quantize` rounds it by default."""
    return _with_matrices(
        lambda matrix: mx.dequantize(*mx.quantize(matrix, GROUP, bits), group_size=GROUP, bits=bits), GROUP
    )


def rounded_by_ggml(bits: int, *, layers: bool) -> OtherModel:
    """Every matrix in Q4_0 or Q8_0: whole numbers times the scale of 32 weights of a row, which is a float16.

    layers: those of the layers alone.
    """
    return _with_matrices(partial(_in_ggml, bits), GGML_GROUP, layers=layers)


def in_dtype(dtype: mx.Dtype) -> OtherModel:
    """All weights rounded to another type, computed in their own."""
    return lambda model: model.with_arrays(lambda name, array: array.astype(dtype).astype(array.dtype))


def without_biases(model: T3) -> T3:
    """What is before the text made without biases."""
    return model.with_arrays(lambda name, array: mx.zeros_like(array) if name.endswith("bias") else array)


def _with_matrices(change: Callable[[mx.array], mx.array], group: int, *, layers: bool = False) -> OtherModel:
    """With other matrices, those whose rows are no whole number of groups excepted."""

    def changed(name: str, array: mx.array) -> mx.array:  # noqa: ARG001
        return array if array.ndim != 2 or array.shape[1] % group else change(array).astype(array.dtype)

    return lambda model: model.with_arrays(changed, layers=layers)


def _in_ggml(bits: int, matrix: mx.array) -> mx.array:
    """As `quantize_row_q4_0_ref` and `quantize_row_q8_0_ref` of ggml-quants.c."""
    groups = np.array(matrix.astype(mx.float32)).reshape(-1, GGML_GROUP)
    size = 2 ** (bits - 1)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[:, None], axis=-1)
    exact = largest / -size if bits == 4 else np.abs(largest) / (size - 1)
    steps = np.divide(groups, exact, where=exact != 0, out=np.zeros_like(groups))
    steps = np.clip(np.floor(steps + 0.5), -size, size - 1) if bits == 4 else np.round(steps)
    return mx.array((steps * exact.astype(np.float16).astype(np.float32)).reshape(matrix.shape))


def with_layer(change: Callable[[Layer], Layer]) -> OtherModel:
    """With each layer changed."""
    return lambda model: model.with_layers(lambda layers: [change(layer) for layer in layers])


def without_layer(place: int) -> OtherModel:
    """Without the first or the last layer."""

    def left(layers: Sequence[Any]) -> Sequence[Any]:
        return [layer for at, layer in enumerate(layers) if at != place % len(layers)]

    return lambda model: model.with_layers(left)


def scaled_attention(power: float) -> OtherModel:
    """Attention's scores times the head's size to some power, beside their usual scale."""

    def scaled(model: T3) -> T3:
        size = model.config.head_size**power

        def changed(layer: Layer) -> Layer:
            query, key, value = mx.split(layer.qkv, 3)
            return replace(layer, qkv=mx.concatenate([query * size, key, value]))

        return with_layer(changed)(model)

    return scaled


def interleaved_rotary(model: T3) -> T3:
    """Channels 2i and 2i + 1 of queries and keys are turned together, in place of i and i + head_size / 2."""
    heads = model.config.num_heads

    def changed(layer: Layer) -> Layer:
        query, key, value = mx.split(layer.qkv, 3)
        moved = []
        for rows in (query, key):
            of_heads = rows.reshape(heads, -1, rows.shape[1])
            moved.append(mx.concatenate([of_heads[:, ::2], of_heads[:, 1::2]], axis=1).reshape(rows.shape))
        return replace(layer, qkv=mx.concatenate([*moved, value]))

    return with_layer(changed)(model)


@dataclass(frozen=True)
class _GeluLayer(Layer):
    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        hidden = hidden + mixed @ self.output.T
        gate, up = mx.split(rms_norm(hidden, self.mlp_norm, self.epsilon) @ self.gate_up.T, 2, axis=-1)
        return hidden + (gelu_new(gate) * up) @ self.down.T


def with_gelu(model: T3) -> T3:
    """GELU in place of SiLU in the MLP."""
    return with_layer(lambda layer: _GeluLayer(**vars(layer)))(model)


def window(size: int) -> Reading:
    """A cache of the last positions, out of which the prompt falls too."""
    return Reading(visible=lambda prompt, queries, keys: keys > queries - size)


def chunk(size: int) -> Reading:
    """Of the speech only what comes behind the last multiple of so many tokens."""

    def visible(prompt: int, queries: Places, keys: Places) -> NDArray[np.bool_]:
        return np.asarray((keys < prompt) | (keys >= prompt + (queries - prompt) // size * size))

    return Reading(visible=visible)


def zeros_up_to(count: int) -> Reading:
    """A buffer for a multiple of so many positions, of which those behind the newest one are read as zeros."""
    return Reading(empty=lambda lengths: -lengths % count)


def zeros(count: int) -> Reading:
    """So many positions of zeros are read beside all others."""
    return Reading(empty=lambda lengths: np.full_like(lengths, count))


def kept_in_steps(bits: int) -> Reading:
    """Each head's keys and values on even steps from the smallest to the largest number of each."""

    def rounded(rows: mx.array) -> mx.array:
        low, high = rows.min(axis=-1, keepdims=True), rows.max(axis=-1, keepdims=True)
        step: mx.array = mx.maximum(high - low, 1e-8) / (2**bits - 1)
        return low + step * mx.round((rows - low) / step)

    return Reading(rounded=rounded)


def kept_in(dtype: mx.Dtype) -> Reading:
    """Keys and values in another type."""
    return Reading(rounded=lambda rows: rows.astype(dtype).astype(rows.dtype))
