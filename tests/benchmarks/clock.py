"""How long one call takes: the median of many, after some that are not counted."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

WARM, LEAST = 3, 7


def threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


def median_of_fresh(make: Callable[[], Any], step: Callable[[Any], object], rounds: int) -> float:
    """Median time of a step of an object that is made anew each time, outside of the time."""
    times = []
    for given in (make() for _ in range(WARM + rounds)):
        start = time.perf_counter()
        step(given)
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def median_seconds(step: Callable[[], object], *, for_seconds: float) -> float:
    return statistics.median(times_of(step, for_seconds=for_seconds))


def times_of(step: Callable[[], object], *, for_seconds: float) -> list[float]:
    for _ in range(WARM):
        step()
    times: list[float] = []
    end = time.perf_counter() + for_seconds
    while len(times) < LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times
