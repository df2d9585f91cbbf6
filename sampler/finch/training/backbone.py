"""The Llama layers of `T3Network`, optimised for training on few cores; the weights stay those of `LlamaModel`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 256
"""Queries that attend at once; the future of a whole chunk is never computed."""


@dataclass(frozen=True)
class HeadInputs:
    """Rotated queries and keys of one layer: (B, H, L, d) each."""

    queries: Tensor
    keys: Tensor

    def attention_rows(self, head: int, rows: Tensor) -> Tensor:
        """Attention of one head at the packed rows `rows` (B, K): (B, K, L)."""
        queries, keys = self.queries[:, head], self.keys[:, head]
        chosen = torch.gather(queries, 1, rows[..., None].expand(-1, -1, queries.shape[-1]))
        scores = chosen.float() @ keys.float().transpose(1, 2) / queries.shape[-1] ** 0.5
        future = torch.arange(keys.shape[1]) > rows[..., None]
        attention: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
        return attention


def run_layers(model: Any, packed: Tensor, keep: frozenset[int] = frozenset()) -> tuple[Tensor, dict[int, HeadInputs]]:
    """Compute `model(inputs_embeds=packed)` of a `LlamaModel`: hidden rows (B, L, D), heads of layers in `keep`.

    Gives the numbers of its own forward up to rounding, in about half of the time: on a CPU PyTorch's scaled dot
    product attention spends most of a training step in its backward pass.
    """
    cosine, sine = model.rotary_emb(packed, torch.arange(packed.shape[1])[None])
    kept, rows = {}, packed
    for index, layer in enumerate(model.layers):
        heads = _project(layer.self_attn, layer.input_layernorm, rows, cosine, sine)
        if index in keep:
            kept[index] = HeadInputs(heads[0], heads[1])
        rows = _finish(layer, rows, causal_attention(*heads))
    return _norm(model.norm, rows), kept


def _norm(module: Any, rows: Tensor) -> Tensor:
    return functional.rms_norm(rows, rows.shape[-1:], module.weight, module.variance_epsilon)


def _project(module: Any, norm: Any, rows: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, rotated, and values: (B, H, L, d) each."""
    weight = torch.cat([module.q_proj.weight, module.k_proj.weight, module.v_proj.weight])
    joined = functional.linear(_norm(norm, rows), weight)
    split = joined.view(*rows.shape[:2], 3, -1, module.head_dim)
    queries, keys, values = split.permute(2, 0, 3, 1, 4)
    return _rotate(queries, cosine, sine), _rotate(keys, cosine, sine), values


def _finish(layer: Any, rows: Tensor, mixed: Tensor) -> Tensor:
    """Output projection and feed-forward part, each with its residual."""
    rows = rows + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    normed = _norm(layer.post_attention_layernorm, rows)
    gate, up = layer.mlp.gate_proj(normed), layer.mlp.up_proj(normed)
    result: Tensor = rows + layer.mlp.down_proj(functional.silu(gate) * up)
    return result


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, chunk: int = CHUNK) -> Tensor:
    """Attention of each row to itself and the rows before it: (B, H, L, d)."""
    scaled, mixed = queries * queries.shape[-1] ** -0.5, []
    for start in range(0, queries.shape[2], chunk):
        end = min(start + chunk, queries.shape[2])
        scores = scaled[:, :, start:end] @ keys[:, :, :end].transpose(2, 3)
        future = torch.full((end - start, end - start), float("-inf"), dtype=scores.dtype).triu(1)
        scores[..., start:].add_(future)
        mixed.append(scores.softmax(-1, dtype=scores.dtype) @ values[:, :, :end])
    return torch.cat(mixed, 2)


def _rotate(rows: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions in the half-split layout of `LlamaAttention`."""
    first, second = rows.chunk(2, dim=-1)
    rotated = rows * cosine + torch.cat([-second, first], dim=-1) * sine
    return rotated.to(rows.dtype)
