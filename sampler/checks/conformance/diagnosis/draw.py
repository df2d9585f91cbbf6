"""Diagnosis of level `draw`: from failed draws to causes; the generator first, then single stages, then orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.conformance.diagnosis.alternatives import ALTERNATIVES, IGNORED, Alternative, in_float64
from sampler.checks.conformance.diagnosis.merge import one_cause
from sampler.checks.conformance.diagnosis.order import Cause, Change, in_order, other_orders, swapped, without
from sampler.checks.conformance.draw.drawer import Drawer, Drawn, values_of
from sampler.checks.conformance.draw.frequencies import SINGLE_CELLS, shared_draws
from sampler.checks.conformance.draw.plan import LAGS
from sampler.checks.verdict import Finding
from sampler.stages import ALL_STAGES, STAGES, Stage, of_kind
from sampler.statistics.multinomial import Multinomial

FIT = 1e-4
"""Alpha of the test whether draws fit an alternative; it fails no engine."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DrawResults:
    """Findings of level `draw` by cell and check. stages: those that are on in each cell."""

    drawer: Drawer
    findings: Mapping[str, Finding]
    stages: Mapping[str, tuple[Stage, ...]]

    def failed(self, *names: str) -> tuple[str, ...]:
        return tuple(
            name for name in names if name in self.findings and self.findings[name].outcome in ("failed", "errored")
        )

    def single_cell_failed(self) -> bool:
        """Whether the cell used for single draws also fails with many draws per call."""
        cell = next((name for name in SINGLE_CELLS if self._asked(f"{name}/support")), None)
        return cell is not None and bool(self.failed(f"{cell}/support", f"{cell}/frequencies"))

    def _asked(self, name: str) -> bool:
        return name in self.findings and self.findings[name].outcome != "skipped"

    def cells(self) -> list[str]:
        """Cells that failed `support` or `frequencies`."""
        failed = [name for name in self.findings if name.endswith(("/support", "/frequencies"))]
        return list(dict.fromkeys(name.rsplit("/", 1)[0] for name in self.failed(*failed)))


def diagnose_draws(results: DrawResults, known: set[str]) -> tuple[Cause, ...]:
    """Causes, the most likely first. known: stages that `process` found wrong; they explain their cells."""
    return tuple(_with_severity(results, cause) for cause in _causes(results, known))


def _with_severity(results: DrawResults, cause: Cause) -> Cause:
    """The cause, whose explanation ends with the total variation of its draws if it does not say it."""
    drawn = [results.drawer.drawn.get(name) for name in {case.rsplit("/", 1)[0] for case in cause.cases}]
    apart = [one.variation for one in drawn if one is not None]
    if not apart or "total variation" in cause.explanation:
        return cause
    return replace(cause, explanation=f"{cause.explanation}; draws differ by up to {max(apart):.2g} in total variation")


def _causes(results: DrawResults, known: set[str]) -> tuple[Cause, ...]:
    """The causes without their severity."""
    harmed = [name for name, finding in results.findings.items() if finding.stage == "purity"]
    harmed = [name for name in harmed if results.failed(name)]
    if harmed:
        return (Cause("purity", f"purity: {results.findings[harmed[0]].message}", tuple(harmed)),)
    causes = _generator(results)
    cells = results.cells()
    shown = {case for cause in causes for case in cause.cases}
    if "nothing/frequencies" in shown or any("/pairs-" in case for case in shown) or _shares_draws(results):
        return tuple(causes)  # frequencies of such draws contain no information about stages
    if "nothing/support" in shown:  # a leak there is a leak everywhere
        cells = [name for name in cells if results.failed(f"{name}/frequencies")]
    alone = _alone(results, cells)
    own = [_of_stage(results, stage, names) for stage, names in alone.items() if stage not in known]
    if len(own) > 2 and all(cause.explanation.endswith(IGNORED) for cause in own):
        cases = tuple(case for cause in own for case in cause.cases)
        return (
            *causes,
            Cause("draw", "draw: tokens come from the logits as they were given, not from the scores", cases),
        )
    causes += one_cause(own)
    suspects = {*alone, *known}
    causes += _at_zero(results, [name for name in cells if name.startswith(AT_ZERO)], suspects)
    order_known = "order" in known
    together = [name for name in cells if len(results.stages[name]) > 1 and not name.startswith(AT_ZERO)]
    rest = [name for name in together if not suspects & set(results.stages[name])]
    if rest and not order_known:
        causes.append(_of_order(results, rest))
    return tuple(causes)


def _alone(results: DrawResults, cells: Sequence[str]) -> dict[Stage, list[str]]:
    """The stages that are wrong alone, with the cells that show it."""
    lost = any(name.startswith(WIDE) and not results.stages[name] for name in cells)  # then wide draws are wrong anyway
    found = {}
    for stage in ALL_STAGES:
        names = [name for name in cells if results.stages[name] == (stage,) and not (lost and name.startswith(WIDE))]
        if results.failed(f"{stage}/greedy"):
            names = [stage, *(name for name in names if name != stage)]
        if names:
            at_zero = [name for name in cells if name.startswith(AT_ZERO) and stage in results.stages[name]]
            found[stage] = names + (at_zero if stage != "temperature" or results.failed(f"{stage}/greedy") else [])
    return found


def _at_zero(results: DrawResults, cells: Sequence[str], suspects: set[str]) -> list[Cause]:
    """Stages that are right alone, and left out at temperature 0; or temperature 0, which leaves out all of them."""
    asked = {name for name in results.findings if name.startswith(AT_ZERO)}
    telling = {name for name in asked if results.stages[name.partition("/")[0]][0] not in TAILS}
    wrong = [name for name in cells if not suspects & set(results.stages[name])]
    if len(wrong) > 1 and telling <= {case for name in wrong for case in _cases(results, name)}:
        cases = tuple(case for name in wrong for case in _cases(results, name))
        what = "0 takes the most likely token of the logits as they are given"
        return [Cause("temperature", f"temperature: {what}", cases)]
    return [_of_cases(results, results.stages[name][0], _cases(results, name)) for name in wrong]


def _of_cases(results: DrawResults, stage: Stage, cases: tuple[str, ...]) -> Cause:
    return Cause(stage, f"{stage}: {results.findings[cases[0]].message}", cases)


def _shares_draws(results: DrawResults) -> bool:
    """Whether different calls contain the same draws."""
    nothing = results.drawer.drawn.get("nothing")
    return nothing is not None and shared_draws(nothing.calls) > 0


def _cases(results: DrawResults, cell: str) -> tuple[str, ...]:
    return results.failed(*(name for name in results.findings if name.rsplit("/", 1)[0] == cell))


SINGLE = "chain:everything/single-"
WIDE, AT_ZERO = "wide:", "greedy:"
OWN = ("nothing/", "pick/", "vocabulary/", SINGLE, "wide:places/", "wide:scan/", "wide:rare/")
"""Cases that test the draws themselves, not a stage."""

TAILS = of_kind("tail")
"""Stages that never remove the most likely token, so that temperature 0 does not show them."""


def _generator(results: DrawResults) -> list[Cause]:
    """What is wrong with the draws themselves, without any active stage."""
    failed = results.failed(*(name for name in results.findings if name.startswith(OWN)))
    if results.single_cell_failed():  # then single draws add no information
        failed = tuple(name for name in failed if "/single-" not in name)
    if not failed:
        return []
    nothing = results.drawer.drawn.get("nothing")
    found = None if nothing is None else _of_calls(nothing.calls)
    if found is not None:
        return [Cause(found[0], f"{found[0]}: {found[1]}", failed)]
    idle = _idle(results)
    if idle is not None:
        return [Cause(idle.stage, f"{idle.stage}: {idle.explanation}", failed)]
    findings = results.findings
    pairs = [name for name in failed if "/pairs-" in name]
    off = [name for name in failed if name in ("nothing/support", "nothing/frequencies")]
    if pairs and "nothing/support" not in off and (not off or nothing is None or _dependent(nothing.calls)):
        return [Cause("draw", f"draw: draws know of each other: {findings[pairs[0]].message}", failed)]
    if any(name.endswith("/single-draws") for name in failed):  # wrong frequencies change the number of pairs too
        failed = tuple(name for name in failed if not name.endswith("/single-pairs"))
    seed = [name for name in failed if findings[name].stage == "seed"]
    first = findings[(off or seed or failed)[0]]
    return [Cause(first.stage, f"{first.stage}: {first.message}", failed)]


def _dependent(calls: NDArray[np.int64]) -> bool:
    """Whether draws within a call (calls, n) are equal more or less often than their own frequencies imply."""
    probability = float(np.square(np.unique(calls, return_counts=True)[1] / calls.size).sum())
    for lag in LAGS:
        same = calls[:, lag:] == calls[:, :-lag]
        # Lags in both directions share draws; the variance is up to twice that of independent pairs.
        if abs(same.mean() - probability) > 10 * (probability * (1 - probability) / same.size) ** 0.5:
            return True
    return False


def _idle(results: DrawResults) -> Alternative | None:
    """A stage that acts although it is off, or another known mistake that needs no stage."""
    idle = [results.drawer.drawn[name] for name in ("nothing", "vocabulary") if name in results.drawer.drawn]
    if not set(results.cells()) & {drawn.cell.name for drawn in idle}:
        return None
    failed = [drawn for drawn in idle if drawn.cell.name in results.cells()]
    for alternative in ALTERNATIVES["nothing"]:
        if all(_fits(drawn, _scores(alternative, drawn)) for drawn in idle) and all(
            _nearer(drawn, _scores(alternative, drawn)) for drawn in failed
        ):
            return alternative
    return None


def _scores(alternative: Alternative, drawn: Drawn) -> Array:
    """Scores (V,) of an alternative for the distribution that was drawn from."""
    probe = drawn.cell.probe
    with np.errstate(all="ignore"):
        return np.asarray(alternative.scores(in_float64(probe))[0])


def _of_calls(calls: NDArray[np.int64]) -> tuple[str, str] | None:
    """A mistake that is obvious from the tokens of the calls (calls, n): stage and explanation."""
    if calls.min() == calls.max():
        return "draw", f"nothing but token {calls[0, 0]} is drawn, the same {calls.size} times"
    if len(np.unique(calls, axis=0)) == 1:
        return "seed", "has no effect: every seed gives the same draws"
    if (calls == calls[:, :1]).all():
        return "draw", "every draw of a call is the same token: its noise is frozen"
    shift = shared_draws(calls)
    if shift:
        return "seed", f"the draws of one seed are those of the next one, moved by {shift}"
    return None


def _of_stage(results: DrawResults, stage: Stage, names: Sequence[str]) -> Cause:
    """The cause of a stage that is wrong alone. names: of the cells that show it, the ordinary one first."""
    cases = tuple(case for name in names for case in _cases(results, name))
    wrong = [name for name in names if results.failed(f"{name}/support", f"{name}/frequencies")]
    shown = [results.drawer.drawn[name] for name in wrong if name in results.drawer.drawn and WIDE not in name]
    shown = [drawn for drawn in shown if drawn.cell.name == stage] or shown
    values = "" if not shown or shown[0].cell.name == stage else values_of(shown[0].cell.probe.config)
    for alternative in ALTERNATIVES.get(stage, ()) if shown else ():
        scores = [_scores(alternative, drawn) for drawn in shown]
        if all(_fits(*each) and _nearer(*each) for each in zip(shown, scores, strict=True)):
            return Cause(stage, f"{stage}: {values}{alternative.explanation}", cases)
    return Cause(stage, f"{stage}: {values}{results.findings[cases[0]].message}", cases)


def _nearer(drawn: Drawn, scores: Array) -> bool:
    """Whether draws are nearer to another distribution than to the right one; too even draws are not."""
    observed = drawn.counts / drawn.counts.sum()
    return bool(np.abs(observed - softmax(scores)).sum() < np.abs(observed - drawn.probabilities).sum())


def _fits(drawn: Drawn, scores: Array) -> bool:
    """Whether a test accepts that the draws come from a distribution."""
    if np.isnan(scores).any() or (scores == np.inf).any() or not (scores > -np.inf).any():
        return False
    probabilities = softmax(scores)
    if drawn.counts[probabilities == 0].any():
        return False
    return not Multinomial(np.asarray(probabilities / probabilities.sum()), FIT).judge(drawn.counts).rejected


def _of_order(results: DrawResults, cells: Sequence[str]) -> Cause:
    """The cause if stages are right alone and wrong together."""
    cases = tuple(case for cell in cells for case in _cases(results, cell))
    together = [drawn for drawn in results.drawer.drawn.values() if len(drawn.cell.stages) > 1]
    own = [drawn for drawn in together if drawn.cell.name in cells]
    for name, order in other_orders(results.drawer.judge.info):
        if all(_explains(results, drawn, partial(in_order, order)) for drawn in together):
            return Cause("order", f"order: equals the dialect {name!r}: {' > '.join(order)}", cases, name)
    exchanged = _exchanged(results, own)
    if exchanged:
        return Cause("order", f"order: {', '.join(exchanged)}", cases)
    for stage in STAGES if own else ():
        if all(_explains(results, drawn, partial(without, stage)) for drawn in own):
            return Cause(stage, f"{stage}: is ignored where other stages are on", cases)
    message = results.findings[cases[0]].message
    if all(case.endswith("/support") for case in cases):
        return Cause("draw", f"draw: removed tokens leak where all frequencies are right: {message}", cases)
    common = set(STAGES).intersection(*(drawn.cell.stages for drawn in own))
    if len(own) > 1 and len(common) == 1:
        stage = min(common)
        return Cause(stage, f"{stage}: wrong beside other stages: {message}", cases)
    return Cause("order", f"order: {message}", cases)


def _exchanged(results: DrawResults, own: Sequence[Drawn]) -> list[str]:
    """Swapped pairs of stages, if a swap explains every wrong pair."""
    names = []
    for drawn in own:
        if len(drawn.cell.stages) == 2:
            first, second = drawn.cell.stages
            if not _explains(results, drawn, partial(swapped, first, second)):
                return []
            names.append(f"{second} before {first}")
    return names


def _explains(results: DrawResults, drawn: Drawn, change: Change) -> bool:
    probe, judge = drawn.cell.probe, results.drawer.judge
    states = judge.reference.evaluate(judge.placed(probe).with_config(change(probe.config)))
    return _fits(drawn, states[-1].scores[0])
