"""A step of our analyzer and of upstream's object, at step 400 and 4,000: compare the lines.

Upstream has one object for each utterance; ours judges 1 or 32 rows at once. All texts are complete, so that every sum
is taken. Neither writes a log line: nothing is forced.
"""

import numpy as np
import pytest
import torch

from sampler.alignment import AlignmentStreamAnalyzer
from sampler.variants import analyzer
from tests.replays import BEFORE, EOS, Upstream

LENGTH, HEADS, VOCABULARY = 100, 3, 8_194
ROW = np.full((HEADS, LENGTH), 1e-5, dtype=np.float32)
LOGITS = np.zeros(VOCABULARY, dtype=np.float32)


def ours_at(step: int, rows: int) -> AlignmentStreamAnalyzer:
    """An analyzer in the middle of complete runs."""
    judge = AlignmentStreamAnalyzer(analyzer("upstream"), rows, EOS)
    for row in range(rows):
        judge.start(row, LENGTH)
    judge._steps[:], judge._position[:], judge._complete[:] = step, LENGTH - 1, True
    return judge


def theirs_at(step: int) -> Upstream:
    """Upstream's object in the middle of a complete run."""
    theirs = Upstream("0.1.7", LENGTH)
    theirs.analyzer.alignment = torch.full((step, LENGTH), 1e-5)
    theirs.analyzer.curr_frame_pos, theirs.analyzer.text_position = step, LENGTH - 1
    theirs.analyzer.complete, theirs.analyzer.completed_at = True, LENGTH
    rows = torch.full((HEADS, 1, BEFORE + LENGTH + step), 1e-5)
    theirs.analyzer.last_aligned_attns = list(rows)
    return theirs


@pytest.mark.benchmark(group="alignment")
@pytest.mark.parametrize("step", [400, 4_000])
@pytest.mark.parametrize("rows", [1, 32])
def test_ours(benchmark, step, rows):
    attention, tokens = [ROW] * rows, [7] * rows

    def setup():
        return (ours_at(step, rows), range(rows), attention, tokens), {}

    decisions = benchmark.pedantic(AlignmentStreamAnalyzer.step, setup=setup, rounds=300)
    assert decisions.complete.all()
    assert not decisions.forced.any()


@pytest.mark.benchmark(group="alignment")
@pytest.mark.parametrize("step", [400, 4_000])
def test_upstreams_object(benchmark, step):
    logits = torch.from_numpy(LOGITS)[None]

    def setup():
        return (theirs_at(step).analyzer,), {}

    changed = benchmark.pedantic(lambda judge: judge.step(logits, next_token=7), setup=setup, rounds=300)
    assert torch.equal(changed, logits)
