"""Rows of logits and histories that expose wrong stages: ties, zeros, both signs, removed tokens."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Row = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _removed(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A row with two fifths of its tokens removed."""
    row = rng.normal(0, 2, size)
    row[rng.permutation(size)[: 2 * size // 5]] = -np.inf
    return row


def _peaked(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    row = rng.normal(0, 1, size)
    row[rng.integers(size)] = 14.0
    return row


def _single(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A row with one token left."""
    row = np.full(size, -np.inf)
    row[rng.integers(size)] = -3.0
    return row


ROWS: dict[str, Row] = {
    "ordinary": lambda rng, size: rng.normal(0, 2.5, size),
    "flat": lambda rng, size: rng.normal(0, 0.05, size),
    "peaked": _peaked,
    "removed": _removed,
    "zeros": lambda rng, size: np.where(rng.random(size) < 0.3, 0.0, rng.normal(0, 1.5, size)),
    "tied": lambda rng, size: np.round(2 * rng.normal(0, 1.2, size)) / 2 + 0.0,
    "negative": lambda rng, size: rng.normal(-25, 2, size),
    "positive": lambda rng, size: rng.normal(25, 2, size),
    "wide": lambda rng, size: rng.normal(0, 9, size),
    "float16": lambda rng, size: rng.normal(0, 2, size).astype(np.float16).astype(np.float64),
    "bfloat16": lambda rng, size: bfloat16(rng.normal(0, 2, size)),
    "single": _single,
    "high": lambda rng, size: rng.normal(95, 2.5, size),
    "low": lambda rng, size: rng.normal(-95, 2.5, size),
}
"""Kinds of rows by name."""

FAR = ("high", "low")
"""exp of such logits is infinite or 0 in float32."""

KINDS = tuple(kind for kind in ROWS if kind not in FAR)
FINITE = tuple(kind for kind in KINDS if kind not in ("removed", "single"))
FEW_KINDS = ("ordinary", "flat", "peaked", "removed")


def bfloat16(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to the nearest bfloat16, ties to even: float32 with the lower half of its bits cleared."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def logit_rows(rng: np.random.Generator, size: int, kinds: Sequence[str]) -> Logits:
    """One row of each kind: float32 (len(kinds), size)."""
    return np.stack([ROWS[kind](rng, size) for kind in kinds]).astype(np.float32)


def histories(rng: np.random.Generator, logits: Logits) -> list[list[int]]:
    """A history for each row, of six kinds in turn.

    Frequent likely tokens; a likely token followed by 80 others, which is beyond any window; empty; nearly every id;
    one id; every id twice.
    """
    return [_history(rng, row, index) for index, row in enumerate(logits)]


def _history(rng: np.random.Generator, row: Logits, index: int) -> list[int]:
    size = len(row)
    likely = np.argsort(-row, kind="stable")[: max(1, min(6, size // 2))].tolist()
    kind = index % 6
    if kind == 0:
        return [*likely, *likely[:2], *rng.integers(0, size, min(size, 12)).tolist(), likely[0], likely[0]]
    if kind == 1:
        others = np.delete(np.arange(size), likely[0])
        return [likely[0], *rng.choice(others[: max(1, min(len(others), 40))], 80).tolist()]
    if kind == 2:
        return []
    if kind == 3:
        return [token for token in rng.permutation(min(size, 400)).tolist() if token != likely[-1]]
    if kind == 4:
        return [likely[0]]
    return [*range(min(size, 40)), *range(min(size, 40))]


REPEATS: tuple[tuple[int, ...], ...] = (
    (5, 9, 5), (4, 4, 4), (1, 2, 1, 2, 1), (3,), (0, 0), (2, 6, 2, 6), (7, 7, 1, 7, 7), (), (8, 3, 8, 3, 8, 3),
    (2, 0, 2, 0, 2), (6, 1, 4, 6, 1),
)  # fmt: skip
"""Short histories whose end occurred before: at the start, overlapping itself, or with a breaker inside."""

LONG_REPEATS: tuple[tuple[int, ...], ...] = (
    (*range(1, 12), *range(1, 11)),
    (*range(1, 10), 12, 13, 6, 7, 8),
    (*range(1, 10), 12, 13, 4, 5, 6, 7, 8),
    (0, *range(1, 9), 10, *range(9), 11, *range(1, 8)),
)
"""Histories whose end of 10, 3, 5 and 7 ids occurred before."""


def repeats(count: int) -> list[list[int]]:
    """Short histories for some rows, in turn."""
    return [list(REPEATS[row % len(REPEATS)]) for row in range(count)]
