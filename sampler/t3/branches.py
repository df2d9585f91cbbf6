"""Sequences that begin alike: the rows that they share are there once, and those of an earlier pass are kept."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from sampler.t3.prefix_attention import Reading, Span

MOST_KEPT = 2**28
"""Bytes of keys and values of prefixes that are kept from pass to pass: of 200 texts for Finch, of 14 at full size."""

Kept = Sequence[mx.array]
"""Of a prefix: keys and values of each layer, (L, 2, heads, size)."""


class Prefixes:
    """What is known of prefixes of one model, by the content of their rows."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._known: dict[bytes, Kept] = {}
        self._left = most

    def find(self, key: bytes) -> Kept | None:
        """What is known of a prefix."""
        return self._known.get(key)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may be kept: nothing is dropped for them, since texts come again in turn."""
        return size <= self._left

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keep a prefix."""
        self._left -= sum(each.nbytes for each in kept)
        self._known[key] = kept


class Branches:
    """Rows of embeddings, in the order of `spans`; the spans of `follow` come after all that it follows.

    prefixes: those that are known come first, and their rows need not be computed.
    """

    def __init__(self, prefixes: Prefixes | None = None) -> None:
        self.spans: list[Span] = []
        self.kept: list[Kept] = []
        self._prefixes = prefixes
        self._new: dict[bytes, tuple[mx.array, list[mx.array]]] = {}
        self._parts: list[mx.array] = []
        self._count = 0
        self._known: dict[tuple[int, bytes], int] = {}
        self._recalled: dict[bytes, Sequence[int]] = {}

    @property
    def rows(self) -> mx.array:
        """All rows that have to be computed, (N, D)."""
        return mx.concatenate(self._parts)

    def recall(self, rows: mx.array) -> None:
        """Take what is known of a prefix (L, D), if anything is. All calls come before those of `begin`."""
        key = _key(rows)
        if self._prefixes is None or key in self._recalled:
            return
        kept = self._prefixes.find(key)
        if kept is not None:
            self.kept.append(kept)
            self._recalled[key] = range(self._count, self._count + len(rows))
            self._count += len(rows)

    def begin(self, rows: mx.array) -> Sequence[int]:
        """The places of the first positions (L, D) of a sequence. Those that no other begins with are added."""
        key = _key(rows)
        if key in self._recalled:
            return self._recalled[key]
        places, before = [-1], self._count
        for content in np.array(rows.astype(mx.float32)):
            place = self._known.setdefault((places[-1], content.tobytes()), self._count)
            self._count += place == self._count
            places.append(place)
        if self._count > before:
            self._add(rows[len(rows) + before - self._count :], places[1:])
        if self._prefixes is not None:
            self._new.setdefault(key, (mx.array(places[1:]), []))
        return places[1:]

    def follow(self, places: Sequence[int], rows: mx.array, reading: Reading | None = None) -> None:
        """Add positions (L, D) that are of one sequence alone, after others. reading: see Span."""
        self._count += len(rows)
        self._add(rows, [*places, *range(self._count - len(rows), self._count)], reading)

    def note(self, joint: mx.array, layers: int) -> None:
        """Keep what is new of one of so many layers: queries, keys and values of all places, (M, 3, heads, size)."""
        for key, (places, found) in list(self._new.items()):
            assert self._prefixes is not None  # noqa: S101 - as `begin` has made sure
            if not found and not self._prefixes.has_room(joint[places, 1:].nbytes * layers):
                del self._new[key]
                continue
            found.append(joint[places, 1:])
            mx.eval(found[-1])  # so that the others can go
            if len(found) == layers:
                self._prefixes.keep(key, found)

    def _add(self, rows: mx.array, places: Sequence[int], reading: Reading | None = None) -> None:
        self.spans.append(Span(np.array(places, dtype=np.int64), len(rows), reading))
        self._parts.append(rows)


def _key(rows: mx.array) -> bytes:
    return np.array(rows.astype(mx.float32)).tobytes()
