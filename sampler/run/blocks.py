"""Which cells of a matrix are generated together, and in which slot each request is served.

Both follow from the matrix alone: a cell that is run by itself, by `sampler replay` or pytest's `-k`, has the slots and
the width that it has in the whole run, and a request does not depend on its neighbours.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sampler.matrix.matrix import Case

Answer = TypeVar("Answer")

TURNS = 8
"""How many requests a slot of a block serves on average: the last ones of a block leave slots idle."""


def count(case: Case) -> int:
    """Requests of a cell."""
    return case.workload.count * case.workload.runs


def blocks_of(cases: Sequence[Case]) -> list[tuple[Case, ...]]:
    """Cells that share a variant in the order of the matrix, as many as give each slot `TURNS` requests."""
    blocks: list[tuple[Case, ...]] = []
    for variant in dict.fromkeys(case.variant for case in cases):
        waiting: list[Case] = []
        for case in (each for each in cases if each.variant == variant):
            waiting.append(case)
            if sum(map(count, waiting)) >= TURNS * case.workload.width:
                blocks.append(tuple(waiting))
                waiting = []
        if waiting:
            blocks.append(tuple(waiting))
    return blocks


def block_of(cases: Sequence[Case], case: Case) -> tuple[Case, ...]:
    """The block that a cell of the matrix is in."""
    return next(block for block in blocks_of(cases) if any(each.cell == case.cell for each in block))


def apart(answers: Iterable[Answer], queues: Sequence[Sequence[object]]) -> list[list[Answer]]:
    """What was answered to queues that were served as one, queue by queue."""
    following = iter(answers)
    return [[next(following) for _ in queue] for queue in queues]


def shares(seconds: float, tokens: Sequence[int]) -> list[float]:
    """What a block took, by the tokens of its cells."""
    return [seconds * each / max(sum(tokens), 1) for each in tokens]


def slots_of(cases: Sequence[Case], case: Case, requests: int, width: int, first: int = 0) -> list[int]:
    """The slots, out of `width`, of a cell's requests from number `first` on.

    Each cell begins one slot further on than the cell before it ended, so that the first requests of cells, which are
    generated again beside each other, have different slots.
    """
    before = sum(count(each) + 1 for each in itertools.takewhile(lambda each: each.cell != case.cell, cases))
    return [(before + first + index) % width for index in range(requests)]
