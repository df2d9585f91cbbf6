"""Scoring with noise that it does not know, and with the suite's noise."""

import numpy as np

from sampler.chain.noise import gumbel_where
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from tests.duel.tokens import ALPHA, Bounded, Judged, model

ROUNDING = 2e-5
"""Nats by which adding noise in float32 may change a score, on both sides together."""


def rejects_after(runs: list[Judged], tolerance: Tolerance = SINGLE) -> int | None:
    """How many tokens of runs with one config are enough: an impossible one, the bets, or how a run ends."""
    score = model().score(runs[0].row.config, ALPHA, tolerance)
    for judged in runs:
        score.add(judged.run)
        if score.decided:
            return score.enough
        if score.wrong:
            return sum(len(run.tokens) for run in score.runs)
    return None


def proof_after(runs: list[Judged]) -> int | None:
    """How many tokens it takes until one cannot have won with its noise: a proof."""
    before = 0
    for judged in runs:
        for bounded in judged.bounded:
            wrong = np.flatnonzero(cannot_win(bounded, judged))
            if len(wrong):
                return before + int(bounded.steps.context.step[wrong[0]]) + 1
        before += len(judged.run.tokens)
    return None


def cannot_win(bounded: Bounded, judged: Judged) -> np.ndarray:
    """Whether a drawn token is removed, or below another one whatever rounding does to both: bool (T,)."""
    steps, final = bounded.steps, bounded.final
    rows = np.arange(len(steps.tokens))
    noise = gumbel_where([judged.key] * len(rows), steps.context.step.tolist(), final.kept)
    with np.errstate(invalid="ignore"):
        least = np.where(bounded.must, final.scores + noise - final.error, -np.inf).max(axis=-1)
        most = (final.scores + noise + final.error)[rows, steps.tokens]
    allowed = bounded.may[rows, steps.tokens]
    return ~allowed | (final.kept[rows, steps.tokens] & (most + ROUNDING < least))
