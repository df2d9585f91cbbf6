"""Diagnosis of stages that are right alone and wrong together: another order, or a stage that is not run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sampler.checks.conformance.cells import ProbeResult
from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.settings import ORDERS
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.capabilities import has_stage
from sampler.stages import STAGES, Stage

Change = Callable[[SamplingConfig], SamplingConfig]
FULL_ORDERS = {name: order for name, order in ORDERS.items() if len(order) == len(STAGES) - 1}
"""Orders with every stage except `alignment`, which is the identity here."""


@dataclass(frozen=True)
class Cause:
    """One entry of a diagnosis. cases: names of the cells it explains. dialect: the one that behaves like this."""

    stage: str
    explanation: str
    cases: tuple[str, ...]
    dialect: str | None = None


def other_orders(info: EngineInfo) -> Iterator[tuple[str, tuple[Stage, ...]]]:
    """The named orders of the stages that an engine has, without those that are its default order."""
    default = tuple(stage for stage in STAGES if has_stage(info, stage) and stage != "alignment")
    for name, order in FULL_ORDERS.items():
        own = tuple(stage for stage in order if stage in default)
        if own != default:
            yield name, own


def in_order(order: tuple[Stage, ...], config: SamplingConfig) -> SamplingConfig:
    """The config with its stages in another order."""
    return replace(config, order=tuple(stage for stage in order if stage in config.order))


def without(stage: Stage, config: SamplingConfig) -> SamplingConfig:
    """The config with one stage off."""
    return config.without([stage])


def swapped(first: Stage, second: Stage, config: SamplingConfig) -> SamplingConfig:
    """The config with the second stage just before the first."""
    rest = [stage for stage in config.order if stage != second]
    rest.insert(rest.index(first), second)
    return replace(config, order=tuple(rest))


def _of_raw_logits(config: SamplingConfig) -> SamplingConfig:
    """The config without other stages at temperature 0."""
    others = [stage for stage in config.order if stage != "temperature"]
    return config.without(others) if config.greedy else config


def diagnose_order(
    judge: Judge, unexplained: Sequence[ProbeResult], together: Sequence[ProbeResult]
) -> Iterator[Cause]:
    """Causes of failed cells with several stages; together: all such cells whose stages are right alone."""
    names = tuple(result.cell.name for result in unexplained)
    greedy = all(one.probe.config.greedy for result in unexplained for one in result.failing)
    if greedy and _explains(judge, unexplained, _of_raw_logits):
        yield Cause("temperature", "temperature: 0 takes the largest logit, whatever the other stages say", names)
        return
    if all(name.startswith("order:") for name in names):
        yield Cause("order", f"order: {_of_asked_orders(unexplained)}", names)
        return
    failing = [one for result in unexplained for one in result.failing]
    if all(one.probe.config.greedy and not one.failure for one in failing):
        raw = all((one.scores.argmax(-1) == one.probe.logits.argmax(-1))[one.wrong].all() for one in failing)
        what = "takes the most likely token of the logits as they are given" if raw else "is not decided last"
        yield Cause("temperature", f"temperature: 0 {what}", names)
        return
    default_order = [result for result in together if not result.cell.name.startswith("order:")]
    for name, order in other_orders(judge.info):
        if _explains(judge, default_order, partial(in_order, order)):
            explanation = f"order: equals the dialect {name!r}: {' > '.join(order)}"
            yield Cause("order", explanation, names, dialect=name)
            return
    yield from _of_pairs(judge, unexplained)


def _of_asked_orders(results: Sequence[ProbeResult]) -> str:
    """What is wrong if only orders other than the default one fail."""
    failing = [one for result in results for one in result.failing]
    if all(one.probe.config.greedy for one in failing):
        return "temperature 0 decides where the stage stands, not after the last one"
    if all(result.cell.name.startswith(("order:without", "order:empty")) for result in results):
        return "a stage that the order leaves out is run all the same"
    return "keeps to its own order whatever it is asked for"


def _of_pairs(judge: Judge, unexplained: Sequence[ProbeResult]) -> Iterator[Cause]:
    """Test pairs of stages: swapped, or one without the other."""
    exchanged: dict[str, str] = {}
    dropped: dict[Stage, dict[str, str]] = {}
    rest = []
    for result in unexplained:
        pair = result.cell.stages if len(result.cell.stages) == 2 else None
        gone = None if pair is None else _dropped(judge, result)
        if pair is not None and _explains(judge, [result], partial(swapped, *pair)):
            exchanged[result.cell.name] = f"{pair[1]} before {pair[0]}"
        elif pair is not None and gone is not None:
            dropped.setdefault(gone, {})[result.cell.name] = pair[0] if gone == pair[1] else pair[1]
        else:
            rest.append(result)
    if exchanged:
        yield Cause("order", f"order: {', '.join(exchanged.values())}", tuple(exchanged))
    if len(dropped) > 2:
        names = tuple(name for cells in dropped.values() for name in cells)
        yield Cause("order", "order: of two stages that are on, one is not run", names)
        return
    for stage, cells in dropped.items():
        yield Cause(stage, f"{stage}: is ignored where {', '.join(cells.values())} is on", tuple(cells))
    if rest and not exchanged and not dropped:
        alone = next((stage for stage in STAGES if _explains(judge, rest, partial(without, stage))), None)
        if alone is not None:
            yield Cause(alone, f"{alone}: is ignored where more stages are on", tuple(one.cell.name for one in rest))
            return
        yield _of_chain(judge, rest)


def _dropped(judge: Judge, result: ProbeResult) -> Stage | None:
    """The stage of a pair that the engine seems to leave out."""
    return next(
        (stage for stage in reversed(result.cell.stages) if _explains(judge, [result], partial(without, stage))), None
    )


def _explains(judge: Judge, results: Sequence[ProbeResult], change: Change) -> bool:
    """Whether the reference with a changed config gives the engine's answers."""
    for result in results:
        for one in result.comparisons:
            if one.failure:
                return False
            probe = one.probe.with_config(change(one.probe.config))
            if Comparison(probe, judge.expect(probe), one.answer, tied=one.tied).wrong.any():
                return False
    return bool(results)


def _of_chain(judge: Judge, results: Sequence[ProbeResult]) -> Cause:
    """Only whole chains are wrong: test each stage on the reference's scores before it."""
    names = tuple(result.cell.name for result in results)
    shown = next((one for result in results for one in result.failing if not one.failure), None)
    if shown is None:
        reason = results[0].failing[0].failure
        return Cause("order", f"order: no scores where stages stand together: {reason}", names)
    index = int(np.argmax(shown.wrong))
    row = shown.probe.only([index])
    states = judge.reference.evaluate(judge.placed(row))
    shift: Cause | None = None
    for stage, before in zip(row.config.order, states, strict=False):
        if stage in row.config.active_stages():
            alone = judge.compare(row.before(stage, before.scores))
            if alone.wrong.any():
                return Cause(stage, f"{stage}: {alone.describe(0)}", names)
            distance = _shift(alone)
            if distance and shift is None:
                what = f"moves all scores by {distance:.3g}, which softmax does not see and a stage after it does"
                shift = Cause(stage, f"{stage}: {what}", names)
    owned = ([stage for stage in one.cell.stages if has_stage(judge.info, stage)] for one in results)
    together = min(owned, key=len)
    alone_right = f"{', '.join(together)}: right alone and wrong together: "
    return shift or Cause("order", f"order: {alone_right}{shown.describe(index)}", names)


def _shift(alone: Comparison) -> float:
    """The constant by which all scores of a row are off, if it exceeds rounding; else 0."""
    kept = alone.expected.must[0] & (alone.scores[0] > -np.inf)
    if not kept.any():
        return 0.0
    distance = float(np.median(alone.scores[0, kept] - alone.expected.scores[0, kept]))
    return distance if abs(distance) > 1e-3 * (1 + np.abs(alone.scores[0, kept]).max()) else 0.0
