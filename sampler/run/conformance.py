"""`sampler check`: all checks of a level on one engine, with one false-alarm budget and a diagnosis."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, get_args

import numpy as np
from scipy.special import softmax

from sampler.checks.conformance.cells import ProbeResult, ask_cell
from sampler.checks.conformance.diagnosis.draw import DrawResults, diagnose_draws
from sampler.checks.conformance.diagnosis.merge import merged, name_stages, with_properties
from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.conformance.diagnosis.process import diagnose
from sampler.checks.conformance.dialects import declared
from sampler.checks.conformance.draw.at_zero import at_zero
from sampler.checks.conformance.draw.drawer import Drawer, NoDraws
from sampler.checks.conformance.draw.frequencies import frequencies, other_checks, support
from sampler.checks.conformance.draw.pick import picks
from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.conformance.draw.wide import VOCABULARY
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.pairs import greedy_cells
from sampler.checks.conformance.predict import CHECKS as PREDICTION
from sampler.checks.conformance.predict import NoLogits, Predictor, compared
from sampler.checks.conformance.probe_sets import all_cells
from sampler.checks.conformance.properties import Subject, ask_properties, subject
from sampler.checks.conformance.strange import strange_ids, unusual_rows
from sampler.checks.longform.absolute import USUAL, RunLimits
from sampler.checks.verdict import CaseId, Finding, Verdict
from sampler.engines.base import EngineInfo, Level
from sampler.engines.calls import EngineClient
from sampler.engines.isolation import Isolated
from sampler.engines.limits import DEFAULT_LIMITS, Limits
from sampler.engines.reference.chain import ReferenceEngine
from sampler.engines.registry import load_known, under_test
from sampler.engines.remote import RemoteEngine
from sampler.engines.rules import rules_of
from sampler.errors import Unsupported
from sampler.requests import Context
from sampler.run.generation import GenerateRun, causes_of
from sampler.run.report import DEFAULT_RATE, SHARES, OnVerdict, Report
from sampler.stages import OPTIONAL_STAGES

LEVELS: tuple[Level, ...] = get_args(Level)

INPUT_ROUNDING = {"float32": 0.0, "float64": 0.0, "bfloat16": 2.0**-6, "float16": 2.0**-8}
"""By dtype: an engine's possible relative error of scores: eight half units in the last place."""


@dataclass(frozen=True)
class ConformanceRun:
    """The engine, levels and seed of one run. name: of the engine; tolerance: total variation beyond rounding.

    strict: whether differences at exact ties or an exact mass fail.
    against: an engine that it is compared with at the levels `predict` and `generate`, and its name.
    run_limits: of the whole runs at level `generate`. limits: of the engine's process, to say them in lines.
    """

    client: EngineClient
    name: str
    levels: tuple[Level, ...] = LEVELS
    seed: int = 0
    rate: float = DEFAULT_RATE
    tolerance: float = 0.0
    only: str | None = None
    strict: bool = False
    against: tuple[EngineClient, str] | None = None
    run_limits: RunLimits = USUAL
    limits: Limits = DEFAULT_LIMITS

    @property
    def info(self) -> EngineInfo:
        return self.client.offer.info

    @cached_property
    def judge(self) -> Judge:
        """Compares the engine with the reference. Raises Unsupported for a dtype without a known tolerance."""
        dtype = self.client.offer.info.dtype
        if dtype not in INPUT_ROUNDING:
            raise Unsupported(f"it computes in {dtype}, for which no tolerance is known ({', '.join(INPUT_ROUNDING)})")
        rounding = INPUT_ROUNDING[dtype]
        info = self.client.offer.info
        reference = ReferenceEngine(rounding, rules_of(info.dialect, info.rules))
        strict = self.strict or bool(reference.rules)  # a rule that is declared is kept at ties too
        return Judge(self.client, reference=reference, tolerance=self.tolerance, rounding=rounding, strict=strict)

    @cached_property
    def tested(self) -> Subject | Unsupported:
        """The engine's very first answer; finds its limits."""
        return subject(self.judge, self.seed)

    def run(self, on_verdict: OnVerdict = lambda verdict: None) -> Report:
        """Run every check of the levels; on_verdict gets each answer."""
        verdicts: list[Verdict] = []
        causes: list[Cause] = []
        for level in self.levels:
            try:
                judged, found = self._level(level, {cause.stage for cause in causes})
            except Unsupported as error:
                judged, found = self._judged({f"{level}/all/skipped": Finding.skipped(level, "order", error)}), ()
            for verdict in judged:
                on_verdict(verdict)
            verdicts += judged
            causes = merged(causes, found)
        info = self.info
        dialect = next((cause.dialect for cause in causes if cause.dialect), declared(info))
        against = self.against and self.against[1]
        return Report(info, self.rate, tuple(verdicts), tuple(causes), dialect, against)

    def _level(self, level: Level, known: set[str]) -> tuple[Sequence[Verdict], Sequence[Cause]]:
        if level not in self.client.offer.methods:
            raise Unsupported(f"the engine has no {level}()", reason="no_method")
        if level == "generate":
            return self._generate()
        findings, causes = (
            self._process() if level == "process" else self._draw(known) if level == "draw" else self._predict()
        )
        return self._judged(findings), causes

    def _judged(self, findings: Mapping[str, Finding]) -> Sequence[Verdict]:
        found = dict(findings)
        if not any(finding.outcome in ("failed", "errored") for finding in found.values()):
            # The failures were in calls that belong to no cell, so that these cells are the ones to report them.
            found |= {
                name: replace(finding, outcome="errored", reason=None)
                for name, finding in found.items()
                if finding.reason == "after_failure"
            }
        return [finding.verdict(CaseId.parse(name), self._line(name)) for name, finding in found.items()]

    def _wanted(self, name: str) -> bool:
        return self.only is None or self.only == name or self.only.startswith(f"{name}/")

    def _process(self) -> tuple[dict[str, Finding], tuple[Cause, ...]]:
        judge = self.judge
        tested = self.tested  # before all other calls
        cells = [cell for cell in all_cells(self.seed) if self._wanted(f"process/{cell.name}")]
        # For a single cell the diagnosis also needs the idle chain and its stages alone.
        needed = {"nothing", *(stage for cell in cells for stage in cell.stages)} if self.only and cells else set()
        results = [ask_cell(judge, cell) for cell in all_cells(self.seed) if cell in cells or cell.name in needed]
        diagnosis = diagnose(judge, results)
        names = {cell.name for cell in cells}
        findings = _of_cells([result for result in results if result.cell.name in names], diagnosis.stages)
        causes = [
            replace(cause, cases=tuple(f"process/{name}/scores" for name in cause.cases if name in names))
            for cause in diagnosis.causes
            if names & set(cause.cases)
        ]
        if self._wanted("process/properties"):
            properties = {
                f"process/properties/{prop.name.replace(' ', '-')}": finding for prop, finding in ask_properties(tested)
            }
            properties["process/properties/unusual-rows"] = unusual_rows(judge)
            findings.update(properties)
            causes = with_properties(causes, properties)
        if self._wanted("process/repetition_penalty"):
            name = "process/repetition_penalty/ids-outside"
            findings[name] = finding = strange_ids(judge, self.seed)
            if finding.outcome == "failed" and not any(cause.stage == finding.stage for cause in causes):
                causes.append(Cause(finding.stage, f"{finding.stage}: {finding.message}", (name,)))
        return findings, tuple(causes)

    def _draw(self, known: set[str]) -> tuple[dict[str, Finding], tuple[Cause, ...]]:
        drawer = Drawer(self.judge, self.seed)
        shown = "process" in self.client.offer.methods
        if shown:
            _ = self.tested
        else:
            drawer.find_limits()
        plan = DrawPlan(self.seed, self.rate * SHARES["draw"], self.judge.width or VOCABULARY)
        findings: dict[str, Finding] = {}
        for cell in [cell for cell in plan.cells if drawer.asks(cell, shown=shown)]:
            if self._wanted(f"draw/{cell.name}"):
                findings[f"{cell.name}/support"] = _finding(partial(support, drawer, cell))
                findings[f"{cell.name}/frequencies"] = _finding(partial(frequencies, drawer, cell, plan))
        at_0 = tuple(greedy_cells(self.seed))
        for one in () if shown else at_0:
            if self._wanted(f"draw/{one.name}") and drawer.takes(one.probes[0]):
                findings[f"{one.name}/support"] = _finding(partial(at_zero, drawer, one))
        for names, check in other_checks(drawer, plan):
            if any(self._wanted(f"draw/{name.split('/')[0]}") for name in names):
                found = _finding(check)
                several = found if isinstance(found, tuple) else (found,) * len(names)
                findings.update(zip(names, several, strict=True))
        if "pick" in self.client.offer.methods and self._wanted("draw/pick"):
            findings["pick/extreme-noise"] = _finding(lambda: picks(self.judge, self.seed))
        stages = {cell.name: cell.stages for cell in plan.cells} | {one.name: one.stages for one in at_0}
        causes = diagnose_draws(DrawResults(drawer, findings, stages), known)
        name_stages(findings, causes, {name: known.intersection(own) for name, own in stages.items()})
        named = [replace(cause, cases=tuple(f"draw/{name}" for name in cause.cases)) for cause in causes]
        return {f"draw/{name}": finding for name, finding in findings.items()}, tuple(named)

    def _predict(self) -> tuple[dict[str, Finding], tuple[Cause, ...]]:
        predictor = Predictor(self.client, self.seed)
        findings = {
            f"predict/itself/{name}": _finding(partial(check, predictor), "predict")
            for name, check in PREDICTION
            if self._wanted("predict/itself")
        }
        if self.against is not None and self._wanted("predict/against"):
            findings["predict/against/logits"] = _finding(partial(self._compared, predictor), "predict")
        causes = [
            Cause(finding.stage, f"{finding.stage}: {finding.message}", (name,))
            for name, finding in findings.items()
            if finding.outcome in ("failed", "errored")
        ]
        return findings, tuple(causes)

    def _compared(self, predictor: Predictor) -> Finding:
        assert self.against is not None  # noqa: S101 - asked by _predict
        client, name = self.against
        if "predict" not in client.offer.methods:
            raise Unsupported(f"{name} has no predict()", reason="no_method")
        try:
            return compared(predictor, Predictor(client, self.seed), self.tolerance)
        except NoLogits as error:
            raise Unsupported(f"the logits cannot be compared: {error}", reason="no_reference") from error

    def _generate(self) -> tuple[Sequence[Verdict], Sequence[Cause]]:
        other = None if self.against is None else RemoteEngine.behind(self.against[0])
        rate = self.rate * SHARES["generate"]
        run = GenerateRun(
            RemoteEngine.behind(self.client), self.seed, rate, self._line, self._wanted, other, self.run_limits
        )
        verdicts = list(run.verdicts())
        return verdicts, tuple(causes_of(verdicts))

    def _line(self, name: str) -> str:
        line = ["sampler", "replay", name, "--seed", str(self.seed), "--engine", self.name]
        if self.against is not None and name.startswith(("predict/", "generate/")):
            line += ["--against", self.against[1]]
        if self.rate != DEFAULT_RATE:
            line += ["--false-alarm-rate", str(self.rate)]
        if self.tolerance:
            line += ["--tolerance", str(self.tolerance)]
        if self.strict:
            line.append("--strict")
        if name.startswith("generate/"):
            line += self.run_limits.options
        line += self.limits.options
        return shlex.join(line)


@contextmanager
def check_engine(
    name: str, against: str | None = None, limits: Limits = DEFAULT_LIMITS, **settings: Any
) -> Iterator[ConformanceRun]:
    """A run on engines in processes of their own, which end with it. settings: those of ConformanceRun."""
    with ExitStack() as stack:
        clients = []
        for each in (name, *([against] if against else [])):
            client = Isolated(partial(load_known, each), limits)
            stack.callback(client.close)
            client.offer = under_test(client.offer, each)
            clients.append(client)
        other = (clients[1], against) if against else None
        yield ConformanceRun(clients[0], name, against=other, limits=limits, **settings)


def _of_cells(results: Sequence[ProbeResult], stages: Mapping[str, str]) -> dict[str, Finding]:
    """One finding per cell; optional stages and orders that the engine does not have have one finding together."""
    silent = [result for result in results if result.cell.optional and not result.comparisons]
    findings = {
        f"process/{result.cell.name}/scores": result.finding(stages[result.cell.name])
        for result in results
        if result not in silent
    }
    if silent:
        lacking = ", ".join(result.cell.name for result in silent if result.cell.name in OPTIONAL_STAGES)
        message = f"not tested, because `info.supports` does not name them: {lacking}"
        reason = Unsupported(message) if lacking else silent[0].refused[0]
        findings["process/further-stages/scores"] = Finding.skipped("process", "order", reason)
    return findings


def _finding(check: Callable[[], Any], level: Level = "draw") -> Any:
    """Run a check; an engine's error becomes a finding."""
    stage = "draw" if level == "draw" else "purity"
    try:
        return check()
    except Unsupported as error:
        return Finding.skipped(level, stage, error)
    except NoDraws as error:
        return Finding(level, error.stage, "failed" if error.failed else "errored", 0, str(error))
    except NoLogits as error:
        return Finding.errored(level, stage, str(error))


def detectable(plan: DrawPlan, name: str) -> float:
    """The difference that a check of a plan detects, given the reference's own distribution."""
    probe = plan.cell(name).probe
    lengths = np.array([len(ids) for ids in probe.history], dtype=np.int64)
    prompts = lengths // 2 if probe.prompts is None else np.array(probe.prompts)
    placed = replace(probe, context=Context(prompts, lengths - prompts, probe.eos_ids))
    final = ReferenceEngine().evaluate(placed)[-1]
    return plan.detectable(name, np.asarray(softmax(final.scores[0])))
