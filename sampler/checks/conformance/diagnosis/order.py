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
from sampler.stages import ALL_STAGES, STAGES, Stage

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
    """The config with the stages of an order in that order; others keep their places."""
    stages = iter(stage for stage in order if stage in config.order)
    return replace(config, order=tuple(next(stages) if stage in order else stage for stage in config.order))


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
    ignored = tuple(_ignored_at_0(judge, unexplained, together))
    yield from ignored
    at_0 = {cause.stage for cause in ignored}
    unexplained = [one for one in unexplained if not (at_0 & set(one.cell.stages) and _only_greedy([one]))]
    names = tuple(result.cell.name for result in unexplained)
    if not names:
        return
    if _only_greedy(unexplained) and explains(judge, unexplained, _of_raw_logits):
        yield Cause("temperature", "temperature: 0 takes the largest logit, whatever the other stages say", names)
        return
    if all(name.startswith("order:") for name in names):
        yield Cause("order", f"order: {_of_asked_orders(judge, unexplained, together)}", names)
        return
    failing = [one for result in unexplained for one in result.failing]
    if all(one.probe.config.greedy and not one.failure for one in failing):
        raw = all((one.scores.argmax(-1) == one.probe.logits.argmax(-1))[one.wrong].all() for one in failing)
        what = "takes the most likely token of the logits as they are given" if raw else "is not decided last"
        yield Cause("temperature", f"temperature: 0 {what}", names)
        return
    seven = [result for result in together if set(result.cell.stages) <= set(STAGES)]
    default_order = [result for result in seven if not result.cell.name.startswith("order:")]
    for name, order in other_orders(judge.info):
        if explains(judge, default_order, partial(in_order, order)):
            explanation = f"order: equals the dialect {name!r}: {' > '.join(order)}"
            yield Cause("order", explanation, names, dialect=name)
            return
    yield from _of_pairs(judge, unexplained)


def _only_greedy(results: Sequence[ProbeResult]) -> bool:
    """Whether only probes at temperature 0 fail."""
    return all(one.probe.config.greedy for result in results for one in result.failing)


def _ignored_at_0(judge: Judge, unexplained: Sequence[ProbeResult], together: Sequence[ProbeResult]) -> Iterator[Cause]:
    """Stages that are wrong at temperature 0 while others, which decide the token as well, are right there."""
    at_0 = [result for result in together if result.cell.name.startswith("greedy:")]
    if all(result.failing or explains(judge, [result], _of_raw_logits) for result in at_0):
        return
    for result in at_0:
        stage = result.cell.stages[0]
        if result in unexplained:
            names = tuple(one.cell.name for one in unexplained if stage in one.cell.stages and _only_greedy([one]))
            dropped = explains(judge, [result], partial(without, stage))
            row = result.failing[0].describe(int(np.argmax(result.failing[0].wrong)))
            yield Cause(stage, f"{stage}: is ignored at temperature 0" if dropped else f"{stage}: {row}", names)


def _of_asked_orders(judge: Judge, results: Sequence[ProbeResult], together: Sequence[ProbeResult]) -> str:
    """What is wrong if only orders other than the default one fail."""
    if _only_greedy(results):
        return "temperature 0 decides where the stage stands, not after the last one"
    if all(result.cell.name.startswith(("order:without", "order:empty")) for result in results):
        return "a stage that the order leaves out is run all the same"
    turned = [result for result in results if _is_turned(result)]
    if turned and any(_follows(judge, result) for result in together if _is_turned(result) and not result.failing):
        pairs = [f"{' before '.join(result.cell.stages)}" for result in turned]
        more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        return f"does not follow an order with {', '.join(pairs[:3])}{more}"
    return "keeps to its own order whatever it is asked for"


def _is_turned(result: ProbeResult) -> bool:
    """Whether a cell tests two stages in the order that is not default."""
    return result.cell.name.startswith("order:") and len(result.cell.stages) == 2


def _follows(judge: Judge, result: ProbeResult) -> bool:
    """Whether the right answers to a cell show that the engine does not run the default order."""
    return bool(result.comparisons) and not explains(judge, [result], partial(in_order, ALL_STAGES))


def _of_pairs(judge: Judge, unexplained: Sequence[ProbeResult]) -> Iterator[Cause]:
    """Test pairs of stages: swapped, or one without the other."""
    exchanged: dict[str, str] = {}
    dropped: dict[Stage, dict[str, str]] = {}
    rest = []
    for result in unexplained:
        pair = result.cell.stages if len(result.cell.stages) == 2 else None
        gone = None if pair is None else _dropped(judge, result)
        if pair is not None and explains(judge, [result], partial(swapped, *pair)):
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
        alone = next((stage for stage in ALL_STAGES if explains(judge, rest, partial(without, stage))), None)
        if alone is not None:
            yield Cause(alone, f"{alone}: is ignored where more stages are on", tuple(one.cell.name for one in rest))
            return
        yield _of_chain(judge, rest)


def _dropped(judge: Judge, result: ProbeResult) -> Stage | None:
    """The stage of a pair that the engine seems to leave out."""
    return next(
        (stage for stage in reversed(result.cell.stages) if explains(judge, [result], partial(without, stage))), None
    )


def explains(judge: Judge, results: Sequence[ProbeResult], change: Change) -> bool:
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
