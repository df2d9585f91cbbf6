"""Whether the runs of one cell alone are complete and free of loops; or bad, if a finding says so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sampler.checks.longform.runs import TokenRun
from sampler.checks.verdict import SHARE_OF_RUNS, Finding
from sampler.loops import find_loops, foremost
from sampler.statistics.share import AtLeast, AtMost

RIGHT_LENGTH = (0.7, 1.4)
"""Least and most length of a complete run, relative to the true speech of its text."""

NOTHING_SEEN = "too few runs (detects nothing)"

Problem = Callable[[TokenRun], str]


@dataclass(frozen=True)
class Expectation:
    """How many runs may be bad. most: share; known: why at least the share `least` is bad, empty if not expected."""

    most: float
    known: str = ""
    least: float = 0.5


def complete(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs that end with EOS at 0.7 to 1.4 times the length of their text's true speech; a run at its cap fails."""
    if any(run.expected is None for run in runs):
        why = "the expected length of the speech of these texts is not given"
        return Finding.skipped("generate", "stop", "not_recorded", why, len(runs), alpha=alpha)
    return _judged(runs, _incomplete, "are not whole", "stop", expected, alpha)


def looping(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs in which a loop is detected (docs/loops.md)."""
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
    note = f"up to {int(judgement.bound)} allowed; detects at least {seen:.0%}" if seen < 1 else NOTHING_SEEN
    if judgement.rejected:
        note = f"more than {expected.most:.0%} (p = {judgement.p_value:.2g})"
    return Finding.of_test(
        "generate", stage, judgement, f"{shown}; {note}", alpha=alpha, detectable=seen, unit=SHARE_OF_RUNS
    )


def _known(count: int, total: int, shown: str, stage: str, expected: Expectation, alpha: float) -> Finding:
    """A cell that is known to be bad; it fails if it is better than that."""
    test = AtLeast(expected.least, alpha)
    judgement, seen = test.judge(count, total), test.detectable(total)
    note = f"at least {total - int(judgement.bound)} known; detects at most {seen:.0%}" if seen > 0 else NOTHING_SEEN
    if judgement.rejected:
        note = f"fewer than the {expected.least:.0%} that are known (p = {judgement.p_value:.2g}): update the matrix"
    message = f"known: {expected.known}; {shown}; {note}"
    # A share below the known one is detected; 0 means that none is.
    figures = {"unit": SHARE_OF_RUNS, "known": expected.known}
    found = Finding.of_test("generate", stage, judgement, message, alpha=alpha, detectable=seen or 1.0, **figures)
    return replace(found, detectable=seen)
