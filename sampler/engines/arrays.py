"""Arrays of any framework as NumPy arrays of numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def plain_array(value: Any) -> NDArray[Any] | str:
    """A copy in NumPy's own types, or the reason why there is none."""
    try:
        # NumPy has no bfloat16; widening is exact.
        array = np.asarray(_widened(value)).copy()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"a {type(value).__name__} that is no array: {error}"
    if array.dtype.kind not in "fiu":
        return f"a {type(value).__name__} of {array.dtype}, expected an array of numbers"
    return array


def _widened(value: Any) -> Any:
    """Arrays of torch and MLX in bfloat16 as float32."""
    if str(getattr(value, "dtype", "")) == "mlx.core.bfloat16":
        import mlx.core as mx  # an engine without MLX starts without it

        return value.astype(mx.float32)
    return value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value
