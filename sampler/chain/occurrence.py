"""Penalties for generated tokens: once per token, or once per occurrence."""

import mlx.core as mx
import numpy as np

from sampler.chain.history import column, generated
from sampler.chain.penalties import count_tokens
from sampler.requests import Batch


def penalize_frequency(scores: mx.array, batch: Batch) -> mx.array:
    """Subtract `frequency_penalty` for each occurrence of a token in the output; (B, V) -> (B, V).

    Sources: `frequency_penalty` and `presence_penalty` in OpenAI's API reference; `apply_penalties` in
    `vllm/v1/worker/gpu/sample/penalties.py` of vLLM, which counts the output and not the prompt.
    """
    counts = count_tokens(generated(batch), scores.shape[-1])
    return scores - column(batch, lambda config: config.frequency_penalty) * mx.array(counts.astype(np.float32))


def penalize_presence(scores: mx.array, batch: Batch) -> mx.array:
    """Subtract `presence_penalty` once from each generated token; (B, V) -> (B, V). Sources: as above."""
    seen = count_tokens(generated(batch), scores.shape[-1]) > 0
    return scores - column(batch, lambda config: config.presence_penalty) * mx.array(seen.astype(np.float32))
