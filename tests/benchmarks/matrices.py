"""Whether the time of a whole matrix is a line in its cells: 2, 4 and 8 cells of Finch, generated and checked.

Every run has the same number of tokens (the cap comes before the end of the texts), and one cell goes first,
uncounted, so that what is loaded once is not counted. The expectation for 8 cells is 4 times the time of 2. Goal 0.8
and not 1: see `growth.py`.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sampler.matrix.matrix import load_matrix
from sampler.run.session import Session
from sampler.run.suite import run_suite, suite_of
from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import Comparison
from tests.sessions import Seen

CELLS = (2, 4, 8)
REQUESTS, TOKENS, QUICK_TOKENS = 8, 80, 20
GOAL = 0.8

MATRIX = """
why = "Does the time of a matrix grow linearly in its cells?"
[generation]
prompts = "paragraphs"
requests = {requests}
width = {requests}
max_new_tokens = {tokens}
[axes]
temperature = {temperatures}
"""


def seconds(cells: int, tokens: int) -> tuple[float, int]:
    temperatures = [round(0.7 + 0.02 * cell, 2) for cell in range(cells)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"of-{cells}-cells.toml"
        path.write_text(MATRIX.format(requests=REQUESTS, tokens=tokens, temperatures=temperatures), encoding="utf-8")
        suite, seen = suite_of(Session(load_matrix(path))), Seen()
        suite.prepare()
        start = time.perf_counter()
        run_suite(suite, [seen])
        taken, results = time.perf_counter() - start, seen.results
    broken = [result.case.id for result in results if result.outcome == "errored"]
    if broken:
        raise RuntimeError(f"cells ended with an error: {', '.join(broken)}")
    return taken, sum(result.tokens for result in results)


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    tokens = QUICK_TOKENS if quick else TOKENS
    seconds(1, tokens)
    taken: dict[int, list[float]] = {cells: [] for cells in CELLS}
    for cells in (*CELLS, *reversed(CELLS[:-1])):  # there and back, so that a slow minute bends no line
        time_of_all, drawn = seconds(cells, tokens)
        taken[cells].append(time_of_all)
        yield f"rate of {cells}", drawn / time_of_all
    means = np.array([np.mean(taken[cells]) for cells in CELLS])
    line = np.polyval(np.polyfit(CELLS, means, 1), CELLS)
    yield "deviation", 100 * float(np.abs(means / line - 1).max())
    yield f"{CELLS[-1]} cells", float(means[-1])
    yield "expected", float(CELLS[-1] / CELLS[0] * means[0])


SIDES = {"ours": ours}
RATES = [Row(f"matrix of {n} cells, tokens", Figure("ours", f"rate of {n}"), "tokens/s", better="more") for n in CELLS]
LAST = Figure("ours", f"{CELLS[-1]} cells")

ROWS = (
    *RATES,
    Row("matrix of 8 cells and 4 times one of 2", LAST, "s", Figure("ours", "expected"), "line", GOAL),
    Row("matrices of 2, 4 and 8 cells, largest deviation from a line", Figure("ours", "deviation"), "%"),
)
COMPARISON = Comparison("matrices", __name__, ("ours",) * 3, ROWS)
