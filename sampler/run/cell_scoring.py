"""Whole runs of an engine under its own model, where the suite has it or the engine predicts."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sampler.checks.longform.runs import TokenRun
from sampler.checks.scoring.findings import findings
from sampler.checks.scoring.summarize import summarize
from sampler.checks.scoring.summary import ScoreSummary
from sampler.checks.scoring.tolerance import tolerance_of
from sampler.checks.scoring.wagers import REQUIRED
from sampler.checks.verdict import SCORED, Finding
from sampler.engines.rules import rules_of
from sampler.errors import SkipReason
from sampler.matrix.matrix import Case
from sampler.requests import Request
from sampler.run.known_model import known_model
from sampler.run.scoring import Model, Scoring
from sampler.run.session import Session
from sampler.run.spoken import Spoken

LEVEL: Final = "generate"

NOT_ASKED: Final = ("no_reference", "no_method", "too_few")
"""Reasons for which a cell that need not exclude anything has no answer: its model is not known, its tokens have no
alternative, or they are too few to exclude one."""


class Scored(NamedTuple):
    """The answers by check, and what pictures show of the tokens, if they were scored."""

    findings: Mapping[str, Finding]
    summary: ScoreSummary | None = None


def scored(
    session: Session,
    case: Case,
    requests: Sequence[Request],
    runs: Sequence[TokenRun],
    alpha: float,
    required: float | None = REQUIRED,
    *,
    networks: bool = True,
) -> Scored:
    """The answers of scoring for runs of a case, which have one config; skipped where the model is not known.

    There is none about margins for an engine that draws with noise of its own.

    required: the relative change of the temperature that `passed` has to detect. networks: see Model.
    """
    try:
        engine = session.engine_for(case)
        info, known = engine.info, known_model(session, case, engine)
        if known.model is None or info.vocab_size is None:
            return _skipped("no_reference", f"the model of {info.name} is not known, and it has no predict()")
        model = Model(known.model, rules=rules_of(info.dialect, info.rules), networks=networks)
        spoken = [
            Spoken(f"run {place} ({run.text})", request, run.tokens, run.stop_reason)
            for place, (request, run) in enumerate(zip(requests, runs, strict=True))
        ]
        tolerance = tolerance_of(info.dtype)
        noise = all(request.noise is not None for request in requests)
        scoring = Scoring(model, spoken, alpha, required=required, tolerance=tolerance, whole=True, noise=noise)
        ((_, score),) = scoring.scores()
        answers = findings(score)
        if "winners" in answers and answers["winners"].outcome == "failed":
            longest = max(range(len(runs)), key=lambda place: len(runs[place].tokens))
            if session.ignores_noise(case, requests[longest], runs[longest].tokens):
                del answers["winners"]
        return Scored(answers, summarize(score))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything
        return Scored({"impossible": Finding.of_error(LEVEL, "draw", error)})


def _skipped(reason: SkipReason, why: str) -> Scored:
    return Scored({name: Finding.skipped(LEVEL, "draw", reason, why) for name in SCORED})
