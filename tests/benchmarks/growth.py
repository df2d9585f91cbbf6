"""Finch's time a token over length and width; whether a step at 4,000 costs what attention's growth explains.

Steps are timed over filled caches (`endless.py`). Attention reads every key and value once, so a step's time is a
line in the length: the line through 100 and 1,000 tokens is what is expected at 4,000. Goal 0.8 and not 1, because
both ends of the line are measured in one process on a machine that others may use.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator

from sampler.generation.generator import Generator
from tests.benchmarks import endless
from tests.benchmarks.child import PEAK_MEMORY
from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import Comparison

LENGTHS = (100, 1_000, 4_000)
WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
LONGEST_AT = 32  # slots beyond which 4,000 tokens are not tried: the caches of 128 take 10 GB

STEPS, QUICK_STEPS = 12, 6
GOAL = 0.8

GRID = [(width, length) for width in WIDTHS for length in LENGTHS if length < LENGTHS[-1] or width <= LONGEST_AT]
BACK = [(LONGEST_AT, length) for length in (*LENGTHS, *reversed(LENGTHS[:-1]))]
"""Measured once more, there and back, so that a slow minute bends no line."""


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    config, tensors = endless.finch_tensors(text_positions=endless.TEXT + LENGTHS[-1])
    steps = endless.STEPS_TO_WARM_UP + (QUICK_STEPS if quick else STEPS)
    for width, length in (*GRID, *BACK):
        made = endless.checkpoint(config, dict(tensors), fill_beyond=2 * width)
        asked = endless.filled(config, width, length, steps)
        found[width, length].append(1_000 * endless.our_step(Generator(made, width=width), asked) / width)
        yield f"{width} at {length}", found[width, length][-1]
    short, middle, long = LENGTHS
    first, second = (statistics.mean(found[LONGEST_AT, length]) for length in (short, middle))
    yield "line", first + (second - first) / (middle - short) * (long - short)


SIDES = {"ours": ours}
CELLS = [
    Row(f"Finch, a token at {length:,}, width {width}", Figure("ours", f"{width} at {length}"), "ms")
    for width, length in GRID
]
LINE = f"Finch, a token at 4,000 and the line through 100 and 1,000, width {LONGEST_AT}"
AT_THE_END = Figure("ours", f"{LONGEST_AT} at {LENGTHS[-1]}")

ROWS = (
    *CELLS,
    Row(LINE, AT_THE_END, "ms", Figure("ours", "line"), "line", GOAL),
    Row("Finch, peak memory over the caches of this table", Figure("ours", PEAK_MEMORY), "MiB"),
)
COMPARISON = Comparison("growth", __name__, ("ours", "ours"), ROWS)
