"""Causal attention of several positions at once."""

import mlx.core as mx
import numpy as np

from sampler.runtime import blas
from sampler.runtime.threads import in_parts
from sampler.t3.activations import compiled


def causal_attention(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Causal attention of each of the last L positions to itself and those before it.

    queries: (rows, heads, L, size); keys, values: (rows, heads, K, size) with K >= L. Returns (rows * L, heads * size).
    On the CPU in float32 it uses a compiled loop: MLX computes all L x L scores, one exponential at a time.
    """
    rows, heads, length, size = queries.shape
    if not compiled(queries):
        mixed = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=size**-0.5, mask="causal")
        return mixed.transpose(0, 2, 1, 3).reshape(rows * length, heads * size)
    from sampler.t3.kernels import attend_causally

    mx.eval(queries, keys, values)
    query, key, value = (np.ascontiguousarray(np.asarray(array)) for array in (queries, keys, values))
    found = np.empty((rows, length, heads, size), np.float32)
    in_parts(lambda first, last: attend_causally(query, key, value, first, last, found), rows * heads, blas.threads())
    return mx.array(found.reshape(rows * length, heads * size))
