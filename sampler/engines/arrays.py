"""Arrays of any framework as NumPy's own: torch, MLX, JAX, DLPack, lists, half precision. Imports NumPy alone."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def plain_array(value: Any) -> NDArray[Any] | str:
    """A copy in NumPy's own types, bfloat16 widened to float32, or the reason why there is none."""
    try:
        array = np.asarray(_readable(value)).copy()
    except Exception as error:  # noqa: BLE001 - the value may be of any framework, which may raise anything
        return f"a {type(value).__name__} that is no array: {error}"
    if array.dtype.kind not in "fiu":
        return f"a {type(value).__name__} of {array.dtype}, expected an array of numbers"
    return array


def _readable(value: Any) -> Any:
    """Something that `np.array` reads without a loss."""
    if isinstance(value, Sequence) and len(value) and (hasattr(value[0], "dtype") or _is_list(value[0])):
        return [_readable(row) for row in value]
    for name in ("detach", "cpu"):  # a tensor that has a gradient, or lies on another device
        if callable(getattr(value, name, None)):
            value = getattr(value, name)()
    if _is_opaque(value):
        value = _from_dlpack(value)
    return _widened(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_opaque(value: Any) -> bool:
    """Whether DLPack is the only way to read it; MLX's arrays are buffers as well."""
    if isinstance(value, np.ndarray | np.generic | int | float) or _is_list(value):
        return False
    return hasattr(value, "__dlpack__") and not hasattr(value, "__array__") and not _is_mlx(value)


def _from_dlpack(value: Any) -> Any:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError):  # NumPy knows no bfloat16
        torch = sys.modules.get("torch")
        if torch is None:
            raise
        return torch.from_dlpack(value)


def _is_mlx(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).startswith("mlx.")


def _widened(value: Any) -> Any:
    """Types that NumPy lacks, such as bfloat16, as float32, which is exact."""
    kind = str(getattr(value, "dtype", ""))
    if kind == "mlx.core.bfloat16":
        return value.astype(sys.modules["mlx.core"].float32)
    if kind.startswith(("torch.bfloat16", "torch.float8")):
        return value.float()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        # Types of ml_dtypes, which JAX uses, are of kind V for NumPy.
        return array.astype(np.float32) if array.dtype.kind == "V" and array.dtype.names is None else array
    return value
