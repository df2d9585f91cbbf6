"""A step of our alignment analyzer beside one of upstream's object, one utterance each, at step 400 and 4,000."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.clock import threads
from tests.benchmarks.rows import UPSTREAM, Figure, Row
from tests.benchmarks.runner import Comparison

STEPS, BATCH = (400, 4_000), 32


def _median(make: Callable[[], Any], step: Callable[[Any], object], count: int) -> float:
    """Median microseconds of a step of an object that is made anew each time, outside of the time."""
    times = []
    for _ in range(count):
        judge = make()
        start = time.perf_counter()
        step(judge)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[3:])


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    """One row, and 32 rows at once, a row."""
    from tests.benchmarks.test_alignment import ROW, ours_at

    for step in STEPS:
        for rows in (1, BATCH):
            attention, tokens = [ROW] * rows, [7] * rows
            microseconds = _median(
                lambda: ours_at(step, rows),  # noqa: B023 - called before the loop goes on
                lambda judge: judge.step(range(rows), attention, tokens),  # noqa: B023
                100 if quick else 1_000,
            )
            yield f"{rows} at {step}", microseconds / rows


def upstreams(*, quick: bool) -> Iterator[tuple[str, float]]:
    """Upstream's object."""
    import torch

    from tests.benchmarks.test_alignment import LOGITS, theirs_at

    torch.set_num_threads(threads())
    logits = torch.from_numpy(LOGITS)[None]
    for step in STEPS:
        yield (
            str(step),
            _median(
                lambda: theirs_at(step).analyzer,  # noqa: B023 - called before the loop goes on
                lambda judge: judge.step(logits, next_token=7),
                100 if quick else 1_000,
            ),
        )


SIDES = {"ours": ours, "upstream": upstreams}

COMPARISON = Comparison(
    name="analyzer",
    module=__name__,
    turns=("ours", "upstream") * 3,
    quick_turns=("ours", "upstream"),
    rows=tuple(
        Row(
            f"analyzer, step {step:,}, {'1 row' if rows == 1 else f'a row of {rows}'}",
            Figure("ours", f"{rows} at {step}"),
            "us",
            Figure("upstream", str(step)),
            UPSTREAM,
            goal=1.0 if step == 4_000 else None,
        )
        for step in STEPS
        for rows in (1, BATCH)
    ),
)
