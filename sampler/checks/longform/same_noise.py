"""Whether an engine that is given the reference's noise speaks the reference's tokens.

Drawing is `argmax(score + noise)`, so that two engines of one distribution draw the same token from the same noise, but
where the margin is that of rounding. One run then shows what many runs of noise of their own do not: a position that is
one off, a BOS too few, guidance that ends early.
"""

import math
from collections.abc import Sequence

from sampler.checks.longform.runs import TokenRun
from sampler.checks.verdict import Finding, Outcome

NEAR_TIE = 1e-3
"""A margin of score + noise, in nats, that two float32 evaluations of one network may decide otherwise."""

LEAST_TOKENS = 20
"""Tokens that have to be compared before near ties part the runs."""

IGNORES_NOISE = "the engine draws with noise of its own"


def same(runs: Sequence[TokenRun], reference: Sequence[TokenRun]) -> Finding:
    """Each run is the reference's with the same noise, token for token, as long as no near tie has parted them.

    runs, reference: with the same noise, in the same order; the reference's have margins. The statistic is how many
    runs part elsewhere, the observations are tokens.
    """
    problems, ties, compared = [], 0, 0
    for mine, theirs in zip(runs, reference, strict=True):
        step = parting(mine.tokens, theirs.tokens)
        compared += len(theirs.tokens) if step is None else step + 1
        if step is None:
            continue
        known = theirs.margin is not None and step < len(theirs.margin)
        margin = float(theirs.margin[step]) if theirs.margin is not None and known else math.inf
        if margin < NEAR_TIE:
            ties += 1
        else:
            problems.append(f"text {theirs.text!r} parts at step {step}{_how(mine, theirs, step, margin)}")
    total = len(reference)
    message = f"{total - len(problems) - ties} of {total} runs with upstream's noise are upstream's token for token"
    if ties:
        message += f", {ties} until a near tie"
    if not problems and compared < LEAST_TOKENS:
        why = f"near ties parted the runs after {compared} tokens, {LEAST_TOKENS} are asked for; {message}"
        return Finding("generate", "draw", "inconclusive", compared, why, reason="too_few")
    outcome: Outcome = "failed" if problems else "passed"
    return Finding(
        "generate", "draw", outcome, compared, "; ".join([message, *problems]), statistic=len(problems), bound=0
    )


def parting(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first step at which two runs differ, that at which one has ended included; None if they are equal."""
    if tuple(one) == tuple(other):
        return None
    both = min(len(one), len(other))
    return next((step for step in range(both) if one[step] != other[step]), both)


def _how(mine: TokenRun, theirs: TokenRun, step: int, margin: float) -> str:
    if step >= len(mine.tokens):
        return f", where it stops ({mine.stop_reason})"
    if step >= len(theirs.tokens):
        return f", where upstream had ended ({theirs.stop_reason})"
    return f": {mine.tokens[step]} in place of {theirs.tokens[step]}, which leads by {margin:.2g} nats there"
