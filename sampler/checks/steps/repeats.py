"""Whether a run can be repeated: same seed, same tokens, whatever else is in the batch."""

import numpy as np

from sampler.checks.steps.evidence import Evidence
from sampler.checks.verdict import Finding
from sampler.engines.base import Generation


def repeats(evidence: Evidence) -> Finding:
    """Request 0 again, in its slot, twice: the same tokens, and from an exact engine the same logits bit for bit.

    It runs alone, except in the core of the suite, which runs it with the first requests of other cells. If both agree
    with each other and not with the first, the neighbours made the difference.
    """
    first, (alone, again) = evidence.generations[0], evidence.alone
    count = len(first.tokens)
    if not count:
        return Finding.skipped("generate", "seed", "not_recorded", "request 0 drew no token")
    notes = []
    for stage, left, right, name in (
        ("seed", alone, again, "two runs without their neighbours and with the same seed"),
        ("batch", first, alone, "the run among its neighbours and the same run without them"),
    ):
        difference = _difference(left, right) or (_bits(left, right) if evidence.exact else "")
        if difference:
            return Finding("generate", stage, "failed", count, f"{name} differ: {difference}", statistic=1, bound=0)
        if not evidence.exact and _bits(left, right):
            notes.append(f"; {name}: {_bits(left, right)}")
    message = f"{count} tokens came back identical, twice{''.join(notes)}"
    return Finding("generate", "seed", "passed", count, message, statistic=0, bound=0)


def _difference(left: Generation, right: Generation) -> str:
    """First difference of tokens or stop reasons; empty if there is none."""
    if left.tokens != right.tokens:
        pairs = zip(left.tokens, right.tokens, strict=False)
        shorter = min(len(left.tokens), len(right.tokens))
        step = next((index for index, (one, other) in enumerate(pairs) if one != other), shorter)
        return f"first at step {step}, {left.tokens[step : step + 3]} and {right.tokens[step : step + 3]}"
    if left.stop_reason != right.stop_reason:
        return f"stop reasons {left.stop_reason} and {right.stop_reason}"
    return ""


def _bits(left: Generation, right: Generation) -> str:
    """First step with logits that are not bit-equal; empty if there is none, or none are recorded."""
    logits = [generation.record.logits if generation.record else None for generation in (left, right)]
    if logits[0] is not None and logits[1] is not None and not np.array_equal(logits[0], logits[1], equal_nan=True):
        same = (logits[0] == logits[1]) | (np.isnan(logits[0]) & np.isnan(logits[1]))
        step = int(np.argmin(same.all(axis=(1, 2))))
        return f"equal tokens, but logits are not bit-equal from step {step}"
    return ""
