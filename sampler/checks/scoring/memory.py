"""What a step can draw, and what the tokens of earlier steps say of the noise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BINS = 64
"""Parts of the unit interval in which uniform numbers are counted; a power of 2, so that their borders are exact."""


@dataclass(frozen=True)
class Step:
    """The tokens that one step can draw, or each of T steps: ids (..., K) in ascending order, p, and which are EOS.

    A step of fewer than K tokens has others of p = 0 at its end, which count for nothing. error: by how much rounding
    may change the logarithms of p, (..., K) or one number.
    """

    ids: NDArray[np.int64]
    p: Array
    is_eos: NDArray[np.bool_]
    error: Array | float = 0.0

    @cached_property
    def is_best(self) -> NDArray[np.bool_]:
        """Which token is the likeliest, (..., K), one of each step."""
        best: NDArray[np.bool_] = np.arange(self.p.shape[-1]) == self.p.argmax(axis=-1)[..., None]
        return best

    @cached_property
    def id_edges(self) -> tuple[Array, Array]:
        """Where the interval of each token begins and ends, tokens in the order of their ids: two (..., K)."""
        ends = np.cumsum(self.p, axis=-1)
        return ends - self.p, ends

    @cached_property
    def rank_edges(self) -> tuple[Array, Array]:
        """The same, the likeliest token first."""
        order = np.argsort(-self.p, axis=-1, kind="stable")
        ends = np.empty_like(self.p)
        np.put_along_axis(ends, order, np.cumsum(np.take_along_axis(self.p, order, axis=-1), axis=-1), axis=-1)
        return ends - self.p, ends

    def landed(self, edges: tuple[Array, Array], drawn: NDArray[np.int64]) -> Array:
        """For each bin the probability that the uniform number of a drawn token lay in it: (..., BINS)."""
        begin, end, p = (np.take_along_axis(of, drawn[..., None], axis=-1) for of in (*edges, self.p))
        borders = np.arange(BINS + 1) / BINS
        shares = np.minimum(end, borders[1:]) - np.maximum(begin, borders[:-1])
        return np.asarray(np.maximum(shares, 0.0) / p)


@dataclass
class Memory:
    """What the tokens so far say of the noise. drawn, expected: by id, how often it came and should have come.

    by_rank, by_id: how often the uniform number that an inverted distribution function takes lay in each bin, tokens in
    the order of their probability or of their ids.
    """

    drawn: dict[int, float] = field(default_factory=dict)
    expected: dict[int, float] = field(default_factory=dict)
    by_rank: Array = field(default_factory=lambda: np.zeros(BINS))
    by_id: Array = field(default_factory=lambda: np.zeros(BINS))

    def learn(self, ids: Sequence[int], p: Sequence[float], drawn: int, by_rank: Array, by_id: Array) -> None:
        """Add a step. drawn: the token. by_rank, by_id: where its uniform number may have lain, (BINS,)."""
        self.drawn[drawn] = self.drawn.get(drawn, 0.0) + 1
        for token, share in zip(ids, p, strict=True):
            self.expected[token] = self.expected.get(token, 0.0) + share
        self.by_rank = self.by_rank + by_rank
        self.by_id = self.by_id + by_id

    def follow(self, steps: "Step", drawn: NDArray[np.int64], by_rank: Array, by_id: Array) -> "Past":
        """What was known before each of T steps, all of which are added. by_rank, by_id: (T, BINS)."""
        tokens, places = np.unique(steps.ids, return_inverse=True)
        places = places.reshape(steps.ids.shape)
        rows = np.arange(len(places))[:, None]
        came = np.zeros((len(places), len(tokens)))
        came[rows[:, 0], places[rows[:, 0], drawn]] = 1
        flat = (rows * len(tokens) + places).ravel()
        shares = np.bincount(flat, weights=steps.p.ravel(), minlength=came.size).reshape(came.shape)
        found = []
        for known, more in ((self.drawn, came), (self.expected, shares)):
            sums = np.cumsum(np.vstack([[known.get(token, 0.0) for token in tokens.tolist()], more]), axis=0)
            known.update(zip(tokens.tolist(), sums[-1].tolist(), strict=True))
            found.append(np.where(steps.p > 0, sums[rows, places], 0.0))
        bins = [np.cumsum(np.vstack(pair), axis=0) for pair in ((self.by_rank, by_rank), (self.by_id, by_id))]
        self.by_rank, self.by_id = (sums[-1] for sums in bins)
        return Past(*found, *(sums[:-1] for sums in bins))


class Past(NamedTuple):
    """A memory as each of T steps found it. drawn, expected: of their tokens, (T, K). by_rank, by_id: (T, BINS)."""

    drawn: Array
    expected: Array
    by_rank: Array
    by_id: Array

    @classmethod
    def of(cls, steps: Step) -> "Past":
        """With nothing in it."""
        count, most = steps.ids.shape
        return cls(*(np.zeros((count, size)) for size in (most, most, BINS, BINS)))

    def note(self, row: int, ids: Sequence[int], memory: Memory) -> None:
        """Write down what a memory holds now."""
        self.drawn[row, : len(ids)] = [memory.drawn.get(token, 0.0) for token in ids]
        self.expected[row, : len(ids)] = [memory.expected.get(token, 0.0) for token in ids]
        self.by_rank[row], self.by_id[row] = memory.by_rank, memory.by_id


class Pasts(NamedTuple):
    """See `Memories`."""

    run: Past
    runs: Past
    cell: Past


@dataclass
class Memories:
    """run: of this run. runs: for each of the next steps, of that step in earlier runs. cell: of every step so far."""

    run: Memory = field(default_factory=Memory)
    runs: Sequence[Memory] = ()
    cell: Memory = field(default_factory=Memory)

    def follow(self, steps: Step, drawn: NDArray[np.int64]) -> Pasts:
        """What was known before each of T steps. They are added. drawn: the places (T,) of the drawn tokens."""
        by_rank, by_id = (steps.landed(edges, drawn) for edges in (steps.rank_edges, steps.id_edges))
        run, cell = (memory.follow(steps, drawn, by_rank, by_id) for memory in (self.run, self.cell))
        runs, counts = Past.of(steps), (steps.p > 0).sum(axis=-1).tolist()
        for row, (count, place, memory) in enumerate(zip(counts, drawn.tolist(), self.runs, strict=True)):
            ids, p = steps.ids[row, :count].tolist(), steps.p[row, :count].tolist()
            runs.note(row, ids, memory)
            memory.learn(ids, p, ids[place], by_rank[row], by_id[row])
        return Pasts(run, runs, cell)
