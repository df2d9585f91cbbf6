"""The level `generate` of `sampler check`: a small fixed plan of requests, judged step by step and as whole runs.

The cells of the plan are cells of a matrix, so the suite of `sampler run` judges them. The whole runs get the questions
that a file of token runs gets, and their tokens are scored where the model is known.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.longform.absolute import USUAL, RunLimits
from sampler.checks.longform.questions import QUESTIONS
from sampler.checks.longform.runs import TokenRun, token_run
from sampler.checks.longform.same_noise import parting, same
from sampler.checks.steps.recorded import EXACT_DTYPES
from sampler.checks.steps.stops import ends
from sampler.checks.steps.table import CHECKS, StepCheck
from sampler.checks.verdict import CaseId, Finding, Verdict
from sampler.config import SamplingConfig
from sampler.engines.base import Engine, EngineInfo
from sampler.engines.capabilities import generate, recording, reduced
from sampler.errors import SamplerError
from sampler.matrix.matrix import Case, Matrix, Workload
from sampler.requests import Request
from sampler.run.cell_scoring import scored
from sampler.run.events import CaseResult
from sampler.run.pooled import alphas_of
from sampler.run.prompts import prompts_of
from sampler.run.report import BESIDE
from sampler.run.session import Session
from sampler.run.steps import StepSuite
from sampler.run.suite import ignore_event
from sampler.run.tokens import findings

LEVEL: Final = "generate"
CAP: Final = 200
"""Tokens, three times the length of the longest of these texts as Finch speaks it."""

SHORT: Final = [40, 60]
"""Length in tokens of the speech of the texts."""

FILTERED: Final[dict[str, Any]] = {"top_p": 0.9, "top_k": 60}

CELLS: Final[dict[str, dict[str, Any]]] = {
    "greedy": {"temperature": 0.0},
    "greedy-without-guidance": {"temperature": 0.0, "cfg_weight": 0.0},
    "sampled": {},
    "sampled-without-guidance": {"cfg_weight": 0.0},
    "filtered": FILTERED,
}
"""What each cell changes of the defaults (temperature 0.8, guidance 0.5). Its runs are judged step by step."""

STEPS: Final = Workload(prompts="sentences", requests=2, max_new_tokens=CAP, expected=SHORT)
RUNS: Final = Workload(prompts="sentences", requests=12, runs=12, max_new_tokens=CAP, expected=SHORT)
"""The whole runs, at the defaults: enough for a share of a fifth that loop or never end."""

AT_ONCE: Final = 16
"""Whole runs in one call of `generate`, so that a time limit holds for a call of any engine."""

ENDS: Final = StepCheck(
    "ends", ends, "generate", "stop", "The stop reason of every run fits its tokens and its maximum length."
)
TABLE: Final = (*(check for check in CHECKS if check.name != "stops"), ENDS)
"""The checks of each cell. A run that reaches its maximum length is counted among the whole runs."""


SCORING: Final = 0.25
"""The part of scoring in the budget of the level."""

WHOLE: Final = (BESIDE, "scoring", *dict.fromkeys(question.case.partition("/")[0] for question in QUESTIONS))
"""Cells of the whole runs."""


def plan_of(infos: Sequence[EngineInfo]) -> tuple[Matrix, Case]:
    """The cells that are judged step by step, and that of the whole runs, without what one of the engines lacks."""
    cases: dict[SamplingConfig, Case] = {}
    for name, changes in CELLS.items():
        config = _for_all(infos, SamplingConfig(**changes))
        cases.setdefault(config, Case(LEVEL, name, config, STEPS))
    matrix = Matrix(LEVEL, "", STEPS, tuple(cases.values()), Path(LEVEL), "")
    return matrix, Case(LEVEL, "runs", _for_all(infos, SamplingConfig()), RUNS)


def _for_all(infos: Sequence[EngineInfo], config: SamplingConfig) -> SamplingConfig:
    for info in infos:
        config = reduced(info, config)
    return config


@dataclass(frozen=True)
class EngineSession(Session):
    """A session with an engine that is loaded already. line: the command that repeats a verdict, by its case."""

    loaded: Engine | None = None
    line: Callable[[str], str] = str

    @cached_property
    def _loaded(self) -> Engine | SamplerError:
        assert self.loaded is not None  # noqa: S101 - given by GenerateRun
        return self.loaded

    def reproduce(self, case_id: str) -> str:
        return self.line(case_id)


@dataclass(frozen=True)
class GenerateRun:
    """The level for one engine, beside another one if there is one. rate: of false alarms, of the whole level.

    line: the command that repeats a verdict, by its case. wanted: whether a cell, `generate/NAME`, is to be judged.
    """

    engine: Engine
    seed: int
    rate: float
    line: Callable[[str], str]
    wanted: Callable[[str], bool] = lambda name: True
    other: Engine | None = None
    limits: RunLimits = USUAL

    @cached_property
    def _plan(self) -> tuple[Matrix, Case]:
        return plan_of([engine.info for engine in (self.engine, self.other) if engine is not None])

    def _session(self, engine: Engine) -> EngineSession:
        return EngineSession(self._plan[0], self.seed, loaded=engine, line=self.line)

    def verdicts(self) -> Iterator[Verdict]:
        """The verdicts of every wanted cell."""
        for result in self._cells():
            yield from (replace(verdict, level=LEVEL) for verdict in result.verdicts)
        if any(self.wanted(f"{LEVEL}/{name}") for name in WHOLE):
            for name, finding in self._whole():
                case = CaseId.parse(f"{LEVEL}/{name}")
                if self.wanted(case.place):
                    yield finding.verdict(case, self.line(str(case))).doubted(self.rate)

    def _cells(self) -> Iterator[CaseResult]:
        suite = StepSuite(self._session(self.engine), table=TABLE, rate=self.rate * (1 - SCORING), scores=False)
        groups = [group for group in suite.groups if group.scope == "cells" and self.wanted(f"{LEVEL}/{group.name}")]
        suite.generate(groups, ignore_event)
        for group in groups:
            yield suite.result(group, ignore_event)

    def _whole(self) -> Iterator[tuple[str, Finding]]:
        """Every question about the whole runs with its name, `cell/check`."""
        try:
            runs = Runs.of(self._session(self.engine), self._plan[1])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything
            problem = Finding.of_error(LEVEL, "draw", error)
            yield from ((name, problem) for name in ("loops/looping", "stopping/endless"))
            return
        yield from ((f"scoring/{name}", finding) for name, finding in self._scored(runs).items())
        reference: Sequence[TokenRun] = ()
        if self.other is not None:
            theirs = partial(Runs.of, self._session(self.other), self._plan[1], len(runs.runs))
            beside = Beside(runs, self.other.info, theirs)
            finding, reference = beside.compared()
            yield f"{BESIDE}/same", finding
        alphas = alphas_of(self.rate * (1 - SCORING))
        rate = alphas["looping"] + alphas["endless"]
        answers = {name.partition("/")[2]: one for name, one in findings(runs.runs, reference, rate, self.limits)}
        yield from ((name, one) for name, one in answers.items() if reference or one.reason != "no_reference")

    def _scored(self, runs: "Runs") -> Mapping[str, Finding]:
        """The tokens of the runs under the engine's model."""
        return scored(runs.session, runs.case, runs.requests, runs.runs, self.rate * SCORING).findings


@dataclass(frozen=True)
class Runs:
    """The whole runs of one engine."""

    session: Session
    case: Case
    requests: Sequence[Request]
    runs: Sequence[TokenRun]

    @classmethod
    def of(cls, session: Session, case: Case, most: int | None = None) -> "Runs":
        """Generate them, at most `most`. Raises what the engine raises.

        If none of the first ones ends, there are no more: that has a probability of 1e-27 if one in 50 runs has no end.
        """
        requests = session.requests(case)
        engine = recording(session.engine_for(case), logits=False, attention=False)
        texts = [prompt.id for prompt in prompts_of(case.workload) for _ in range(case.workload.runs)][:most]
        runs: list[TokenRun] = []
        while len(runs) < len(texts) and (not runs or any(run.ended for run in runs)):
            part = slice(len(runs), len(runs) + AT_ONCE)
            generations = generate(engine, requests[part])
            runs += [token_run(text, one) for text, one in zip(texts[part], generations, strict=True)]
        return cls(session, case, requests[: len(runs)], runs)

    def own_noise(self, place: int) -> bool:
        """Whether the engine ignores the suite's noise, by one run."""
        return self.session.ignores_noise(self.case, self.requests[place], self.runs[place].tokens)


@dataclass(frozen=True)
class Beside:
    """The whole runs of two engines under the same requests. theirs: generates those of the other one."""

    mine: Runs
    info: EngineInfo
    theirs: Callable[[], Runs]

    def compared(self) -> tuple[Finding, Sequence[TokenRun]]:
        """Whether they are equal token for token, and the runs for questions that compare two samples.

        Under the same noise two engines of one distribution draw the same tokens, and samples would not be independent.
        So there are runs only if one of the engines draws with noise of its own, or in half precision.
        """
        mine, other = self.mine.session.engine.info, self.info
        if mine.vocab_size != other.vocab_size:
            sizes = f"{mine.vocab_size} tokens, {other.name} {other.vocab_size}"
            return _not_compared(f"{mine.name} has a vocabulary of {sizes}: their runs cannot be compared"), ()
        try:
            theirs = self.theirs()
            own = self._why_not_equal(theirs)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything
            return _not_compared(f"{other.name} gave no runs to compare with: {_text(error)}"), ()
        if own:
            return Finding.skipped(LEVEL, "draw", "unsupported", own), theirs.runs
        runs = [
            replace(their, margin=run.margin if their.margin is None else their.margin)
            for run, their in zip(self.mine.runs, theirs.runs, strict=True)
        ]
        return same(self.mine.runs, runs, other.name), ()

    def _why_not_equal(self, theirs: Runs) -> str:
        """Why the runs need not be equal; empty if they are equal, or must be."""
        pairs = list(zip(self.mine.runs, theirs.runs, strict=True))
        place = next(
            (place for place, (one, two) in enumerate(pairs) if parting(one.tokens, two.tokens) is not None), None
        )
        if place is None:
            return ""
        for side in (self.mine, theirs):
            info = side.session.engine.info
            if info.dtype not in EXACT_DTYPES:
                return f"{info.name} computes in {info.dtype}, which changes tokens under the same noise"
            if side.own_noise(place):
                return f"{info.name} draws with its own noise"
        if all(run.margin is None for pair in pairs for run in pair):
            return "neither engine records the margin of a step, so that a near tie cannot be told from a difference"
        return ""


def _not_compared(why: str) -> Finding:
    return Finding.skipped(LEVEL, "draw", "no_reference", why)


def _text(error: BaseException) -> str:
    return error.message if isinstance(error, SamplerError) else f"{type(error).__name__}: {error}"


EARLIER: Final = ("repeats", "chain", "allowed", "draws", "ends")
"""Checks in the order in which they explain others: noise that changes explains draws, draws explain loops."""


def causes_of(verdicts: Sequence[Verdict]) -> Iterator[Cause]:
    """One entry per stage that failed or broke, the most likely first."""
    bad = [verdict for verdict in verdicts if verdict.bad]
    bad.sort(key=lambda verdict: EARLIER.index(verdict.check) if verdict.check in EARLIER else len(EARLIER))
    for stage in dict.fromkeys(verdict.stage for verdict in bad):
        own = [verdict for verdict in bad if verdict.stage == stage]
        yield Cause(stage, f"{stage}: in generation, {own[0].message}", tuple(verdict.case for verdict in own))
