"""Voice conditioning: speaker embedding and speech prompt; for Llama with perceiver and emotion."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.config import T3Config
from sampler.t3.norms import layer_norm

LAYER_NORM_EPS = 1e-5
"""Default of torch.nn.LayerNorm, which `AttentionBlock2` in `models/t3/modules/perceiver.py` uses."""


@dataclass(frozen=True)
class Voice:
    """A voice. speaker: float32 (256,); prompt: speech ids (P,), may be empty; emotion: 0.5 is neutral."""

    speaker: NDArray[np.float32]
    prompt: NDArray[np.int64]
    emotion: float = 0.5


class Conditioning:
    """`T3CondEnc` of `models/t3/modules/cond_enc.py`: the rows before the text."""

    def __init__(self, tensors: Mapping[str, mx.array], config: T3Config) -> None:
        self.config = config
        own = {name.removeprefix("cond_enc."): value for name, value in tensors.items() if name.startswith("cond_enc.")}
        self._weights = own

    def rows(self, voice: Voice, prompt_embeddings: mx.array) -> mx.array:
        """Rows before the text, with the dtype of the weights; prompt_embeddings: (P, D), P may be 0.

        Llama: speaker, resampled prompt and emotion, (34, D). GPT-2: speaker and the unchanged prompt, (1 + P, D).
        """
        weights, dtype = self._weights, prompt_embeddings.dtype
        speaker = mx.array(voice.speaker).astype(dtype)[None] @ weights["spkr_enc.weight"].T + weights["spkr_enc.bias"]
        if self.config.backbone == "gpt2":
            return mx.concatenate([speaker, prompt_embeddings])
        emotion = mx.array([[voice.emotion]], dtype=dtype) @ weights["emotion_adv_fc.weight"].T
        parts = (
            [speaker, emotion]
            if prompt_embeddings.shape[0] == 0
            else [speaker, self.resample(prompt_embeddings), emotion]
        )
        return mx.concatenate(parts)

    def resample(self, prompt: mx.array) -> mx.array:
        """Perceiver resampler, arXiv:2103.03206: (P, D) -> (queries, D); the same attention block twice."""
        queries = self._attend(self._weights["perceiver.pre_attention_query"][0], prompt)
        return self._attend(queries, queries)

    def _attend(self, queries: mx.array, memory: mx.array) -> mx.array:
        normed, source = self._norm(queries), self._norm(memory)
        query, key, value = self._heads("to_q", normed), self._heads("to_k", source), self._heads("to_v", source)
        mixed = mx.fast.scaled_dot_product_attention(query, key, value, scale=query.shape[-1] ** -0.5)
        return queries + self._linear("proj_out", mixed[0].swapaxes(0, 1).reshape(queries.shape))

    def _norm(self, rows: mx.array) -> mx.array:
        norm = "perceiver.attn.norm"
        return layer_norm(rows, self._weights[f"{norm}.weight"], self._weights[f"{norm}.bias"], LAYER_NORM_EPS)

    def _linear(self, name: str, rows: mx.array) -> mx.array:
        name = f"perceiver.attn.{name}"
        return rows @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _heads(self, name: str, rows: mx.array) -> mx.array:
        heads = self.config.perceiver_heads
        return self._linear(name, rows).reshape(rows.shape[0], heads, -1).swapaxes(0, 1)[None]
