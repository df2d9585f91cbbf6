"""Questions about runs that need no reference: do they loop, end, are they complete; or bad, if a finding says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from sampler.checks.longform.runs import TokenRun
from sampler.checks.verdict import SHARE_OF_RUNS, Finding
from sampler.errors import RuleError
from sampler.loops import find_loops, foremost
from sampler.statistics.share import AtLeast, AtMost

RIGHT_LENGTH = (0.7, 1.4)
"""Least and most length of a complete run, relative to the true speech of its text."""

NOTHING_SEEN = "too few runs (detects nothing)"

NAMED = 3
"""Bad runs that a message names."""

REQUIRED: Final = 0.2
"""Share of looping runs, or of runs without an end, that must be detectable to agree, unless the user says another."""

Problem = Callable[[TokenRun], str]


OPTIONS: Final = {"looping": "--limit-looping", "missing": "--limit-missing", "detect": "--detect"}
"""Options of the command line by field of `RunLimits`."""


@dataclass(frozen=True)
class RunLimits:
    """Shares of runs that may loop, and that may hit their cap, in (0, 1). Raises RuleError for others.

    detect: the share of such runs that must be detectable for `passed`; None: nothing in particular.
    """

    looping: float = 0.02
    missing: float = 0.02
    detect: float | None = REQUIRED

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < 1:
                option = f"{OPTIONS[field.name]} {value}"
                raise RuleError(f"{option} is no share of runs", hint="expected a number between 0 and 1")

    @property
    def options(self) -> list[str]:
        """The options of a command line that say what is not the default."""
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return [part for name in given for part in (OPTIONS[name], str(getattr(self, name)))]


USUAL: Final = RunLimits()


@dataclass(frozen=True)
class Expectation:
    """How many runs may be bad. most: share; known: why at least the share `least` is bad, empty if not expected.

    required: the share of bad runs that `passed` must be able to detect; None: nothing in particular.
    """

    most: float
    known: str = ""
    least: float = 0.5
    required: float | None = None


def complete(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs that end with EOS at 0.7 to 1.4 times the length of their text's true speech; a run at its cap fails."""
    if any(run.expected is None for run in runs):
        why = "the expected length of the speech of these texts is not given"
        return Finding.skipped("generate", "stop", "not_recorded", why, len(runs), alpha=alpha)
    return _judged(runs, _incomplete, "are not whole", "stop", expected, alpha)


def looping(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs in which a loop is detected (docs/loops.md)."""
    return _judged(runs, _loop, "loop", "draw", expected, alpha)


def endless(runs: Sequence[TokenRun], expected: Expectation, alpha: float) -> Finding:
    """Runs that hit their cap, without an end. A run whose cap is too short for its text's speech tells nothing."""
    telling = [run for run in runs if not _cut_by_its_cap(run)]
    if runs and not telling:
        shortest = min(len(run.tokens) for run in runs)
        why = f"the cap of {shortest} tokens is too short for an end: the speech of these texts takes longer"
        return Finding.skipped("generate", "stop", "not_recorded", why, len(runs), alpha=alpha)
    return _judged(telling, _endless, "never ended", "stop", expected, alpha)


def within_limits(runs: Sequence[TokenRun], limits: RunLimits, alphas: Mapping[str, float]) -> dict[str, Finding]:
    """Both questions with an absolute limit. alphas: of each of ABSOLUTE."""
    return {
        "looping": looping(runs, Expectation(limits.looping, required=limits.detect), alphas["looping"]),
        "endless": endless(runs, Expectation(limits.missing, required=limits.detect), alphas["endless"]),
    }


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
    return foremost(found).describe(run.tokens) if found else ""


def _endless(run: TokenRun) -> str:
    return f"{len(run.tokens)} tokens without an end" if run.stop_reason == "length" else ""


def _cut_by_its_cap(run: TokenRun) -> bool:
    return run.stop_reason == "length" and run.expected is not None and run.length < RIGHT_LENGTH[1] * run.expected


def _judged(
    runs: Sequence[TokenRun], problem: Problem, words: str, stage: str, expected: Expectation, alpha: float
) -> Finding:
    bad = [f"run {place}, text {run.text!r}: {text}" for place, run in enumerate(runs, 1) if (text := problem(run))]
    count, total = len(bad), len(runs)
    shown = f"{count} of {total} runs {words}"
    if bad:
        rest = [f"and {count - NAMED} more"] if count > NAMED else []
        shown += f" ({'; '.join([*bad[:NAMED], *rest])})"
    if expected.known:
        return _known(count, total, shown, stage, expected, alpha)
    test = AtMost(expected.most, alpha)
    judgement, seen = test.judge(count, total), test.detectable(total)
    figures: dict[str, object] = {"unit": SHARE_OF_RUNS}
    if expected.required is not None:
        figures["required"] = expected.required
    found = Finding.of_test("generate", stage, judgement, shown, alpha=alpha, detectable=seen, **figures)
    if found.outcome != "failed" and count > expected.most * total:
        found = replace(found, outcome="inconclusive", reason="suspicious")
    return replace(found, message=f"{shown}; {_note(found, expected)}")


def _note(found: Finding, expected: Expectation) -> str:
    """What follows from the number of bad runs, and what these runs can tell."""
    limit = f"{100 * expected.most:g}%"
    if found.outcome == "failed":
        return f"more than {limit} (p = {found.p_value:.2g})"
    seen = found.detectable or 1.0
    power = NOTHING_SEEN if seen >= 1 else f"detects at least {seen:.0%}"
    if found.reason == "suspicious":
        return f"more than {limit}, but of {found.n} runs this may be chance: generate more ({power})"
    if found.outcome == "inconclusive" and found.required is not None and seen < 1:
        return f"too few runs ({power}, required: {found.required:.0%})"
    return power if seen >= 1 else f"{int(found.bound or 0) + 1} would fail; {power}"


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
