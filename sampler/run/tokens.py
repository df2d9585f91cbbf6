"""`sampler check TOKENS.jsonl`: judge an engine by a file of token runs."""

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.longform.absolute import USUAL, RunLimits, within_limits
from sampler.checks.longform.distinct import distinct
from sampler.checks.longform.log.by_runs import ByRuns
from sampler.checks.longform.log.edits import FIXES
from sampler.checks.longform.log.faults import Known
from sampler.checks.longform.log.prompts import Names
from sampler.checks.longform.questions import ABSOLUTE_CASES, ABSOLUTE_WEIGHTS, QUESTIONS, WEIGHTS, two_sided
from sampler.checks.longform.runs import TokenRun, TwoSides, by_text
from sampler.checks.longform.severity import frequencies_apart
from sampler.checks.longform.stopping import ends
from sampler.checks.scoring.tolerance import SINGLE, Tolerance
from sampler.checks.verdict import CaseId, Finding, Verdict
from sampler.engines.base import EngineInfo
from sampler.engines.capabilities import layout_of
from sampler.engines.registry import ENGINES
from sampler.results.store.folder import settle
from sampler.results.store.logs.opened import is_log
from sampler.results.store.logs.reading import Log, read_log
from sampler.results.store.reference_runs import as_kept, shipped_runs
from sampler.results.store.tokens import TokenLine, run_of
from sampler.run.by_model import ByModel
from sampler.run.report import DEFAULT_RATE, OnVerdict, Report
from sampler.run.scoring import NO_BOUNDS, Bounds, Model, Scoring, is_model, reference_model
from sampler.run.spoken import missing, spoken, texts
from sampler.run.token_log import KNOWN_FIXES, NAMES, ByWord, PutRight, put_right, renamed
from sampler.statistics.budget import Budget

NO_REFERENCE = "no reference runs: give some with --against (docs/tokens.md explains how to generate them)"

ENDLESS, LOOPING = {"tokens/stopping/missing", "tokens/stopping/endless"}, {"tokens/loops/rate", "tokens/loops/looping"}
"""Cases of runs without an end, and of runs that loop."""

SCORING_WEIGHT = 4.0
"""The share of scoring in the budget, beside those of the questions about whole runs."""

Findings = Iterator[tuple[str, Finding]]


@dataclass(frozen=True)
class TokenFileRun:
    """Token runs with reference runs, or alone. rate: of false alarms, of all checks together.

    against: a TOKENS.jsonl, or shipped reference runs: `longform/base` for those of a cell, whose texts have the names
    of Finch's prompts, `longform` for a tokens.jsonl of `sampler run longform`; or a model that scores the tokens: a
    folder of weights, or an engine. fix: what is put right first (`token_log`). bounds: of scoring. tolerance: the
    precision class of the engine that wrote them.
    """

    path: Path
    against: str | None = None
    fix: frozenset[str] = frozenset()
    rate: float = DEFAULT_RATE
    limits: RunLimits = USUAL
    bounds: Bounds = NO_BOUNDS
    tolerance: Tolerance = SINGLE

    @cached_property
    def log(self) -> Log:
        """The file as it is. Raises TokensError for the first error."""
        settle(self.path.parent)
        return read_log(str(self.path), gaps=self.against is None or is_model(self.against))

    @cached_property
    def reference(self) -> Sequence[TokenRun]:
        """The runs that the log is compared with. Raises TokensError for the first error."""
        if self.against is None or self.model is not None:
            return ()
        if is_log(self.against):
            return [run_of(line) for line in read_log(self.against).lines]
        return shipped_runs(self.against)

    @cached_property
    def put_right(self) -> PutRight:
        """The log, as far as it was to be put right. Raises TokensError as `log` and `reference` do."""
        lines, said = self.log.lines, ""
        if NAMES in self.fix and self.against is not None:
            theirs = texts() if self.model else {run.text: run for run in self.reference}
            lines, said = renamed(lines, Names(_prompts(lines), list(theirs)))
        found = put_right(lines, self._known(lines), self.fix)
        return replace(found, fixed=(*([said] if said else []), *found.fixed))

    def _known(self, lines: Sequence[TokenLine]) -> Known | None:
        fixes = [fix for fix in FIXES if fix in self.fix]
        if self.model is not None:
            return ByModel(self.model, spoken(lines), self.tolerance, fixes)
        if self.reference:
            return ByRuns(self.reference, asked=fixes)
        return ByWord(fixes) if fixes else None

    @property
    def lines(self) -> Sequence[TokenLine]:
        """The lines of the file, after all fixes. Raises TokensError for the first error."""
        return self.put_right.lines

    @cached_property
    def model(self) -> Model | None:
        """The model that tokens are scored under. Raises SamplerError if it cannot be loaded."""
        return reference_model(self.against) if self.against is not None and is_model(self.against) else None

    @property
    def weights(self) -> str:
        """What the weights of `against` were recognised as; empty if it names none."""
        if self.model is None or self.against in ENGINES:
            return ""
        return layout_of(self.model.engine) or ""

    def read(self) -> tuple[list[TokenRun], list[TokenRun]]:
        """The runs of both sides. Raises TokensError for the first error in either."""
        runs = [run_of(line) for line in self.lines]
        is_shipped = self.reference and not is_log(self.against or "")
        return [as_kept(run) for run in runs] if is_shipped else runs, list(self.reference)

    def run(
        self, runs: Sequence[TokenRun], reference: Sequence[TokenRun], on_verdict: OnVerdict = lambda verdict: None
    ) -> Report:
        """Run every check; on_verdict gets each answer."""
        verdicts = []
        for name, finding in self._findings(runs, reference):
            verdicts.append(finding.verdict(CaseId.parse(name), self.reproduce).doubted(self.rate))
            on_verdict(verdicts[-1])
        info = EngineInfo(name=str(self.path), version=sha256(self.log.content).hexdigest()[:12])
        return Report(
            info,
            self.rate,
            tuple(verdicts),
            tuple(with_severity(diagnosis(verdicts), runs, reference)),
            against=self.against,
        )

    def _findings(self, runs: Sequence[TokenRun], reference: Sequence[TokenRun]) -> Findings:
        """That the log has to be put right, and nothing else; or every question."""
        if self.put_right.left:
            yield from ((f"tokens/log/{name}", finding) for name, finding in self.put_right.findings.items())
            return
        names = Names(_prompts(self.lines), list(by_text(reference))).finding() if reference else None
        if names is not None:
            yield "tokens/log/prompts", names
        scored = (self._scored, self.model.info.eos_ids) if self.model else (None, ())
        yield from findings(runs, reference, self.rate, self.limits, *scored)

    def _scored(self, alpha: float) -> Mapping[str, Finding]:
        assert self.model is not None  # noqa: S101 - asked with a model alone
        scoring = Scoring(self.model, spoken(self.lines), alpha, self.bounds, tolerance=self.tolerance)
        found = scoring.findings()
        return found | {"protocol": replace(found["protocol"], message=found["protocol"].message + missing(self.lines))}

    @property
    def reproduce(self) -> str:
        parts = ["sampler", "check", str(self.path)]
        if self.against:
            parts += ["--against", self.against]
        if self.fix:
            parts += ["--fix", ",".join(fix for fix in KNOWN_FIXES if fix in self.fix)]
        if self.tolerance is not SINGLE:
            parts += ["--precision", self.tolerance.name]
        if self.rate != DEFAULT_RATE:
            parts += ["--false-alarm-rate", str(self.rate)]
        return shlex.join([*parts, *self.limits.options, *self.bounds.options])


def _prompts(lines: Sequence[TokenLine]) -> list[str]:
    """The names of the prompts, each once."""
    return list(dict.fromkeys(line.group for line in lines))


def findings(
    runs: Sequence[TokenRun],
    reference: Sequence[TokenRun],
    rate: float = DEFAULT_RATE,
    limits: RunLimits = USUAL,
    scored: Callable[[float], Mapping[str, Finding]] | None = None,
    eos_ids: Collection[int] = (),
) -> Findings:
    """Every question with its name, `tokens/cell/check`. reference: empty if there is none.

    scored: the answers of scoring under a model at an alpha; None: there is no model. eos_ids: those of the model.
    """
    weights = {**WEIGHTS, **ABSOLUTE_WEIGHTS}
    alphas = Budget(rate).split(weights if scored is None else {**weights, "scoring": SCORING_WEIGHT})
    if scored is not None:
        yield from ((f"tokens/scoring/{name}", finding) for name, finding in scored(alphas["scoring"]).items())
    yield "tokens/stopping/ends", ends(runs, reference, eos_ids)
    absolute = within_limits(runs, limits, alphas)
    yield from ((f"tokens/{ABSOLUTE_CASES[name]}", finding) for name, finding in absolute.items())
    answers = two_sided(TwoSides.of(runs, reference), alphas) if reference else _alone(runs, alphas)
    if scored is not None and not reference:  # the model is the reference
        answers = ((name, finding) for name, finding in answers if finding.reason != "no_reference")
    cases = {question.name: question.case for question in QUESTIONS}
    for name, finding in answers:
        yield f"tokens/{cases[name]}", finding


def _alone(runs: Sequence[TokenRun], alphas: Mapping[str, float]) -> Iterator[tuple[str, Finding]]:
    """The questions that compare, without reference runs: only whether runs repeat each other may be answered."""
    for question in QUESTIONS:
        if question.name == "distinct":
            yield question.name, distinct(runs, None, alphas[question.name])
        else:
            yield question.name, Finding.skipped("generate", question.stage, "no_reference", NO_REFERENCE)


def diagnosis(verdicts: Sequence[Verdict]) -> Iterator[Cause]:
    """One entry per stage, the most likely cause first: scoring, then repeated runs, reading, tokens and ends.

    Each may be a consequence of those before. If runs never end, the tokens after the missing end explain other tokens
    and places, so `stop` comes first, unless runs loop, since a loop has no end.
    """
    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    names_failed = {verdict.case for verdict in failed}
    endless = bool(names_failed & ENDLESS) and not names_failed & LOOPING
    stages = ("seed", "stop", "alignment", "draw") if endless else ("seed", "alignment", "draw", "stop")
    for verdict in (verdict for verdict in failed if verdict.id.cell == "scoring"):
        yield Cause(verdict.stage, f"{verdict.stage}: {verdict.message}", (verdict.case,))
    for stage in stages:
        of_stage = [verdict for verdict in failed if verdict.stage == stage and verdict.id.cell != "scoring"]
        if of_stage:
            names = ", ".join(verdict.check for verdict in of_stage)
            clearest = max(of_stage, key=_clearness)
            yield Cause(stage, f"{stage}: {names}; {clearest.message}", tuple(verdict.case for verdict in of_stage))


def with_severity(causes: Iterable[Cause], runs: Sequence[TokenRun], reference: Sequence[TokenRun]) -> Iterator[Cause]:
    """The causes; one in the tokens says how far their frequencies are apart."""
    for cause in causes:
        if cause.stage != "draw" or not reference:
            yield cause
            continue
        apart, chance = frequencies_apart(TwoSides.of(runs, reference))
        words = f"frequencies of tokens differ by {apart:.2g} in total variation ({chance:.2g} is usual by chance)"
        yield replace(cause, explanation=f"{cause.explanation}; {words}")


def _clearness(verdict: Verdict) -> float:
    """How far a quantity is from its bound; counted ends come before lengths."""
    return (verdict.statistic or 0.0) if verdict.case.startswith("tokens/drift/") else 2.0
