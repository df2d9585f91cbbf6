"""Diagnosis of stages that act at the value at which they are off."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sampler.checks.conformance.cells import ProbeResult
from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.diagnosis.order import Cause, explains, swapped
from sampler.checks.conformance.judge import Judge
from sampler.errors import Unsupported
from sampler.stages import Stage

Explain = Callable[[ProbeResult, Stage], str]
"""What a stage does in a cell, in the words of a known mistake; empty if none fits."""

MOST_CELLS = 4
"""Failing cells that are searched for a stage that acts although it is off."""


def off_causes(judge: Judge, results: Sequence[ProbeResult], explain: Explain) -> tuple[list[Cause], set[str]]:
    """Causes, and the names of the cells that they explain: those that are right without the stage in their order."""
    failing = [result for result in results if not result.blame and any(not one.failure for one in result.failing)]
    failing = [result for result in failing if not _is_exchanged(judge, result)]
    causes: list[Cause] = []
    explained: set[str] = set()
    for result in failing[:MOST_CELLS]:
        if result.cell.name in explained:
            continue
        acting = list(_acting(judge, _shown(result)))
        names = tuple(one.cell.name for one in failing if acting and _right_without(judge, one, acting))
        if names:
            causes += [
                Cause(stage, f"{stage}: {_words(stage, explain(result, stage), result)}", names) for stage in acting
            ]
            explained.update(names)
    return causes, explained


def _is_exchanged(judge: Judge, result: ProbeResult) -> bool:
    """Whether two stages are run in the other order."""
    pair = result.cell.stages
    return len(pair) == 2 and explains(judge, [result], partial(swapped, *pair))


def _shown(result: ProbeResult) -> Comparison:
    return next(one for one in result.failing if not one.failure)


def _words(stage: Stage, known: str, result: ProbeResult) -> str:
    one = _shown(result)
    what = {"alignment": "is no identity in process()", "cfg": "weight 0 changes the logits"}.get(stage)
    return known or f"{what or 'acts at its off value'}: {one.describe(int(np.argmax(one.wrong)))}"


def _acting(judge: Judge, one: Comparison) -> Iterator[Stage]:
    """The stages whose presence in the order makes a probe wrong, though they are off."""
    idle = _idle(one)
    if not idle or not _is_right(judge, one, idle):
        return
    for stage in idle:
        if not _is_right(judge, one, [other for other in idle if other != stage]):
            yield stage


def _idle(one: Comparison) -> list[Stage]:
    config = one.probe.config
    return [
        stage
        for stage in config.order
        if stage not in config.active_stages() and not (stage == "temperature" and config.greedy)
    ]


def _right_without(judge: Judge, result: ProbeResult, stages: Sequence[Stage]) -> bool:
    """Whether the wrong probes of a cell have some of the stages, all off, and are right without them."""
    wrong = [one for one in result.failing if not one.failure]
    left_out = [[stage for stage in stages if stage in _idle(one)] for one in wrong]
    return all(left_out) and all(_is_right(judge, *pair) for pair in list(zip(wrong, left_out, strict=True))[:2])


def _is_right(judge: Judge, one: Comparison, left_out: Sequence[Stage]) -> bool:
    """Whether the wrong rows of a probe are right if the order does not name some stages that are off."""
    probe = one.probe.only(np.flatnonzero(one.wrong)[:3].tolist())
    config = replace(probe.config, order=tuple(stage for stage in probe.config.order if stage not in left_out))
    try:
        asked = judge.asked(config)
        return asked != probe.config and not judge.compare(probe.with_config(asked)).wrong.any()
    except Unsupported:
        return False
