"""Whether a run can be repeated: same seed, same tokens, whatever else is in the batch."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sampler.checks.steps.evidence import Evidence
from sampler.checks.verdict import Finding
from sampler.engines.base import Generation

Runs = Mapping[int, Generation]
"""Generations by the places of their requests."""


def places_of(count: int) -> list[int]:
    """The requests that are generated again: the first, a middle one and the last."""
    return sorted({0, count // 2, count - 1}) if count else []


def repeats(evidence: Evidence) -> Finding:
    """Requests again, in another order, among others and alone: the same tokens, from an exact engine the same bits.

    Where they differ, the same requests once more tell the cause: `batch` if they come out as the second time, so that
    the neighbours made the difference, else `seed`.
    """
    first = dict(enumerate(evidence.generations))
    count = sum(len(first[place].tokens) for place in evidence.reordered)
    if not count:
        return Finding.skipped("generate", "seed", "not_recorded", "no request drew a token")
    notes = []
    for name, runs, again in _repetitions(evidence):
        for place, run in runs.items():
            bits = "" if first[place].tokens != run.tokens else _bits(first[place], run)
            difference = _difference(first[place], run) or (bits if evidence.exact else "")
            if difference:
                stage = "batch" if again is not None and _equal(again(), runs, exact=evidence.exact) else "seed"
                message = f"request {place} among its neighbours and {name} differ: {difference}"
                if stage == "seed":
                    message += "; a further repetition differs as well"
                return Finding("generate", stage, "failed", count, message, statistic=1, bound=0, request=place)
            notes += [f"; request {place}: {bits}"] if bits else []
    alone = " and alone" if evidence.alone else ""
    message = f"{count} tokens came back identical in another order{alone}{''.join(notes)}"
    return Finding("generate", "seed", "passed", count, message, statistic=0, bound=0)


def _repetitions(evidence: Evidence) -> Iterator[tuple[str, Runs, Callable[[], Runs] | None]]:
    """What was generated again: how, the runs, and what generates them once more."""
    yield "in another order", evidence.reordered, evidence.reorder
    repeat = evidence.repeat
    if evidence.alone is not None:
        yield "alone", {0: evidence.alone}, None if repeat is None else lambda: {0: repeat()}


def _equal(left: Runs, right: Runs, *, exact: bool) -> bool:
    """Whether two repetitions are the same."""
    return not any(
        _difference(left[place], right[place]) or (exact and _bits(left[place], right[place])) for place in right
    )


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
