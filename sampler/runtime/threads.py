"""Threads that split rows between them; compiled loops release the GIL."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a forked process has none of its threads
    return ThreadPoolExecutor(threads, "rows")


def in_parts(work: Callable[[int, int], None], rows: int, threads: int, cuts: Sequence[int] | None = None) -> None:
    """Call work(first, last) for consecutive rows on this many threads, including the caller's.

    cuts: where the parts end, threads - 1 row numbers in order; None: parts of equal size.
    """
    inner = [rows * part // threads for part in range(1, threads)] if cuts is None else cuts
    (first, last), *others = itertools.pairwise([0, *inner, rows])
    running = [_pool(os.getpid(), threads - 1).submit(work, *part) for part in others]
    work(first, last)
    for part in running:
        part.result()
