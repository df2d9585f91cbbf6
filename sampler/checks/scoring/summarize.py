"""The summary of a score, small enough to be kept for every cell of a run."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from sampler.checks.scoring.calibration import BINS, ORDERS
from sampler.checks.scoring.causes import LEAST_TOKENS, plain
from sampler.checks.scoring.knobs import Knob, estimated
from sampler.checks.scoring.score import Score
from sampler.checks.scoring.summary import Answer, Bet, Estimate, Pit, Removed, ScoreSummary, Wealth
from sampler.requests import Steps

RICHEST: Final = 5
"""Bets whose wealth is shown."""

MOST_FITTED: Final = 800
"""Tokens from which sampling parameters are estimated at most, as far as whole runs go."""

MOST_IMPOSSIBLE: Final = 50

OUTSIDE: Final = 0.01
"""How often a right engine has any bin outside of the bands."""


def summarize(score: Score, names: Sequence[str] = ()) -> ScoreSummary:
    """What a page shows of a score. names: of the runs in the order of their requests, if they were not scored so."""
    steps = list(_first(score)) if score.checked >= LEAST_TOKENS else []
    places = {name: place for place, name in enumerate(names or [run.name for run in score.runs])}
    wagers = score.wagers
    return ScoreSummary(
        tokens=score.checked,
        runs=len(score.runs),
        bets=wagers.bets.n,
        wealth=_wealth(score) if wagers.bets.n else None,
        calibration=tuple(_calibration(score)) if wagers.bets.n >= LEAST_TOKENS else (),
        estimates=tuple(map(_estimate, plain(estimated(score.config, steps)))),
        fitted=sum(len(one.tokens) for one in steps),
        alternatives=tuple(
            Answer(one.named.text, one.named.stage, one.excluded, _whole(one.needed)) for one in wagers.alternatives
        ),
        impossible=tuple(Removed(places[one.run], one.step, str(one)) for one in score.impossible[:MOST_IMPOSSIBLE]),
        count=len(score.impossible),
    )


def _first(score: Score) -> Iterator[Steps]:
    """The steps of the first runs."""
    left = MOST_FITTED
    for run in score.runs:
        if left <= 0:
            return
        for steps in run.steps(score.config):
            yield steps
            left -= len(steps.tokens)


def _wealth(score: Score) -> Wealth:
    wagers = score.wagers
    tokens, history = wagers.history
    logs, mean = history[:, :-1], history[:, -1]
    richest = [at for at in np.argsort(-logs[-1], kind="stable") if wagers.bets.placed[at]][:RICHEST]
    bets = tuple(Bet(wagers.names[at].text, tuple(logs[:, at].round(2).tolist())) for at in richest)
    return Wealth(tuple(tokens), tuple(mean.round(2).tolist()), bets, -math.log(score.alpha), wagers.enough)


def _calibration(score: Score) -> Iterator[Pit]:
    calibration = score.wagers.calibration
    expected = calibration.steps / BINS
    reach = NormalDist().inv_cdf(1 - OUTSIDE / (2 * calibration.counts.size))
    for order, counts, variances in zip(ORDERS, calibration.counts, calibration.variances, strict=True):
        ratios, widths = counts / expected, reach * np.sqrt(variances) / expected
        yield Pit(order, tuple(ratios.round(4).tolist()), tuple(widths.round(4).tolist()))


def _estimate(knob: Knob) -> Estimate:
    values = (knob.asked, knob.estimate, knob.low, knob.high)
    return Estimate(knob.name, *(value if math.isfinite(value) else None for value in values))


def _whole(needed: float) -> int | None:
    return math.ceil(needed) if math.isfinite(needed) else None
