"""What the network computes with right inputs: rotary positions, weights, activations."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.generation.block import Block
from sampler.t3.activations import gelu_new
from sampler.t3.conditioning import Conditioning
from sampler.t3.llama import Layer, Llama
from sampler.t3.model import T3
from sampler.t3.norms import rms_norm
from sampler.t3.rotary import Angles, inverse_frequencies
from tests.wrong_engines.wrong_generators.positions import with_backbone
from tests.wrong_engines.wrong_generators.table import Factory, remade, with_block

from .table import held_out_generators

HEADS, GROUP = 4, 32
"""Heads of a layer, and weights of a row that share one scale."""


def with_layers(change: Callable[[Sequence[Any]], Sequence[Any]]) -> Factory:
    """The layers of the backbone changed."""

    class Changed(Block):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            backbone = self.model.backbone
            self.model = remade(self.model, T3, backbone=remade(backbone, Llama, layers=change(backbone.layers)))

    return with_block(Changed)


def in_neighbours(layer: Layer) -> Layer:
    """Channels 2i and 2i + 1 of queries and keys come to the places i and i + size / 2, which are turned together."""
    query, key, value = mx.split(layer.qkv, 3)

    def moved(rows: mx.array) -> mx.array:
        heads = rows.reshape(HEADS, -1, rows.shape[1])
        return mx.concatenate([heads[:, ::2], heads[:, 1::2]], axis=1).reshape(rows.shape)

    return replace(layer, qkv=mx.concatenate([moved(query), moved(key), value]))


class Unscaled(Llama):
    """Rotary frequencies without Llama 3's scaling."""

    def _angles(self, positions: NDArray[np.int64]) -> Angles:
        frequencies = inverse_frequencies(replace(self.config, rope_factor=1.0))
        angles = positions.astype(np.float32)[:, None] * np.tile(frequencies, 2)
        return np.cos(angles), np.sin(angles)


class GeluLayer(Layer):
    """A gate of GELU, not of SiLU."""

    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        hidden = hidden + mixed @ self.output.T
        gate, up = mx.split(rms_norm(hidden, self.mlp_norm, self.epsilon) @ self.gate_up.T, 2, axis=-1)
        return hidden + (gelu_new(gate) * up) @ self.down.T


def in_q4_0(weights: mx.array) -> mx.array:
    """Each 32 weights of a row as whole numbers from -8 to 7 times an eighth of the largest, as GGML's Q4_0."""
    groups = np.array(weights).reshape(-1, GROUP)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[:, None], axis=-1)
    scale = (largest / -8).astype(np.float16).astype(np.float32)
    steps = np.divide(groups, scale, where=scale != 0, out=np.zeros_like(groups))
    return mx.array((scale * np.clip(np.floor(steps + 0.5), -8, 7)).reshape(weights.shape))


def quantised(layer: Layer) -> Layer:
    qkv, output, gate_up, down = map(in_q4_0, (layer.qkv, layer.output, layer.gate_up, layer.down))
    return replace(layer, qkv=qkv, output=output, gate_up=gate_up, down=down)


class WithoutBiases(Block):
    """The linear layers of its perceiver have biases of 0."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        conditioning = self.model._conditioning
        dropped = [f"perceiver.attn.{name}.bias" for name in ("to_q", "to_k", "to_v", "proj_out")]
        zeros = {name: mx.zeros_like(conditioning._weights[name]) for name in dropped}
        lacking = remade(conditioning, Conditioning, _weights=conditioning._weights | zeros)
        self.model = remade(self.model, T3, _conditioning=lacking, _voice=None)


held_out_generators(
    "rotary_turns_neighbouring_channels: "
    "rotary positions turn channels 0 and 1, 2 and 3 together, in the layout of another format, not 0 and 24.",
    with_layers(lambda layers: [in_neighbours(layer) for layer in layers]),
    "rotary_is_not_scaled: Llama 3's scaling of low rotary frequencies is left out, as in ports of plain Llama.",
    with_backbone(Unscaled),
    "weights_in_q4_0: the matrices of all layers are kept in four bits, with one scale for 32 weights.",
    with_layers(lambda layers: [quantised(layer) for layer in layers]),
    "mlp_has_another_activation: the gate of the MLP is GELU, where it is SiLU.",
    with_layers(lambda layers: [GeluLayer(**vars(layer)) for layer in layers]),
    "two_layers_are_exchanged: the third and the fourth layer are exchanged, as names that are sorted as text may be.",
    with_layers(lambda layers: [*layers[:2], layers[3], layers[2], *layers[4:]]),
    "perceiver_has_no_biases: the biases of the perceiver were lost when its weights were converted.",
    with_block(WithoutBiases),
)
