"""Whether runs end as the reference's do, and whether the last token agrees with the stop reason.

Runs are compared with reference runs, text by text: early and late ends by bounds from the reference runs
(`statistics.exceedances`), missing and forced ends by their counts (`statistics.stratified`). A run that hit its cap
has no end and is no success, however long the cap.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sampler.checks.longform.rates import Power, judged, marked_finding
from sampler.checks.longform.runs import NO_TEXT_IN_COMMON, TokenRun, TwoSides, end_tokens
from sampler.checks.verdict import Finding, Outcome
from sampler.engines.base import StopReason
from sampler.statistics.exceedances import BEYOND, Exceedances

Array = NDArray[np.float64]

SHARE = 0.5
"""`passed` requires that a fault in this share of an engine's runs would be detected."""

HELD_OUT = 4
"""Without expected lengths, one in this many reference runs of a text, at least one, sets its length."""

MOST_END_TOKENS = 8

MISSING = "EOS is missing from the runs"


def ends(runs: Sequence[TokenRun], reference: Sequence[TokenRun], eos_ids: Collection[int] = ()) -> Finding:
    """Runs that claim to have ended have EOS last, and no other run has one.

    EOS is one of `eos_ids`, where a model says so; else the last token of the reference, or the usual one of the runs.
    """
    eos = {token: count for token, count in end_tokens(reference or runs).items() if not eos_ids or token in eos_ids}
    said = sum(run.ended for run in reference or runs)
    total = len(runs)
    by_chance = (
        not reference and 2 * max(eos.values(), default=0) < said
    )  # runs end in many tokens, of which none is EOS
    if not eos or by_chance or sum(eos.values()) < 0.9 * said or len(eos) > MOST_END_TOKENS:
        whose = "reference runs" if reference else "runs"
        why = f"{said} of {len(reference or runs)} {whose} say that they ended, with no token in common that may be EOS"
        if said and not reference:
            why = f"{MISSING}, or it has many ids: {why}"
        return Finding.skipped("generate", "stop", "not_recorded", why, total)
    wrong = [(place, run.text, _wrong_end(run, eos)) for place, run in enumerate(runs)]
    problems = [f"run {place + 1}, text {text!r}, {what}" for place, text, what in wrong if what]
    message = f"EOS is {', '.join(map(str, sorted(eos)))}; {len(problems)} of {total} runs do not end as they say"
    ended = [run for run in runs if run.ended]
    if ended and not any(token in eos for run in ended for token in run.tokens[-1:]):
        message = f"{MISSING}: each of the {len(ended)} that say they ended ends with another token; {message}"
    shown = "; ".join([message, *problems[:3]])
    outcome: Outcome = "failed" if problems else "passed"
    return Finding("generate", "stop", outcome, total, shown, statistic=len(problems), bound=0)


def _wrong_end(run: TokenRun, eos: Mapping[int, int]) -> str:
    """What is wrong with the end of one run; empty if nothing."""
    if run.stop_reason == "error":
        return f"stopped early after {len(run.tokens)} tokens"
    inside = next((step for step, token in enumerate(run.tokens[:-1]) if token in eos), None)
    if inside is not None:
        return f"went on after EOS at step {inside}"
    at_the_end = bool(run.tokens) and run.tokens[-1] in eos
    if run.ended and not at_the_end:
        return f"says {run.stop_reason} and ends with {run.tokens[-1] if run.tokens else 'no token at all'}"
    return f"says {run.stop_reason} and ends with EOS" if at_the_end and not run.ended else ""


def relative_lengths(sides: TwoSides) -> tuple[list[Array], list[Array]]:
    """Lengths of the runs that ended by themselves, relative to that of their text, on both sides.

    A text's length is the expected one; else the median of the first reference runs, which are then left out.
    """
    engine, reference = [], []
    for mine, theirs in zip(sides.engine, sides.reference, strict=True):
        expected = next((run.expected for run in (*theirs, *mine) if run.expected), None)
        held_out = 0 if expected else min(max(1, len(theirs) // HELD_OUT), len(theirs))
        known = _natural(theirs[:held_out])
        unit = expected or (float(np.median(known)) if len(known) else 0.0)
        engine.append(_natural(mine) / unit if unit else np.empty(0))
        reference.append(_natural(theirs[held_out:]) / unit if unit else np.empty(0))
    return engine, reference


def _natural(runs: Sequence[TokenRun]) -> Array:
    return np.array([float(run.length) for run in runs if run.stop_reason == "eos"])


def beyond(sides: TwoSides, alpha: float, detect: float = SHARE, *, early: bool) -> Finding:
    """Whether too many runs end beyond the bound of the reference runs on one side."""
    engine, reference = relative_lengths(sides)
    sign = -1.0 if early else 1.0
    mine, theirs = [sign * values for values in engine], [sign * values for values in reference]
    test = Exceedances(alpha)
    judgement, seen = test.judge(mine, theirs), test.detectable(mine, theirs)
    count = sum(len(one) for one, other in zip(mine, theirs, strict=True) if len(one) and len(other))
    if judgement.n == 0 or not np.isfinite(judgement.bound):
        return _without_a_bound(sides, count, alpha)
    limit = sign * test.bound([other for one, other in zip(mine, theirs, strict=True) if len(one) and len(other)])
    message = (
        f"{judgement.statistic:.1%} of {count} runs that ended by themselves are {'shorter' if early else 'longer'} "
        f"than {limit:.3g} times their text's length, which {BEYOND:.0%} of reference runs are; up to "
        f"{judgement.bound:.1%} allowed"
    )
    if judgement.rejected:
        shares = [(one > sign * limit).mean() if len(one) else 0.0 for one in mine]
        worst = int(np.argmax(shares))
        message += f"; most in text {sides.texts[worst]!r} ({shares[worst]:.0%})"
    needed = test.samples_needed(detect, max(1, len(sides.texts))) if seen > detect else 0
    return judged(sides, judgement, alpha, Power(seen, detect, needed), message, "stop")


def _without_a_bound(sides: TwoSides, count: int, alpha: float) -> Finding:
    """The finding if the reference runs give no bound. count: runs that ended by themselves, of common texts."""
    n, figures = sides.count, {"alpha": alpha, "detectable": 1.0}
    if not sides.texts:
        return Finding.skipped("generate", "stop", "no_common_text", NO_TEXT_IN_COMMON, n, **figures)
    if not count:
        why = "no text has runs that ended by themselves on both sides, beside those that tell how long it is"
        return Finding.skipped("generate", "stop", "no_reference", why, n, **figures)
    why = "too few reference runs for a bound: at least 19 that ended by themselves are needed (detects nothing)"
    return Finding("generate", "stop", "inconclusive", n, why, alpha=alpha, detectable=1.0, reason="too_few")


def counted(sides: TwoSides, alpha: float, detect: float = SHARE, *, reason: StopReason, words: str) -> Finding:
    """Whether as many runs have that stop reason on both sides."""
    if not sides.texts:
        return Finding.skipped("generate", "stop", "no_common_text", NO_TEXT_IN_COMMON, alpha=alpha)
    engine, reference = sides.of_runs(lambda run: run.stop_reason == reason)
    mine, theirs = ([sum(some) for some in side] for side in (engine, reference))
    return marked_finding(sides, mine, theirs, "stop", words, alpha, detect)
