"""A step of our alignment analyzer beside one of upstream's object, one utterance each, at step 400 and 4,000.

Upstream has one object for each utterance; ours judges 1 or 32 rows at once. All texts are complete, so that every sum
is taken. Neither writes a log line: nothing is forced.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sampler.alignment import AlignmentStreamAnalyzer
from sampler.variants import analyzer
from tests.benchmarks.clock import median_of_fresh, threads
from tests.benchmarks.rows import UPSTREAM, Figure, Row
from tests.benchmarks.runner import Comparison

STEPS, BATCH = (400, 4_000), 32
LENGTH, HEADS, VOCABULARY = 100, 3, 8_194
ROW = np.full((HEADS, LENGTH), 1e-5, dtype=np.float32)


def ours_at(step: int, rows: int) -> AlignmentStreamAnalyzer:
    """An analyzer in the middle of complete runs."""
    from tests.replays import EOS

    judge = AlignmentStreamAnalyzer(analyzer("upstream"), rows, EOS)
    for row in range(rows):
        judge.start(row, LENGTH)
    judge._steps[:], judge._position[:], judge._complete[:] = step, LENGTH - 1, True
    return judge


def theirs_at(step: int) -> Any:
    """Upstream's object in the middle of a complete run."""
    import torch

    from tests.replays import BEFORE, Upstream

    theirs = Upstream("0.1.7", LENGTH).analyzer
    theirs.alignment = torch.full((step, LENGTH), 1e-5)
    theirs.curr_frame_pos, theirs.text_position = step, LENGTH - 1
    theirs.complete, theirs.completed_at = True, LENGTH
    theirs.last_aligned_attns = list(torch.full((HEADS, 1, BEFORE + LENGTH + step), 1e-5))
    return theirs


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    for step in STEPS:
        for rows in (1, BATCH):
            given = range(rows), [ROW] * rows, [7] * rows
            make = lambda: ours_at(step, rows)  # noqa: B023, E731 - called before the loop goes on
            seconds = median_of_fresh(make, lambda judge: judge.step(*given), 100 if quick else 1_000)  # noqa: B023
            yield f"{rows} at {step}", 1e6 * seconds / rows


def upstreams(*, quick: bool) -> Iterator[tuple[str, float]]:
    import torch

    torch.set_num_threads(threads())
    logits = torch.zeros(1, VOCABULARY)
    for step in STEPS:
        make = lambda: theirs_at(step)  # noqa: B023, E731 - called before the loop goes on
        seconds = median_of_fresh(make, lambda judge: judge.step(logits, next_token=7), 100 if quick else 1_000)
        yield str(step), 1e6 * seconds


SIDES = {"ours": ours, "upstream": upstreams}


def _row(step: int, rows: int) -> Row:
    name = f"analyzer, step {step:,}, {'1 row' if rows == 1 else f'a row of {rows}'}"
    goal = 1.0 if step == 4_000 else None
    return Row(name, Figure("ours", f"{rows} at {step}"), "us", Figure("upstream", str(step)), UPSTREAM, goal)


ROWS = tuple(_row(step, rows) for step in STEPS for rows in (1, BATCH))
COMPARISON = Comparison("analyzer", __name__, ("ours", "upstream") * 3, ROWS)
