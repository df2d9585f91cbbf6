"""The loop of layer norm on the CPU."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from sampler.runtime.compiled import machine_code


@partial(machine_code, fastmath={"reassoc", "contract"})  # sums may be reordered; NaN and infinities stay what they are
def norm_rows(  # type: ignore[no-untyped-def] # noqa: ANN201
    rows: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    epsilon: float,
    normed: NDArray[np.float32],
):
    """Layer norm of rows (N, D) with weight and bias (D,), in float64, rounded once: normed (N, D)."""
    size = rows.shape[1]
    for row in range(rows.shape[0]):
        total, squares = 0.0, 0.0
        for place in range(size):
            total += np.float64(rows[row, place])
        mean = total / size
        for place in range(size):
            centred = rows[row, place] - mean
            squares += centred * centred
        scale = 1.0 / np.sqrt(squares / size + epsilon)
        for place in range(size):
            normed[row, place] = (rows[row, place] - mean) * scale * weight[place] + bias[place]
