"""The tokens that a chain left, row after row; they are about twenty of thousands, so later work on them is cheap."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatRows = NDArray[np.float32]
"""Scores of B rows: (B, V)."""


class Left(NamedTuple):
    """The tokens left in B rows. starts: int64 (B + 1,); row b has the places starts[b] to starts[b + 1].

    tokens: int64 (n,), ascending within a row; scores: float32 (n,).
    """

    starts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    scores: NDArray[np.float32]


def left_of(scores: FloatRows) -> Left:
    """The tokens whose score is neither -inf nor NaN."""
    rows, size = scores.shape
    at = np.flatnonzero(scores > -np.inf)
    starts = np.searchsorted(at, np.arange(rows + 1) * size)
    return Left(starts, at - np.repeat(np.arange(rows) * size, np.diff(starts)), scores.ravel()[at])
