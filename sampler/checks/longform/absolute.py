"""What the runs of one cell are by themselves: whole, and without loops; or bad, where a finding says that they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sampler.checks.longform.runs import TokenRun
from sampler.checks.verdict import Finding, Outcome
from sampler.loops import find_loops, foremost
from sampler.statistics.share import AtLeast, AtMost

RIGHT_LENGTH = (0.7, 1.4)
"""Least and most length of a whole run, in lengths of its text's true speech."""

Problem = Callable[[TokenRun], str]


@dataclass(frozen=True)
class Expectation:
    """How many runs may be bad. most: share; known: why at least `least` of them have to be, empty for no reason."""

    most: float
    known: str = ""
    least: float = 0.5


def complete(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs that end with EOS at 0.7 to 1.4 times the length of their text's true speech: hitting the cap is no end."""
    if any(run.expected is None for run in runs):
        why = "nobody says how long the speech of these texts should be"
        return Finding("generate", "stop", "unavailable", len(runs), why, alpha=alpha)
    return _judged(runs, _incomplete, "are not whole", "stop", expected, alpha)


def looping(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs in which a loop is found (docs/loops.md)."""
    return _judged(runs, _loop, "loop", "draw", expected, alpha)


def _incomplete(run: TokenRun) -> str:
    """What is wrong with the length of a run; empty if nothing."""
    least, most = RIGHT_LENGTH
    if not run.ended:
        return f"{run.stop_reason} after {run.length} tokens"
    ratio = run.length / (run.expected or 1.0)
    if least <= ratio <= most:
        return ""
    return f"{'cut' if ratio < least else 'ended'} at {ratio:.2f} of its length{_how(run)}"


def _how(run: TokenRun) -> str:
    return " by the analyzer" if run.stop_reason == "forced_eos" else ""


def _loop(run: TokenRun) -> str:
    found = find_loops(run.tokens)
    return str(foremost(found)) if found else ""


def _judged(
    runs: Sequence[TokenRun], problem: Problem, words: str, stage: str, expected: Expectation, alpha: float
) -> Finding:
    bad = [(run, text) for run in runs if (text := problem(run))]
    count, total = len(bad), len(runs)
    shown = f"{count} of {total} runs {words}"
    if bad:
        run, text = bad[0]
        shown += f", the first of text {run.text!r}: {text}"
    if expected.known:
        return _known(count, total, shown, stage, expected, alpha)
    judgement, seen = AtMost(expected.most, alpha).judge(count, total), AtMost(expected.most, alpha).detectable(total)
    outcome: Outcome = "failed" if judgement.rejected else "passed" if seen < 1 else "unavailable"
    note = {
        "failed": f"more than {expected.most:.0%} (p = {judgement.p_value:.2g})",
        "passed": f"up to {int(judgement.bound)} allowed; would see {seen:.0%}",
        "unavailable": "too few runs (would see nothing)",
    }[outcome]
    return Finding(
        "generate", stage, outcome, total, f"{shown}; {note}",
        statistic=judgement.statistic, bound=judgement.bound, alpha=alpha, detectable=seen,
    )  # fmt: skip


def _known(count: int, total: int, shown: str, stage: str, expected: Expectation, alpha: float) -> Finding:
    """A cell that is known to be bad: one that is better than that is news, and fails."""
    test = AtLeast(expected.least, alpha)
    judgement, seen = test.judge(count, total), test.detectable(total)
    outcome: Outcome = "failed" if judgement.rejected else "passed" if seen > 0 else "unavailable"
    note = {
        "failed": f"fewer than the {expected.least:.0%} that are known (p = {judgement.p_value:.2g}): mend the matrix",
        "passed": f"at least {total - int(judgement.bound)} known; would see {seen:.0%}",
        "unavailable": "too few runs (would see nothing)",
    }[outcome]
    return Finding(
        "generate", stage, outcome, total, f"known: {expected.known}; {shown}; {note}",
        statistic=judgement.statistic, bound=judgement.bound, alpha=alpha, detectable=seen,
    )  # fmt: skip
