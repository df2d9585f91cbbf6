"""The GPT-2 backbone of Chatterbox Turbo and Nano."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.errors import TextError
from sampler.t3.activations import gelu_new
from sampler.t3.backbone import Backbone
from sampler.t3.config import T3Config
from sampler.t3.norms import layer_norm


@dataclass(frozen=True)
class Linear:
    """A product with a bias. weight: (out, in), so that a row's bits do not depend on its place; bias: (out,)."""

    weight: mx.array
    bias: mx.array

    @classmethod
    def of(cls, tensors: Mapping[str, mx.array], name: str) -> "Linear":
        """Take a `Conv1D` of transformers, which stores (in, out), from a state dict."""
        return cls(mx.contiguous(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"])

    def __call__(self, rows: mx.array) -> mx.array:
        return rows @ self.weight.T + self.bias


@dataclass(frozen=True)
class Norm:
    """A layer norm with its weights, (D,) each."""

    weight: mx.array
    bias: mx.array
    epsilon: float

    @classmethod
    def of(cls, tensors: Mapping[str, mx.array], name: str, epsilon: float) -> "Norm":
        return cls(tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

    def __call__(self, rows: mx.array) -> mx.array:
        return layer_norm(rows, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class Layer:
    """Weights of one `GPT2Block`, with upstream's names."""

    ln_1: Norm
    c_attn: Linear
    c_proj: Linear
    ln_2: Norm
    c_fc: Linear
    mlp_c_proj: Linear

    @classmethod
    def of(cls, tensors: Mapping[str, mx.array], prefix: str, epsilon: float) -> "Layer":
        """Take a layer from a state dict with upstream's keys."""
        return cls(
            ln_1=Norm.of(tensors, f"{prefix}.ln_1", epsilon),
            c_attn=Linear.of(tensors, f"{prefix}.attn.c_attn"),
            c_proj=Linear.of(tensors, f"{prefix}.attn.c_proj"),
            ln_2=Norm.of(tensors, f"{prefix}.ln_2", epsilon),
            c_fc=Linear.of(tensors, f"{prefix}.mlp.c_fc"),
            mlp_c_proj=Linear.of(tensors, f"{prefix}.mlp.c_proj"),
        )

    def projections(self, hidden: mx.array) -> mx.array:
        return self.c_attn(self.ln_1(hidden))

    def rest(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        hidden = hidden + self.c_proj(mixed)
        return hidden + self.mlp_c_proj(gelu_new(self.c_fc(self.ln_2(hidden))))


class GPT2(Backbone):
    """`GPT2Model` of transformers without its token embedding; a learned position for each place of the sequence."""

    def __init__(self, tensors: Mapping[str, mx.array], config: T3Config) -> None:
        super().__init__(config)
        names = [f"tfmr.h.{index}" for index in range(config.num_layers)]
        self.layers = [Layer.of(tensors, name, config.layer_norm_eps) for name in names]
        self.norm = Norm.of(tensors, "tfmr.ln_f", config.layer_norm_eps)
        self.positions = tensors["tfmr.wpe.weight"]

    def _enter(self, embeddings: mx.array, positions: NDArray[np.int64]) -> mx.array:
        last = int(positions.max(initial=0))
        if last >= self.config.positions:  # MLX would read beyond the table without an error
            hint = f"{self.config.name} has {self.config.positions} positions for voice, text and speech"
            raise TextError(f"position {last}", hint=hint)
        return embeddings + self.positions[mx.array(positions)]

    def _leave(self, hidden: mx.array) -> mx.array:
        return self.norm(hidden)
