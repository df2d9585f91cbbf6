"""`sampler check TOKENS.jsonl`: what a file of token runs tells about the engine that wrote it."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sampler.check import DEFAULT_RATE, OnVerdict, Report
from sampler.checks.alignment import QUESTIONS, alignment
from sampler.checks.base import Finding, Verdict
from sampler.checks.distinct import distinct
from sampler.checks.drift import QUANTITIES, drift
from sampler.checks.loop_rate import LoopingRuns, loops
from sampler.checks.order_diagnosis import Culprit
from sampler.checks.runs import TokenRun, TwoSides
from sampler.checks.stopping import ends, missing_alone, stopping
from sampler.engines.base import EngineInfo
from sampler.results.token_runs import read_token_runs
from sampler.statistics.budget import Budget

STOPPING = ("early", "late", "missing", "forced")
ALIGNMENT = tuple(QUESTIONS)
DRIFT = tuple(quantity.name for quantity in QUANTITIES)

WEIGHTS = {"loops": 2.0, "distinct": 1.0, **dict.fromkeys((*STOPPING, *ALIGNMENT, *DRIFT), 1.0)}
"""Parts of the budget. They are the same for every file: a check that cannot be asked gives nothing to the others."""

DETECT = 0.5
"""A rise of the loop rate that must be seen."""

NO_REFERENCE = "no reference runs: give some with --against FILE.jsonl (docs/tokens.md says how to make them)"

Findings = Iterator[tuple[str, Finding]]


@dataclass(frozen=True)
class TokenExamination:
    """Runs beside reference runs, or alone. rate: of false alarms, of all checks together."""

    path: Path
    against: Path | None = None
    rate: float = DEFAULT_RATE

    def read(self) -> tuple[list[TokenRun], list[TokenRun]]:
        """The runs of both files. Raises TokensError for the first thing that is wrong with either."""
        return read_token_runs(self.path), read_token_runs(self.against) if self.against else []

    def run(
        self, runs: Sequence[TokenRun], reference: Sequence[TokenRun], on_verdict: OnVerdict = lambda verdict: None
    ) -> Report:
        """Ask everything; on_verdict is told each answer."""
        verdicts = []
        for name, finding in findings(runs, reference, self.rate):
            cell, check = name.rsplit("/", 1)
            verdicts.append(finding.verdict(cell, check, self.reproduce))
            on_verdict(verdicts[-1])
        info = EngineInfo(name=str(self.path), version=sha256(self.path.read_bytes()).hexdigest()[:12])
        against = str(self.against) if self.against else None
        return Report(info, self.rate, tuple(verdicts), tuple(diagnosis(verdicts)), against=against)

    @property
    def reproduce(self) -> str:
        """The command itself: there is nothing random in it."""
        parts = ["sampler", "check", str(self.path)]
        if self.against:
            parts += ["--against", str(self.against)]
        if self.rate != DEFAULT_RATE:
            parts += ["--false-alarm-rate", str(self.rate)]
        return shlex.join(parts)


def findings(runs: Sequence[TokenRun], reference: Sequence[TokenRun], rate: float = DEFAULT_RATE) -> Findings:
    """Every question with its name, `tokens/cell/check`. reference: empty if there is none."""
    alphas = Budget(rate).split(WEIGHTS)
    sides = TwoSides.of(runs, reference) if reference else None
    yield "tokens/loops/rate", _loops(runs, reference, alphas["loops"])
    yield "tokens/seeds/distinct", distinct(runs, sides, alphas["distinct"])
    yield "tokens/stopping/ends", ends(runs, reference)
    if sides is None:
        yield "tokens/stopping/missing", missing_alone(runs)
        for name in STOPPING:
            if name != "missing":
                yield f"tokens/stopping/{name}", Finding("generate", "stop", "unavailable", 0, NO_REFERENCE)
        for name in ALIGNMENT:
            yield f"tokens/alignment/{name}", Finding("generate", "alignment", "unavailable", 0, NO_REFERENCE)
        for quantity in QUANTITIES:
            yield f"tokens/drift/{quantity.name}", Finding("generate", quantity.stage, "unavailable", 0, NO_REFERENCE)
        return
    yield from _named("stopping", lambda: stopping(sides, {name: alphas[name] for name in STOPPING}))
    yield from _named("alignment", lambda: alignment(sides, {name: alphas[name] for name in ALIGNMENT}))
    yield from _named("drift", lambda: drift(sides, {name: alphas[name] for name in DRIFT}))


def _named(cell: str, check: Callable[[], dict[str, Finding]]) -> Findings:
    for name, finding in check().items():
        yield f"tokens/{cell}/{name}", finding


def _loops(runs: Sequence[TokenRun], reference: Sequence[TokenRun], alpha: float) -> Finding:
    """How many runs loop; beside the reference, since speech repeats itself too, whether that is more or less often."""
    if reference:
        return loops(_by_text(runs), _by_text(reference), alpha, DETECT)
    message = f"{LoopingRuns.of(_by_text(runs))}; {NO_REFERENCE}"
    return Finding("generate", "draw", "unavailable", len(runs), message)


def _by_text(runs: Sequence[TokenRun]) -> dict[str, list[tuple[int, ...]]]:
    texts: dict[str, list[tuple[int, ...]]] = {}
    for run in runs:
        texts.setdefault(run.text, []).append(run.tokens)
    return texts


def diagnosis(verdicts: Sequence[Verdict]) -> Iterator[Culprit]:
    """One entry a stage, the most likely first: runs that repeat, then how they read, then tokens, then ends.

    Each may follow from those before it. Where runs never end, what they babble after their end explains other places
    and tokens, so `stop` comes before both.
    """
    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    endless = any(verdict.check == "missing" for verdict in failed)
    stages = ("seed", "stop", "alignment", "draw") if endless else ("seed", "alignment", "draw", "stop")
    for stage in stages:
        of_stage = [verdict for verdict in failed if verdict.stage == stage]
        if of_stage:
            names = ", ".join(verdict.check for verdict in of_stage)
            clearest = max(of_stage, key=_clearness)
            yield Culprit(stage, f"{stage}: {names}; {clearest.message}", tuple(each.case for each in of_stage))


def _clearness(verdict: Verdict) -> float:
    """How far a quantity is from its bound; ends that are counted come before lengths."""
    return (verdict.statistic or 0.0) if verdict.case.startswith("tokens/drift/") else 2.0
