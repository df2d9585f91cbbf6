"""The largest values of each row of a matrix."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 8
"""Rows at a time: what is needed in between then stays in a processor's cache."""


def largest(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """The places of the `count` largest values of each row, ascending: (B, V) -> (B, count)."""
    found = np.empty((len(values), count), dtype=np.int64)
    for start in range(0, len(values), ROWS):
        part = slice(start, start + ROWS)
        found[part] = np.argpartition(-values[part], count - 1, axis=-1)[:, :count]
    found.sort(axis=-1)
    return found
