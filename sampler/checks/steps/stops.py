"""Whether every run of a cell ended by itself, and as it says, without a reference."""

from collections import Counter
from collections.abc import Callable

from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.forced import contradiction, unflagged_end
from sampler.checks.verdict import Finding, Outcome
from sampler.engines.base import Generation, Request


def stops(evidence: Evidence) -> Finding:
    """Every run ends with EOS: one that hits the cap or stops early is a failure, and one whose flags deny its end."""
    return _found(evidence, _unended)


def ends(evidence: Evidence) -> Finding:
    """Every run ends as it says: a run that says that it hit the cap has so many tokens, and no EOS."""
    return _found(evidence, _contradiction)


def _found(evidence: Evidence, problem_of: Callable[[Request, Generation, tuple[int, ...]], str]) -> Finding:
    total = len(evidence.generations)
    eos_ids = evidence.engine.info.eos_ids
    if not eos_ids:
        return Finding.skipped("generate", "stop", "unsupported", "the engine's info names no EOS", total)
    pairs = zip(evidence.requests, evidence.generations, strict=True)
    problems = [
        (index, problem_of(*pair, eos_ids) or contradiction(evidence, index)) for index, pair in enumerate(pairs)
    ]
    bad = [index for index, problem in problems if problem]
    shown = [f"request {index} {problem}" for index, problem in problems if problem]
    reasons = Counter(generation.stop_reason for generation in evidence.generations)
    longest = max(len(generation.tokens) for generation in evidence.generations)
    ended = reasons["eos"] + reasons["forced_eos"]
    message = "; ".join(
        [f"{ended} of {total} runs say that they ended with EOS, the longest after {longest} tokens", *shown]
    )
    outcome: Outcome = "failed" if bad else "passed"
    request = bad[0] if bad else None
    unexplained = [index for index in range(total) if unflagged_end(evidence, index)]
    if unexplained and not bad:
        runs = ", ".join(map(str, unexplained[:3]))
        message += f"; forced_eos of request {runs}: no flag of an analyzer is recorded that explains it"
        return Finding(
            "generate", "stop", "inconclusive", total, message, reason="not_recorded", request=unexplained[0]
        )
    return Finding("generate", "stop", outcome, total, message, statistic=len(bad), bound=0, request=request)


def _unended(request: Request, generation: Generation, eos_ids: tuple[int, ...]) -> str:
    """What is wrong with the end of one run; empty if nothing."""
    hit = generation.stop_reason == "length" and len(generation.tokens) <= request.max_new_tokens
    if hit:
        return f"hit its cap of {request.max_new_tokens} tokens"
    return _contradiction(request, generation, eos_ids)


def _contradiction(request: Request, generation: Generation, eos_ids: tuple[int, ...]) -> str:
    """How the stop reason, the tokens and the cap of one run contradict each other; empty if they do not."""
    tokens, count = generation.tokens, len(generation.tokens)
    if generation.stop_reason == "error":
        reason = generation.record.error if generation.record else "no reason given"
        return f"stopped early after {count} tokens: {reason}"
    if count > request.max_new_tokens:
        return f"has {count} tokens, the limit is {request.max_new_tokens}"
    inside = next((step for step, token in enumerate(tokens[:-1]) if token in eos_ids), None)
    if inside is not None:
        return f"went on after EOS at step {inside}"
    at_the_end = bool(tokens) and tokens[-1] in eos_ids
    if generation.stop_reason != "length":
        return "" if at_the_end else f"says {generation.stop_reason} and does not end with EOS"
    if at_the_end:
        return "says length and ends with EOS"
    return (
        f"says length after {count} tokens, the limit is {request.max_new_tokens}"
        if count < request.max_new_tokens
        else ""
    )
