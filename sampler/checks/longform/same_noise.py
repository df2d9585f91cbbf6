"""Whether an engine that is given the reference's noise draws the reference's tokens.

Drawing is `argmax(score + noise)`, so two engines of one distribution draw the same token from the same noise, unless
the margin is as small as rounding. One run then shows what many runs with other noise do not: a position that is one
off, a missing BOS, guidance that ends early.
"""

import math
from collections.abc import Sequence

from sampler.checks.longform.runs import TokenRun
from sampler.checks.verdict import Finding, Outcome

NEAR_TIE = 1e-3
"""Two float32 evaluations of one network may differ in their choice below this margin of score + noise, in nats."""

LEAST_TOKENS = 20
"""The number of tokens that must be compared before near ties end the comparison."""

IGNORES_NOISE = "the engine draws with its own noise"


def same(runs: Sequence[TokenRun], reference: Sequence[TokenRun], whose: str = "upstream") -> Finding:
    """Each run equals the reference's with the same noise, token for token, up to the first near tie.

    runs, reference: with the same noise, in the same order; the reference's have margins. whose: the reference's name.
    The statistic is the number of runs that differ elsewhere, the observations are tokens.
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
            problems.append(f"text {theirs.text!r} parts at step {step}{_how(mine, theirs, step, margin, whose)}")
    total = len(reference)
    message = f"{total - len(problems) - ties} of {total} runs with {whose}'s noise are {whose}'s token for token"
    if ties:
        message += f", {ties} until a near tie"
    if not problems and compared < LEAST_TOKENS:
        why = f"near ties parted the runs after {compared} tokens, {LEAST_TOKENS} are required; {message}"
        return Finding("generate", "draw", "inconclusive", compared, why, reason="too_few")
    outcome: Outcome = "failed" if problems else "passed"
    return Finding(
        "generate", "draw", outcome, compared, "; ".join([message, *problems]), statistic=len(problems), bound=0
    )


def parting(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first step at which two runs differ, or at which one has ended; None if they are equal."""
    if tuple(one) == tuple(other):
        return None
    both = min(len(one), len(other))
    return next((step for step in range(both) if one[step] != other[step]), both)


def _how(mine: TokenRun, theirs: TokenRun, step: int, margin: float, whose: str) -> str:
    if step >= len(mine.tokens):
        return f", where it stops ({mine.stop_reason})"
    if step >= len(theirs.tokens):
        return f", where {whose} had ended ({theirs.stop_reason})"
    return f": {mine.tokens[step]} in place of {theirs.tokens[step]}, which leads by {margin:.2g} nats there"
