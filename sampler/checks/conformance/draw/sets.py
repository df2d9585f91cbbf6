"""Sets of tokens whose frequencies are tested one by one: loaded places, likely tokens, ranges of ids and of ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SINGLE = 40
LIKELY = 1e-3
"""So many of the likeliest tokens, with at least this probability, are a set each, where no places are named."""

RANKS = (1, 3, 10, 30, 100, 300, 1_000, 4_096, 10_000, 32_768, 65_536, 100_000)
IDS = (32, 1_024, 4_096, 16_384, 32_768, 65_536, 100_000, 131_072, 151_552)
"""Ends of ranges. The last one leaves what blocks of 1,024 or 4,096 do not fill of 151,936 tokens."""

LEAST = 1e-12
"""A set with less mass, or less outside, tells nothing."""


@dataclass(frozen=True, eq=False)
class TokenSets:
    """Named sets of tokens. members: bool (m, V). probabilities: of each, (m,)."""

    names: tuple[str, ...]
    members: Mask
    probabilities: Array

    def counts(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the tokens (n,) are in each set, (m,)."""
        return np.asarray(self.members[:, tokens].sum(axis=1), dtype=np.int64)


def sets_of(probabilities: Array, places: Sequence[int] = ()) -> TokenSets:
    """The sets of one distribution (V,); places: ids that are a set each."""
    named = list(_named(probabilities, places))
    members = np.stack([member for _, member in named])
    masses = np.minimum(members @ probabilities, 1.0)
    told = (masses > LEAST) & (masses < 1 - LEAST)
    if not told.any():  # one token alone is left
        told[0] = True
    names = tuple(name for (name, _), tells in zip(named, told, strict=True) if tells)
    return TokenSets(names, members[told], masses[told])


def _named(probabilities: Array, places: Sequence[int]) -> Iterator[tuple[str, Mask]]:
    size = len(probabilities)
    order = np.argsort(-probabilities, kind="stable")
    ids, rank = np.arange(size), np.empty(size, dtype=np.int64)
    rank[order] = np.arange(size)
    likely = [token for token in order[:SINGLE].tolist() if probabilities[token] >= LIKELY]
    for token in places or likely or [int(order[0])]:
        yield f"token {token}", ids == token
    for count in RANKS:
        if count < size:
            yield f"the tokens after the {count:,} most likely", rank >= count
    for end in IDS if size > SINGLE * 20 else ():
        if end < size:
            yield f"the ids below {end:,}", ids < end
