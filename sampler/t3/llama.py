"""The Llama backbone of Chatterbox's English and multilingual models."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.activations import swiglu
from sampler.t3.backbone import Backbone
from sampler.t3.config import T3Config
from sampler.t3.norms import rms_norm
from sampler.t3.rotary import Angles, RotaryTable


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer; products with the same input are stacked: qkv (3D, D), gate_up (2I, D)."""

    attention_norm: mx.array
    qkv: mx.array
    output: mx.array
    mlp_norm: mx.array
    gate_up: mx.array
    down: mx.array
    epsilon: float

    @classmethod
    def of(cls, tensors: Mapping[str, mx.array], prefix: str, epsilon: float) -> "Layer":
        """Take a layer from a state dict with upstream's keys."""

        def named(*names: str) -> mx.array:
            return mx.concatenate([tensors[f"{prefix}.{name}.weight"] for name in names])

        return cls(
            attention_norm=named("input_layernorm"),
            qkv=named("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            output=named("self_attn.o_proj"),
            mlp_norm=named("post_attention_layernorm"),
            gate_up=named("mlp.gate_proj", "mlp.up_proj"),
            down=named("mlp.down_proj"),
            epsilon=epsilon,
        )

    def projections(self, hidden: mx.array) -> mx.array:
        return rms_norm(hidden, self.attention_norm, self.epsilon) @ self.qkv.T

    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        """Output projection and gated MLP (arXiv:2002.05202, SwiGLU) with their residuals; (N, D) -> (N, D)."""
        hidden = hidden + mixed @ self.output.T
        normed = rms_norm(hidden, self.mlp_norm, self.epsilon)
        return hidden + swiglu(normed @ self.gate_up.T) @ self.down.T


class Llama(Backbone):
    """`LlamaModel` of transformers without its token embedding; rotary positions over the whole sequence."""

    def __init__(self, tensors: Mapping[str, mx.array], config: T3Config) -> None:
        super().__init__(config)
        names = [f"tfmr.layers.{index}" for index in range(config.num_layers)]
        self.layers = [Layer.of(tensors, name, config.rms_norm_eps) for name in names]
        self.norm = tensors["tfmr.norm.weight"]
        self.rotary = RotaryTable(config)

    def _angles(self, positions: NDArray[np.int64]) -> Angles:
        return self.rotary.rows(positions)

    def _leave(self, hidden: mx.array) -> mx.array:
        return rms_norm(hidden, self.norm, self.config.rms_norm_eps)
