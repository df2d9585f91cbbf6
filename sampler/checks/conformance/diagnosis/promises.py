"""Diagnosis of declared rules that are not followed, and of removed tokens that draws can reach."""

from collections.abc import Sequence

import numpy as np

from sampler.checks.conformance.cells import ProbeResult
from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.conformance.dialects import acting
from sampler.checks.conformance.judge import Judge
from sampler.engines.rules import RULES, written


def broken_promise(judge: Judge, results: Sequence[ProbeResult]) -> Cause | None:
    """The cause if HuggingFace's rule explains every answer to some cells, in place of one declared rule."""
    failing = [one for result in results for one in result.failing]

    def at_work(stage: str) -> bool:
        return any(stage in one.probe.config.active_stages() or one.probe.config.greedy for one in failing)

    for name, value in judge.rules.items():
        ordered = name == "temperature_last"
        if not all(ordered or name in acting(judge.rules, one.probe.config) for one in failing):
            continue
        other = judge.disregarding(name)
        if all(_right(other, one) for result in results for one in result.comparisons):
            stage = "order" if ordered else next(stage for stage in RULES[name].stages if at_work(stage))
            cases = tuple(result.cell.name for result in results)
            rule = written({name: value})
            return Cause(stage, f"{stage}: declares {rule} and does not follow it: it {RULES[name].usual}", cases)
    return None


def _right(judge: Judge, one: Comparison) -> bool:
    return not one.failure and not Comparison(one.probe, judge.expect(one.probe), one.answer).wrong.any()


def reachable_mask(result: ProbeResult) -> str:
    """What is wrong if all wrong rows have a finite mask that draws can reach; else empty."""
    rows = [(one, row) for one in result.failing if not one.failure for row in np.flatnonzero(one.wrong).tolist()]
    if not rows or any(one.failure for one in result.failing) or any(one.mask_depth(row) is None for one, row in rows):
        return ""
    one, row = min(rows, key=lambda pair: pair[0].mask_depth(pair[1]) or 0.0)
    return one.describe_mask(row)


def both_broken(one: Comparison, scores: np.ndarray) -> np.ndarray:
    """Rows in which the engine and other scores both keep no token."""
    nothing = ~(scores > -np.inf).any(axis=-1)
    return np.asarray(nothing & ~(one.scores > -np.inf).any(axis=-1))
