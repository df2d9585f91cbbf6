"""Scoring with noise that it does not know, and with the suite's noise."""

from sampler.checks.scoring.margin import Margins
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from tests.duel.tokens import ALPHA, MEASURED, Judged, model


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
    """How many tokens it takes until one cannot have won with its noise, whatever float32 rounding does here."""
    edges, margins = model().score(runs[0].row.config, ALPHA, MEASURED).reference, Margins(ALPHA, MEASURED)
    for judged in runs:
        assert judged.run.noise is not None
        for one in judged.bounded:
            margins.add(judged.run.name, judged.run.noise, one.steps, one.must, one.may, [edges])
        if margins.lost:
            return margins.proof
    return None
