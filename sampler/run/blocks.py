"""Which cells of a matrix are generated together, and which slot serves each request.

Both depend only on the matrix: a cell that runs alone, by `sampler replay` or pytest's `-k`, has the same slots and
width as in the whole run, and a request does not depend on its neighbours.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sampler.matrix.matrix import Case

Answer = TypeVar("Answer")

TURNS = 8
"""Average number of requests per slot of a block; at the end of a block slots become idle."""


def count(case: Case) -> int:
    """Requests of a cell."""
    return case.workload.count * case.workload.runs


def blocks_of(cases: Sequence[Case]) -> list[tuple[Case, ...]]:
    """Cells with the same variant, in the order of the matrix; a block gives each slot about `TURNS` requests."""
    blocks: list[tuple[Case, ...]] = []
    for variant in dict.fromkeys(case.variant for case in cases):
        waiting: list[Case] = []
        for case in (one for one in cases if one.variant == variant):
            waiting.append(case)
            if sum(map(count, waiting)) >= TURNS * case.workload.width:
                blocks.append(tuple(waiting))
                waiting = []
        if waiting:
            blocks.append(tuple(waiting))
    return blocks


def block_of(cases: Sequence[Case], case: Case) -> tuple[Case, ...]:
    """The block of a cell of the matrix."""
    return next(block for block in blocks_of(cases) if any(other.cell == case.cell for other in block))


def apart(answers: Iterable[Answer], queues: Sequence[Sequence[object]]) -> list[list[Answer]]:
    """Split the answers to queues that were served as one, queue by queue."""
    following = iter(answers)
    return [[next(following) for _ in queue] for queue in queues]


def shares(seconds: float, tokens: Sequence[int]) -> list[float]:
    """Split the seconds of a block in proportion to the tokens of its cells."""
    return [seconds * number / max(sum(tokens), 1) for number in tokens]


def slots_of(cases: Sequence[Case], case: Case, requests: int, width: int, first: int = 0) -> list[int]:
    """The slots, out of `width`, of a cell's requests from number `first` on.

    Each cell begins one slot after the last of the cell before it. So the first requests of cells, which are generated
    again together, have different slots.
    """
    before = sum(count(other) + 1 for other in itertools.takewhile(lambda other: other.cell != case.cell, cases))
    return [(before + first + index) % width for index in range(requests)]
