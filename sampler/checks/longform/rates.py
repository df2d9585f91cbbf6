"""Shares of an engine's runs in comparison with those of the reference, as findings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sampler.checks.longform.runs import TwoSides
from sampler.checks.verdict import SHARE_OF_RUNS, Finding
from sampler.statistics.judgement import Judgement
from sampler.statistics.stratified import StratifiedCounts


@dataclass(frozen=True)
class Power:
    """seen: the smallest detectable share. detect: the required one. needed: runs per text for it, 0: unknown."""

    seen: float
    detect: float
    needed: int


def marked_finding(
    sides: TwoSides,
    engine: Sequence[int],
    reference: Sequence[int],
    stage: str,
    words: str,
    alpha: float,
    detect: float,
) -> Finding:
    """Whether a property of runs is as frequent on both sides. engine, reference: number of such runs for each text.

    detect: a rise over the reference's share that `passed` must be able to detect.
    """
    n_engine, n_reference = zip(*sides.sizes, strict=True)
    test = StratifiedCounts(alpha)
    judgement = test.judge(engine, n_engine, reference, n_reference)
    seen = test.detectable_share(n_engine, n_reference, sum(reference))
    message = (
        f"{sum(engine)} of {sum(n_engine)} runs {words}, of the reference's {sum(reference)} of {sum(n_reference)} "
        f"(p = {judgement.p_value:.2g})"
    )
    if judgement.rejected:
        shares = [count / runs for count, runs in zip(engine, n_engine, strict=True)]
        worst = int(np.argmax(shares))
        message += f"; most in text {sides.texts[worst]!r} ({engine[worst]} of {n_engine[worst]})"
    rate = sum(reference) / sum(n_reference)
    least = min(1.0, rate + detect)
    needed = test.samples_needed(least, len(sides.texts), rate) if seen > least and rate <= least / 2 < 0.5 else 0
    return judged(sides, judgement, alpha, Power(seen, least, needed), message, stage)


def judged(sides: TwoSides, judgement: Judgement, alpha: float, power: Power, message: str, stage: str) -> Finding:
    """The finding of a judgement about a share of the engine's runs: passed only with the required power."""
    enough = power.seen <= power.detect and power.seen < 1
    if not judgement.rejected and enough:
        message += f"; detects at least {power.seen:.1%}"
    elif not judgement.rejected:
        shown = f">= {power.seen:.0%} of the runs" if power.seen < 1 else "nothing"
        more = f"; with {len(sides.texts)} texts {power.needed} runs of each on either side would do"
        required = f"{power.detect:.0%} is required{more if power.needed else ''}"
        message = f"too few runs (detects {shown}, {required}); {message}"
    figures = {"required": power.detect, "unit": SHARE_OF_RUNS}
    answer = replace(judgement, n=sides.count)
    return Finding.of_test("generate", stage, answer, message, alpha=alpha, detectable=power.seen, **figures)
