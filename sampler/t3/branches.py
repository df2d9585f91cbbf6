"""Sequences that begin alike: the rows that they share are there once."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from sampler.t3.prefix_attention import Reading, Span


class Branches:
    """Rows of embeddings, in the order of `spans`; the spans of `follow` come after all that it follows."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._parts: list[mx.array] = []
        self._count = 0
        self._known: dict[tuple[int, bytes], int] = {}

    @property
    def rows(self) -> mx.array:
        """All rows, (N, D)."""
        return mx.concatenate(self._parts)

    def begin(self, rows: mx.array) -> Sequence[int]:
        """The places of the first positions (L, D) of a sequence. Those that no other begins with are added."""
        places, before = [-1], self._count
        for content in np.array(rows.astype(mx.float32)):
            place = self._known.setdefault((places[-1], content.tobytes()), self._count)
            self._count += place == self._count
            places.append(place)
        if self._count > before:
            self._add(rows[len(rows) + before - self._count :], places[1:])
        return places[1:]

    def follow(self, places: Sequence[int], rows: mx.array, reading: Reading | None = None) -> None:
        """Add positions (L, D) that are of one sequence alone, after others. reading: see Span."""
        self._count += len(rows)
        self._add(rows, [*places, *range(self._count - len(rows), self._count)], reading)

    def _add(self, rows: mx.array, places: Sequence[int], reading: Reading | None = None) -> None:
        self.spans.append(Span(np.array(places, dtype=np.int64), len(rows), reading))
        self._parts.append(rows)
