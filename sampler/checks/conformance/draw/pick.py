"""Check `pick`, the deterministic half of drawing, with extreme noise."""

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.judge import Judge
from sampler.checks.verdict import Finding
from sampler.engines.calls import Answer, Call

Array = NDArray[np.float64]

LOUD = 36.75
"""The largest Gumbel noise that the suite can generate, from a uniform next to 1; QUIET: the smallest."""
QUIET = -3.61


def picks(judge: Judge, seed: int) -> Finding:
    """`pick` takes the largest score plus noise; extreme noise changes neither removed nor certain tokens."""
    rng = np.random.default_rng([seed, 31])
    scores = rng.normal(0, 2, (28, 301)).astype(np.float32)
    scores[:, ::4] = -np.inf
    noise = rng.gumbel(size=scores.shape).astype(np.float32)
    noise[:8, ::4] = LOUD
    noise[8:12, 1:] = np.where(scores[8:12, 1:] > -np.inf, QUIET, LOUD)
    scores[12:16] = -np.inf
    scores[12:16, 77] = -30.0
    noise[12:16] = LOUD
    noise[12:16, 77] = QUIET
    scores[24:, 78], noise[24:, 78] = -16.0, LOUD  # unlikely, but it wins
    expected = np.argmax(scores.astype(np.float64) + noise, axis=-1)
    answer = judge.client.ask(Call("pick", {"scores": scores, "gumbel": noise}))
    if answer.value is None or answer.value.shape != (len(scores),):
        message = answer.message or f"pick() gave tokens of shape {getattr(answer.value, 'shape', None)}"
        return Finding("draw", "draw", "errored", 0, message)
    if answer.wrote:
        return Finding(
            "draw", "purity", "failed", len(scores), f"pick() writes into {', '.join(answer.wrote)}", 1.0, 0.0
        )
    wrong = np.flatnonzero(answer.value != expected)
    if judge.rounding:  # sums may be equal in lower precision
        wrong = np.array(
            [row for row in wrong.tolist() if not _rounds_to_best(judge, scores[row], noise[row], answer, row)]
        )
    if len(wrong):
        row, token = int(wrong[0]), int(answer.value[wrong[0]])
        removed = 0 <= token < scores.shape[1] and scores[row, token] == -np.inf
        which = f"the removed token {token}" if removed else f"token {token}"
        best = f"score plus noise is largest at {expected[row]}"
        message = f"{len(wrong)} of {len(scores)} rows: row {row} gave {which}, {best}"
        return Finding("draw", "draw", "failed", len(scores), message, len(wrong), 0.0)
    return Finding("draw", "draw", "passed", len(scores), f"{len(scores)} rows, extreme noise among them", 0.0, 0.0)


def _rounds_to_best(judge: Judge, scores: Array, noise: Array, answer: Answer, row: int) -> bool:
    """Whether a row's token is as good as the best within the engine's precision."""
    assert answer.value is not None  # noqa: S101 - the caller made sure
    token, raced = int(answer.value[row]), scores.astype(np.float64) + noise
    if not 0 <= token < len(scores) or scores[token] == -np.inf:
        return False
    best = int(np.argmax(raced))
    size = sum(float(abs(scores[at]) + abs(noise[at])) for at in (token, best))
    return bool(raced[best] - raced[token] <= judge.rounding * size)
