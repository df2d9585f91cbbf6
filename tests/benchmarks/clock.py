"""How long one call takes: the median of many, after some that are not counted."""

import os
import statistics
import time
from collections.abc import Callable

WARM, LEAST = 3, 7


def threads() -> int:
    """How many threads this process was given by the runner."""
    return int(os.environ["OMP_NUM_THREADS"])


def median_seconds(step: Callable[[], object], *, for_seconds: float) -> float:
    """Median time of a call, over as many as the given time holds, and at least 7."""
    return statistics.median(times_of(step, for_seconds=for_seconds))


def times_of(step: Callable[[], object], *, for_seconds: float) -> list[float]:
    """Seconds of each call, as many as the given time holds, and at least 7."""
    for _ in range(WARM):
        step()
    times: list[float] = []
    end = time.perf_counter() + for_seconds
    while len(times) < LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times
