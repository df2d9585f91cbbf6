"""Norms of rows, accumulated in float32 or float64 for every dtype."""

import math

import mlx.core as mx
import numpy as np

from sampler.t3.activations import compiled


def blocked_mean(values: mx.array) -> mx.array:
    """Mean of the last axis, kept as an axis of 1; float32.

    The mean is computed in blocks: MLX's on the CPU adds one number after the other, so squares were off by nine half
    units in the last place at D = 192. This error scales the whole row and reached 1e-4 in guided logits.
    """
    block = math.gcd(values.shape[-1], 32)
    return mx.mean(mx.mean(values.reshape(*values.shape[:-1], -1, block), axis=-1), axis=-1, keepdims=True)


def rms_norm(rows: mx.array, weight: mx.array, epsilon: float) -> mx.array:
    """Root-mean-square norm of rows (..., D): x / sqrt(mean(x^2) + epsilon) * weight (arXiv:1910.07467, equation 4).

    Returns the dtype of `rows`; the weight is applied in that dtype, as in `LlamaRMSNorm` of transformers.
    """
    wide = rows.astype(mx.float32)
    return (wide / mx.sqrt(blocked_mean(wide * wide) + epsilon)).astype(rows.dtype) * weight


def layer_norm(rows: mx.array, weight: mx.array, bias: mx.array, epsilon: float) -> mx.array:
    """Layer norm of rows (..., D): (x - mean) / sqrt(variance + epsilon) * weight + bias (arXiv:1607.06450, section 3).

    Returns the dtype of `rows`. float32 on the CPU is computed in float64 by a compiled loop, everything else in
    float32, as in torch; there the rows are centred twice, since a mean that is far larger than the deviation is itself
    rounded.
    """
    if not compiled(rows):
        centred = rows.astype(mx.float32)
        for _ in range(2):
            centred = centred - blocked_mean(centred)
        normed = centred / mx.sqrt(blocked_mean(centred * centred) + epsilon)
        return (normed * weight.astype(mx.float32) + bias.astype(mx.float32)).astype(rows.dtype)
    from sampler.t3.norm_kernel import norm_rows

    mx.eval(rows, weight, bias)
    values, scale, shift = (np.ascontiguousarray(np.asarray(array)) for array in (rows, weight, bias))
    found = np.empty(values.shape, np.float32)
    size = values.shape[-1]
    norm_rows(values.reshape(-1, size), scale, shift, epsilon, found.reshape(-1, size))
    return mx.array(found)
