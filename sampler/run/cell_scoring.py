"""Whole runs of an engine under its own model, where the suite has it or the engine predicts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from sampler.checks.longform.runs import TokenRun
from sampler.checks.scoring.findings import findings
from sampler.checks.scoring.score import Run, Score
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
from sampler.run.scoring import Model, is_told
from sampler.run.session import Session
from sampler.run.spoken import START, Spoken

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
    sparing: bool = False,
) -> Scored:
    """The answers of scoring for runs of a case, which have one config; skipped where the model is not known.

    There is none about margins for an engine that draws with noise of its own.

    required: the relative change of the temperature that `passed` has to detect. networks: see Model. sparing: not all
    tokens of all runs, see `_in_turns`.
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
        noise = all(request.noise is not None for request in requests)
        score = model.score(requests[0].config, alpha, tolerance_of(info.dtype), required=required, noise=noise)
        for run in _in_turns(model, spoken, score) if sparing else model.scored(spoken):
            if is_told(score):
                break
            score.add(run)
        answers, tokens = findings(score), sum(len(run.tokens) for run in spoken)
        if sparing and not score.decided and score.checked < tokens:
            answers = _with_part(answers, score.checked, tokens)
        if "winners" in answers and answers["winners"].outcome == "failed":
            longest = max(range(len(runs)), key=lambda place: len(runs[place].tokens))
            if session.ignores_noise(case, requests[longest], runs[longest].tokens):
                del answers["winners"]
        return Scored(answers, summarize(score, [run.name for run in spoken]))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything
        return Scored({"impossible": Finding.of_error(LEVEL, "draw", error)})


def _in_turns(model: Model, runs: Sequence[Spoken], score: Score) -> Iterator[Run]:
    """One run of each text, then further ones until the score is settled, to their end; of all others the beginning.

    So a fault shows that a text has, or a late step, or any one run from its beginning on.
    """
    seen: Counter[object] = Counter()
    turns: dict[str, int] = {}
    for run in runs:
        turns[run.name] = seen[run.request.prompt]
        seen[run.request.prompt] += 1
    yield from model.scored([run for run in runs if not turns[run.name]])
    left = sorted((run for run in runs if turns[run.name]), key=lambda run: turns[run.name])
    whole = 0
    for scored_run in model.scored(left) if left else ():
        if score.wagers.settled:
            break
        whole += 1
        yield scored_run
    if left[whole:]:
        yield from model.scored(sorted(left[whole:], key=runs.index), START)


def _with_part(answers: Mapping[str, Finding], scored: int, tokens: int) -> dict[str, Finding]:
    """The answers about tokens, if they have not failed, with the part of the tokens that they are about."""
    about = [name for name in SCORED if name in answers and answers[name].outcome in ("passed", "inconclusive")]
    note = (
        f"; {scored:,} of {tokens:,} tokens were scored: at least one run of each text to its end, of the others the "
        f"first {START}"
    )
    return {**answers} | {name: replace(answers[name], message=answers[name].message + note) for name in about}


def _skipped(reason: SkipReason, why: str) -> Scored:
    return Scored({name: Finding.skipped(LEVEL, "draw", reason, why) for name in SCORED})
