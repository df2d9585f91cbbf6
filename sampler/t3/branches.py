"""Sequences that begin alike: the rows that they share are there once, and those of an earlier pass are kept."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.prefix_attention import Reading, Span

MOST_KEPT = 2**28
"""Bytes of keys and values of prefixes that are kept from pass to pass: by calculation those of 145 texts with guidance
and 100 positions for Finch, of 5 at full size."""

Kept = list[mx.array]
"""Of a prefix: keys and values of each layer, (L, 2, heads, size)."""


class Prefixes:
    """What is known of prefixes of one model, by the content of their rows; at most so many bytes."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.known: dict[bytes, Kept] = {}
        self._left = most

    def reserve(self, size: int) -> bool:
        """Take so much of what is left, if it is enough: nothing is dropped for it, since texts come again in turn."""
        fits = size <= self._left
        self._left -= size * fits
        return fits


class Branches:
    """Rows of embeddings, in the order of `spans`; the spans of `follow` come after all that it follows.

    prefixes: those that are known come first, and their rows need not be computed.
    """

    def __init__(self, prefixes: Prefixes | None = None) -> None:
        self.spans: list[Span] = []
        self.kept: list[Kept] = []
        self._prefixes = prefixes
        self._new: dict[bytes, mx.array] = {}
        self._noted: dict[bytes, Kept] = {}
        self._parts: list[mx.array] = []
        self._count = 0
        self._known: dict[tuple[int, bytes], int] = {}

    @property
    def rows(self) -> mx.array:
        """All rows that have to be computed, (N, D)."""
        return mx.concatenate(self._parts)

    def begin(self, sequences: Sequence[mx.array]) -> list[list[int]]:
        """The places of the first positions (L, D) of each sequence. Those that no other begins with are added."""
        contents = [np.array(rows.astype(mx.float32)) for rows in sequences]
        keys, places = [content.tobytes() for content in contents], dict[bytes, list[int]]()
        known = {} if self._prefixes is None else self._prefixes.known
        for key in dict.fromkeys(key for key in keys if key in known):
            self.kept.append(known[key])
            places[key] = list(range(self._count, self._count + len(known[key][0])))
            self._count += len(places[key])
        for key, rows, content in zip(keys, sequences, contents, strict=True):
            if key not in places:
                places[key] = self._place(rows, content)
                if self._prefixes is not None:
                    self._new[key] = mx.array(places[key])
        return [places[key] for key in keys]

    def _place(self, rows: mx.array, contents: NDArray[np.float32]) -> list[int]:
        places, before = [-1], self._count
        for content in contents:
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

    def note(self, joint: mx.array, layers: int) -> None:
        """Keep the new prefixes of the next of so many layers. joint: of all places, (M, 3, heads, size)."""
        for key, places in list(self._new.items()):
            assert self._prefixes is not None  # noqa: S101 - as `begin` has made sure
            own = joint[places, 1:]
            if key not in self._noted and not self._prefixes.reserve(own.nbytes * layers):
                del self._new[key]
                continue
            mx.eval(own)  # so that the joint array can go
            noted = self._noted.setdefault(key, [])
            noted.append(own)
            if len(noted) == layers:
                self._prefixes.known[key] = noted

    def _add(self, rows: mx.array, places: Sequence[int], reading: Reading | None = None) -> None:
        self.spans.append(Span(np.array(places, dtype=np.int64), len(rows), reading))
        self._parts.append(rows)
