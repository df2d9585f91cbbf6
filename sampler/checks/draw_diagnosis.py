"""From what the draws showed to the most likely culprit: the generator first, then stages alone, then orders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.alternatives import ALTERNATIVES, IGNORED, Inputs
from sampler.checks.base import Finding
from sampler.checks.diagnosis import Culprit
from sampler.checks.distribution import Drawer, Drawn
from sampler.checks.probes import ORDERS
from sampler.config import STAGES, SamplingConfig, Stage
from sampler.statistics.multinomial import Multinomial

FIT = 1e-4
"""Alpha of the test whether draws come from an alternative; it accuses nobody."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DrawResults:
    """Findings of level `draw` by cell and check."""

    drawer: Drawer
    findings: Mapping[str, Finding]

    def failed(self, *names: str) -> tuple[str, ...]:
        """Which of some cases failed or errored."""
        return tuple(name for name in names if name in self.findings and self.findings[name].outcome in ("failed", "errored"))

    def cells(self) -> list[str]:
        """Cells that failed, by support or frequencies."""
        failed = [name for name in self.findings if name.endswith(("/support", "/frequencies"))]
        return list(dict.fromkeys(name.rsplit("/", 1)[0] for name in self.failed(*failed)))


def diagnose_draws(results: DrawResults, known: set[str]) -> tuple[Culprit, ...]:
    """Culprits, the most likely first. known: stages that `process` has shown to be wrong; they explain their cells."""
    culprits = list(_generator(results))
    cells = results.cells()
    if any(culprit.stage in ("draw", "seed") and "nothing/frequencies" in culprit.cases for culprit in culprits):
        return tuple(culprits)
    alone: set[str] = {stage for stage in STAGES if stage in cells or results.failed(f"{stage}/greedy")}
    own = [_of_stage(results, stage) for stage in STAGES if stage in alone and stage not in known]
    if len(own) > 2 and all(culprit.explanation.endswith(IGNORED) for culprit in own):
        cases = tuple(case for culprit in own for case in culprit.cases)
        return (*culprits, Culprit("draw", "draw: tokens come from the logits as they were given, not from the scores", cases))
    culprits += own
    suspects = alone | known
    order_known = "order" in known
    rest = [
        name
        for name in cells
        if name not in STAGES and name not in ("nothing", "vocabulary") and not suspects & _stages(results, name)
    ]
    if rest and not order_known:
        culprits.append(_of_order(results, rest))
    return tuple(culprits)


def _stages(results: DrawResults, name: str) -> set[str]:
    drawn = results.drawer.drawn.get(name)
    return set(drawn.cell.stages) if drawn else set()


def _cases(results: DrawResults, cell: str) -> tuple[str, ...]:
    return results.failed(*(name for name in results.findings if name.rsplit("/", 1)[0] == cell))


def _generator(results: DrawResults) -> list[Culprit]:
    """What is wrong with the draws themselves, where no stage does anything."""
    nothing = results.drawer.drawn.get("nothing")
    failed = results.failed(*(name for name in results.findings if name.startswith(("nothing/", "pick/", "vocabulary/"))))
    if not failed:
        return []
    first = results.findings[failed[0]]
    if nothing is None:
        return [Culprit(first.stage, f"{first.stage}: {first.message}", failed)]
    if nothing.calls.min() == nothing.calls.max():
        return [Culprit("draw", f"draw: nothing but token {nothing.calls[0, 0]} is drawn, the same {nothing.calls.size} times", failed)]
    if len(np.unique(nothing.calls, axis=0)) == 1:
        return [Culprit("seed", "seed: has no effect: every seed gives the same draws", failed)]
    if (nothing.calls == nothing.calls[:, :1]).all():
        return [Culprit("draw", "draw: every draw of a call is the same token: its noise is frozen", failed)]
    if results.failed("nothing/support"):
        return [Culprit("draw", f"draw: {results.findings['nothing/support'].message}", failed)]
    pairs = [name for name in failed if "/pairs-" in name]
    if pairs:
        return [Culprit("draw", f"draw: draws know of each other: {results.findings[pairs[0]].message}", failed)]
    for stage in ("seed", "draw"):
        own = tuple(name for name in failed if results.findings[name].stage == stage)
        if own and (stage == "seed" or len(own) == len(failed)):
            return [Culprit(stage, f"{stage}: {results.findings[own[0]].message}", failed)]
    return [Culprit(first.stage, f"{first.stage}: {first.message}", failed)]


def _of_stage(results: DrawResults, stage: Stage) -> Culprit:
    cases = _cases(results, stage)
    drawn = results.drawer.drawn.get(stage)
    if drawn is not None:
        probe = drawn.cell.probe
        uncond = None if probe.uncond_logits is None else probe.uncond_logits.astype(np.float64)
        inputs = Inputs(probe.logits.astype(np.float64), probe.history, probe.config, uncond)
        for alternative in ALTERNATIVES.get(stage, ()):
            with np.errstate(all="ignore"):
                scores = alternative.scores(inputs)
            if _fits(drawn, scores[0]):
                return Culprit(stage, f"{stage}: {alternative.explanation}", cases)
    return Culprit(stage, f"{stage}: {results.findings[cases[0]].message}", cases)


def _fits(drawn: Drawn, scores: Array) -> bool:
    """Whether draws may come from a distribution."""
    if np.isnan(scores).any() or (scores == np.inf).any() or not (scores > -np.inf).any():
        return False
    probabilities = softmax(scores)
    if drawn.counts[probabilities == 0].any():
        return False
    return not Multinomial(np.asarray(probabilities / probabilities.sum()), FIT).judge(drawn.counts).rejected


def _of_order(results: DrawResults, cells: Sequence[str]) -> Culprit:
    """Stages that are right alone and wrong together."""
    cases = tuple(case for cell in cells for case in _cases(results, cell))
    together = [drawn for drawn in results.drawer.drawn.values() if len(drawn.cell.stages) > 1]
    own = [drawn for drawn in together if drawn.cell.name in cells]
    for name, order in ORDERS.items():
        if all(_explains(results, drawn, lambda config, order=order: _in_order(config, order)) for drawn in together):
            return Culprit("order", f"order: equals the dialect {name!r}: {' > '.join(order)}", cases, name)
    for stage in STAGES:
        if all(_explains(results, drawn, lambda config, stage=stage: config.without([stage])) for drawn in own):
            return Culprit(stage, f"{stage}: is ignored where other stages are on", cases)
    return Culprit("order", f"order: {results.findings[cases[0]].message}", cases)


def _in_order(config: SamplingConfig, order: tuple[Stage, ...]) -> SamplingConfig:
    return replace(config, order=tuple(stage for stage in order if stage in config.order))


def _explains(results: DrawResults, drawn: Drawn, change: Callable[[SamplingConfig], SamplingConfig]) -> bool:
    probe = drawn.cell.probe
    judge = results.drawer.judge
    states = judge.reference.evaluate(
        probe.logits, probe.history, change(probe.config), probe.uncond_logits, context=judge.context(probe)
    )
    return _fits(drawn, states[-1].scores[0])
