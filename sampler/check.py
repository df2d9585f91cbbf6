"""`sampler check`: an engine put under every question of a level, with one budget of false alarms and a diagnosis."""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, get_args

import numpy as np
from scipy.special import softmax

from sampler.checks.base import Finding, Verdict
from sampler.checks.diagnosis import diagnose
from sampler.checks.distribution import Drawer, NoDraws, frequencies, other_checks, picks, support
from sampler.checks.draw_diagnosis import DrawResults, diagnose_draws
from sampler.checks.draw_plan import DrawPlan
from sampler.checks.order_diagnosis import Culprit
from sampler.checks.probes import all_cells
from sampler.checks.process import Judge, ask_cell
from sampler.checks.properties import Subject, ask_properties, strange_ids, subject, unusual_rows
from sampler.engines.base import Engine, EngineInfo, Level
from sampler.engines.calls import Asks
from sampler.engines.host import Local
from sampler.engines.reference import ReferenceEngine
from sampler.errors import ConfigError, Unsupported

LEVELS: tuple[Level, ...] = get_args(Level)

INPUT_ROUNDING = {"float32": 0.0, "float64": 0.0, "bfloat16": 2.0**-6, "float16": 2.0**-8}
"""By dtype: relative error with which an engine may read and keep its scores: eight half units in the last place."""

STATEFUL = frozenset(
    {"process/properties/twice-the-same", "process/properties/first-call", "process/properties/keeps-its-answers"}
)
"""What an engine remembers of earlier calls explains whatever else is wrong."""

OnVerdict = Callable[[Verdict], None]


@dataclass(frozen=True)
class Report:
    """What came out. dialect: that the engine declares or equals, None for the reference."""

    info: EngineInfo
    rate: float
    verdicts: tuple[Verdict, ...]
    diagnosis: tuple[Culprit, ...]
    dialect: str | None = None
    against: str | None = None

    @property
    def outcome(self) -> str:
        """One word for all verdicts."""
        outcomes = {verdict.outcome for verdict in self.verdicts}
        if "failed" in outcomes:
            return "disagrees"
        if "errored" in outcomes:
            return "errored"
        return "agrees" if "passed" in outcomes else "unavailable"

    @property
    def exit_code(self) -> int:
        """0 agrees, 1 disagrees or errored, 3 only unavailable."""
        return {"agrees": 0, "unavailable": 3}.get(self.outcome, 1)

    def as_json(self) -> dict[str, Any]:
        """The contract of `--json`; numbers that are not finite become null."""
        info = self.info
        supports = None if info.supports is None else sorted(info.supports)
        return {
            "engine": {**asdict(info), "supports": supports},
            "against": self.against,
            "dialect": self.dialect,
            "false_alarm_rate": self.rate,
            "outcome": self.outcome,
            "verdicts": [_finite(asdict(verdict)) for verdict in self.verdicts],
            "diagnosis": [
                {"stage": culprit.stage, "explanation": culprit.explanation, "cases": list(culprit.cases)}
                for culprit in self.diagnosis
            ],
        }


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }


@dataclass(frozen=True)
class Examination:
    """Whom to ask, and what. name: as the command line has it; tolerance: total variation beyond rounding."""

    asks: Asks
    name: str
    levels: tuple[Level, ...] = LEVELS
    seed: int = 0
    rate: float = 1e-6
    tolerance: float = 0.0
    only: str | None = None

    @cached_property
    def judge(self) -> Judge:
        """The engine beside the reference. Raises Unsupported for a dtype without tolerance."""
        dtype = self.asks.offer.info.dtype
        if dtype not in INPUT_ROUNDING:
            raise Unsupported(f"it computes in {dtype}, for which no tolerance is known ({', '.join(INPUT_ROUNDING)})")
        judge = Judge(self.asks, ReferenceEngine(INPUT_ROUNDING[dtype]), self.tolerance)
        if "process" in self.asks.offer.methods:
            judge.find_width()
        return judge

    def run(self, on_verdict: OnVerdict = lambda verdict: None) -> Report:
        """Put every question of the levels; on_verdict is told each answer."""
        verdicts: list[Verdict] = []
        culprits: list[Culprit] = []
        for level in self.levels:
            try:
                findings, found = self._level(level, {culprit.stage for culprit in culprits})
            except Unsupported as error:
                name = f"{level}/all/unavailable"
                findings, found = {name: Finding(level, "order", "unavailable", 0, error.message)}, ()
            made = [self._verdict(name, finding) for name, finding in findings.items()]
            for verdict in made:
                on_verdict(verdict)
            verdicts += made
            culprits = _merged(culprits, found)
        info = self.asks.offer.info
        dialect = next((culprit.dialect for culprit in culprits if culprit.dialect), info.dialect)
        return Report(info, self.rate, tuple(verdicts), tuple(culprits), dialect)

    def _level(self, level: Level, known: set[str]) -> tuple[dict[str, Finding], tuple[Culprit, ...]]:
        if level not in self.asks.offer.methods:
            raise Unsupported(f"the engine has no {level}()")
        if level == "process":
            return self._process()
        if level == "draw":
            return self._draw(known)
        raise Unsupported(f"nothing is asked at level {level} yet; `sampler run` generates and checks")

    def _wanted(self, name: str) -> bool:
        return self.only is None or self.only == name or self.only.startswith(f"{name}/")

    def _process(self) -> tuple[dict[str, Finding], tuple[Culprit, ...]]:
        judge = self.judge
        asked = _subject(judge, self.seed)  # before all others: it holds the engine's very first answer
        results = [ask_cell(judge, cell) for cell in all_cells(self.seed) if self._wanted(f"process/{cell.name}")]
        diagnosis = diagnose(judge, results)
        findings = {
            f"process/{result.cell.name}/scores": result.finding(diagnosis.stages[result.cell.name])
            for result in results
        }
        culprits = [
            replace(culprit, cases=tuple(f"process/{name}/scores" for name in culprit.cases))
            for culprit in diagnosis.culprits
        ]
        if self._wanted("process/properties"):
            looked = {
                f"process/properties/{each.name.replace(' ', '-')}": finding for each, finding in ask_properties(asked)
            }
            looked["process/properties/unusual-rows"] = unusual_rows(judge)
            findings.update(looked)
            culprits = _with_properties(culprits, looked)
        if self._wanted("process/repetition_penalty"):
            name = "process/repetition_penalty/ids-outside"
            findings[name] = finding = strange_ids(judge, self.seed)
            if finding.outcome == "failed" and not any(each.stage == finding.stage for each in culprits):
                culprits.append(Culprit(finding.stage, f"{finding.stage}: {finding.message}", (name,)))
        return findings, tuple(culprits)

    def _draw(self, known: set[str]) -> tuple[dict[str, Finding], tuple[Culprit, ...]]:
        plan = DrawPlan(self.seed, self.rate)
        drawer = Drawer(self.judge, self.seed)
        findings: dict[str, Finding] = {}
        for cell in plan.cells:
            if self._wanted(f"draw/{cell.name}"):
                findings[f"{cell.name}/support"] = _looked(partial(support, drawer, cell))
                findings[f"{cell.name}/frequencies"] = _looked(partial(frequencies, drawer, cell, plan))
        for names, check in other_checks(drawer, plan):
            if any(self._wanted(f"draw/{name.split('/')[0]}") for name in names.split()):
                found = _looked(check)
                several = found if isinstance(found, tuple) else (found,) * len(names.split())
                findings.update(zip(names.split(), several, strict=True))
        if "pick" in self.asks.offer.methods and self._wanted("draw/pick"):
            findings["pick/extreme-noise"] = _looked(lambda: picks(self.judge, self.seed))
        culprits = diagnose_draws(DrawResults(drawer, findings), known)
        named = [replace(each, cases=tuple(f"draw/{name}" for name in each.cases)) for each in culprits]
        return {f"draw/{name}": finding for name, finding in findings.items()}, tuple(named)

    def _verdict(self, name: str, finding: Finding) -> Verdict:
        cell, check = name.rsplit("/", 1)
        line = ["sampler", "replay", name, "--seed", str(self.seed), "--engine", self.name]
        return finding.verdict(cell, check, shlex.join(line))


def _subject(judge: Judge, seed: int) -> Subject | str:
    try:
        return subject(judge, seed)
    except Unsupported as error:
        return error.message


def _looked(check: Callable[[], Any]) -> Any:
    """Run a check of draws; what an engine does wrong becomes a finding."""
    try:
        return check()
    except Unsupported as error:
        return Finding("draw", "draw", "unavailable", 0, error.message)
    except NoDraws as error:
        return Finding("draw", error.stage, "failed" if error.failed else "errored", 0, str(error))


def _with_properties(culprits: Sequence[Culprit], looked: dict[str, Finding]) -> list[Culprit]:
    """Add what the properties show: written inputs first; the others only where no cell has shown anything."""
    failed = {name: finding for name, finding in looked.items() if finding.outcome == "failed"}
    result = list(culprits)
    harm = "process/properties/writes-nothing"
    if harm in failed:
        result.insert(0, Culprit("purity", f"purity: {failed[harm].message}", (harm,)))
    for name, finding in failed.items():
        same = next((index for index, each in enumerate(result) if each.stage == finding.stage), None)
        if name == harm:
            continue
        if same is not None:
            result[same] = replace(result[same], cases=(*result[same].cases, name))
        elif not result or name in STATEFUL:
            entry = Culprit(finding.stage, f"{finding.stage}: {finding.message}", (name,))
            result.insert(0 if name in STATEFUL else len(result), entry)
    return result


def _merged(before: Sequence[Culprit], found: Sequence[Culprit]) -> list[Culprit]:
    """Join culprits of the same stage, the earlier explanation first."""
    result = list(before)
    for culprit in found:
        same = next((index for index, each in enumerate(result) if each.stage == culprit.stage), None)
        if same is None:
            result.append(culprit)
        else:
            result[same] = replace(result[same], cases=(*result[same].cases, *culprit.cases))
    return result


def detectable(plan: DrawPlan, name: str) -> float:
    """What a check of a plan sees, by the reference's own distribution."""
    probe = plan.cell(name).probe
    final = ReferenceEngine().evaluate(probe.logits, probe.history, probe.config, probe.uncond_logits)[-1]
    return plan.detectable(name, np.asarray(softmax(final.scores[0])))


def examine(engine: Engine, **settings: Any) -> Report:
    """Examine an engine object in this process; settings as Examination has them."""
    return Examination(Local(engine), engine.info.name, **settings).run()


class Disagreement(AssertionError):
    """An engine that does not conform, with its verdicts and the diagnosis as text."""


def run_conformance(engine: Engine, *, levels: Sequence[Level] = ("process", "draw"), seed: int = 0) -> Report:
    """Put an engine under every check that it offers: the one line for the tests of an engine's author.

    Raises Disagreement with the diagnosis where a verdict failed or errored, or where nothing could be asked.
    """
    for level in levels:
        if level not in LEVELS:
            raise ConfigError(f"{level!r} is no level", hint=f"levels: {', '.join(LEVELS)}")
    report = examine(engine, levels=tuple(levels), seed=seed)
    if report.outcome != "agrees":
        raise Disagreement("\n".join(describe(report)))
    return report


def describe(report: Report) -> Iterator[str]:
    """A report as lines: outcome, culprits, failures."""
    yield f"{report.info.name} {report.info.version}: {report.outcome}"
    for culprit in report.diagnosis:
        yield f"  {culprit.explanation}"
    for verdict in report.verdicts:
        if verdict.outcome in ("failed", "errored"):
            yield f"  {verdict.outcome} {verdict.case} (stage {verdict.stage}): {verdict.message}"
