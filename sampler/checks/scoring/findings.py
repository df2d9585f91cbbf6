"""The answers of scoring, in words."""

from dataclasses import replace
from typing import Final

from sampler.checks.scoring.causes import NO_EXPLANATION, Explanation, explained
from sampler.checks.scoring.missing import other_vocabulary
from sampler.checks.scoring.score import Score
from sampler.checks.verdict import Finding

LEVEL: Final = "generate"


def findings(score: Score) -> dict[str, Finding]:
    """The answers by check, in the order of the contract."""
    causes = explained(score) if score.decided else NO_EXPLANATION
    found = {"impossible": _support(score, causes), "evidence": _evidence(score, causes), "protocol": _protocol(score)}
    return found | ({"winners": _margin(score, causes)} if score.noise else {})


def _support(score: Score, causes: Explanation) -> Finding:
    if not score.checked:
        return Finding.skipped(LEVEL, "draw", "not_recorded", "no run has a token of the model")
    if not score.impossible:
        message = f"each of the {score.checked:,} tokens is one that the reference can draw{score.tolerance.note}"
        return Finding(LEVEL, "draw", "passed", score.checked, message, statistic=0, bound=0)
    first = score.impossible[0]
    ends = all(one.token in score.eos_ids for one in score.impossible)
    count = len(score.impossible)
    of_all = f"{count} of {score.checked:,} tokens are; {score.proof:,} were enough"
    message = f"impossible: {first}; {of_all}{score.tolerance.note}"
    stage = causes.cause.stage if causes.cause else "stop" if ends else "draw"
    return Finding(LEVEL, stage, "failed", score.checked, message + causes.text, statistic=count, bound=0)


def _evidence(score: Score, causes: Explanation) -> Finding:
    if not score.checked:
        return Finding.skipped(LEVEL, "draw", "not_recorded", "no run has a token of the model")
    if score.gaps:
        message = "runs end at the first token that the log leaves out, so that nothing is bet on: give all tokens"
        return Finding.skipped(LEVEL, "draw", "not_recorded", message, score.checked)
    found = replace(score.wagers.finding(), level=LEVEL)
    if score.impossible and found.outcome != "failed":
        message = "the impossible tokens decide; bets on the others are not decided yet"
        return Finding.skipped(LEVEL, "draw", "after_failure", message, found.n)
    if found.outcome != "failed":
        return found
    stage = causes.cause.stage if causes.cause else found.stage
    return replace(found, stage=stage, message=found.message + causes.text)


def _margin(score: Score, causes: Explanation) -> Finding:
    if not score.margins.tokens:
        return Finding.skipped(LEVEL, "draw", "not_recorded", "no run has a token")
    found = score.margins.finding()
    if found.outcome != "failed" or score.margins.other_noise or not score.decided:
        return found
    return replace(
        found, stage=causes.cause.stage if causes.cause else found.stage, message=found.message + causes.text
    )


def _protocol(score: Score) -> Finding:
    if not score.wrong:
        message = f"all {len(score.runs)} runs end as they say"
        if score.stripped:
            message = "EOS is missing from all runs: tokens are scored given that none of them is EOS"
        if score.gaps:
            gaps = sum(min(run.tokens, default=0) < 0 for run in score.runs)
            message += f"; the log leaves tokens out of {gaps}, each of which is scored up to the first of them"
        return Finding(LEVEL, "stop", "passed", len(score.runs), message, statistic=0, bound=0)
    more = f", and {len(score.wrong) - 1} more" if len(score.wrong) > 1 else ""
    count, other = len(score.wrong), other_vocabulary(score)
    more += f"; it looks like {other.text}" if other else ""
    return Finding(LEVEL, "stop", "failed", len(score.runs), score.wrong[0] + more, statistic=count, bound=0)
