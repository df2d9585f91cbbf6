"""What recorded logits show by themselves, where nobody knows the model."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sampler.checks.steps.coverage import common_start, recorded_logits
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.forced import forces
from sampler.checks.steps.recorded import kept_bounds, recorded_steps
from sampler.checks.steps.sampled import draws
from sampler.checks.steps.teacher import distance
from sampler.checks.verdict import Finding
from sampler.engines.base import Generation
from sampler.requests import Logits
from sampler.stages import of_kind

RICH: Final = 64
"""Distinct logits in a row of a real vocabulary; rows of fewer may be equal by construction."""

SAME: Final = 2.0**-18
"""Relative difference of logits up to which two rows differ by a constant alone."""

REMOVED: Final = 5_000.0
"""A logit this far below the best of its row was removed: masks are -inf, -1e9, -65504 or -32768."""

FILTERS: Final = of_kind("tail", "head")


def same_rows(evidence: Evidence) -> Finding | None:
    """With guidance on, conditional and unconditional rows differ: equal ones switch it off."""
    equal = total = 0
    first: tuple[int, int] | None = None
    rich = True
    for index, logits in recorded_logits(evidence):
        if not evidence.guided(index) or logits.shape[1] == 1:
            continue
        alike = _equal_rows(logits) & ~_forced_steps(evidence.generations[index], len(logits))
        equal, total = equal + int(alike.sum()), total + len(alike)
        if first is None and alike.any():
            first = index, int(np.argmax(alike))
            rich = len(np.unique(logits[first[1], 0])) >= RICH
    if first is None:
        return None
    message = (
        f"conditional and unconditional logits are the same at {equal} of {total} steps, first at request {first[0]}, "
        f"step {first[1]}: guidance of such rows changes nothing"
    )
    contradiction = rich if equal < total else _depends_on_prompt(evidence)
    if contradiction:
        reason = "they differ elsewhere" if equal < total else "the prompt changes the logits of the first step"
        message = f"{message}, and {reason}, so one row was recorded twice"
        return Finding("generate", "cfg", "failed", total, message, statistic=equal, bound=0, request=first[0])
    return Finding("generate", "cfg", "inconclusive", total, message, reason="not_recorded", request=first[0])


def chain_applied(evidence: Evidence) -> Finding | None:
    """No filter was applied before the record: tokens that it removes are still there."""
    config = evidence.requests[0].config
    last = next((stage for stage in reversed(config.order) if stage in FILTERS and stage in config.active_stages()), "")
    stage = "temperature" if config.greedy else last
    if not stage:
        return None
    masks: set[bytes] = set()
    counts: list[int] = []
    for steps in recorded_steps(evidence):
        finite = steps.logits > steps.logits.max(axis=-1, keepdims=True) - REMOVED
        _, may = kept_bounds(evidence, steps)
        if (finite & ~may).any():
            return None
        masks.update(row.tobytes() for row in finite)
        counts.extend(finite.sum(axis=-1).tolist())
    if len(masks) < 2:  # a mask that never changes is the model's own
        return None
    size = evidence.engine.info.vocab_size or max(counts)
    message = (
        f"the recorded logits have {min(counts)} to {max(counts)} tokens left of {size}, and {stage} removes none of "
        "them at any step: they are the scores after it, so nobody can see what it removed"
    )
    return Finding("generate", stage, "failed", len(counts), message, statistic=len(masks), bound=1)


def follows_the_prompt(evidence: Evidence) -> Finding | None:
    """Two runs of one prompt have the same logits up to the step after the first token that differs."""
    precision = evidence.precision
    for name, left, right in _pairs(evidence):
        shared = common_start(left.tokens, right.tokens) + 1
        rows = [one.record.logits[:shared] for one in (left, right) if one.record and one.record.logits is not None]
        if len(rows) < 2 or rows[0].shape[1:] != rows[1].shape[1:]:
            continue
        count = min(map(len, rows))
        apart = distance(rows[0][:count], rows[1][:count])
        if count and apart.max() > precision.largest:
            step = int(np.argmax(apart > precision.largest))
            message = (
                f"{name} have the same tokens before step {step}, and logits there that differ by a total variation of "
                f"{apart[step]:.3g} (allowed {precision.largest:g}): records of other steps, or of other runs"
            )
            figures: dict[str, Any] = {"statistic": float(apart.max()), "bound": precision.largest}
            return Finding("generate", "position", "failed", count, message, **figures, request=0)
    return None


def tells_nothing(evidence: Evidence) -> Finding | None:
    """Rows that any token fits, and rows that never change, are no evidence, unless known noise explains the tokens."""
    message = _same_for_all_tokens(evidence) or _same_for_all_steps(evidence) or _same_for_all_requests(evidence)
    if not message or _proven(evidence):
        return None
    steps = sum(len(logits) for _, logits in recorded_logits(evidence))
    return Finding("generate", "cache", "inconclusive", steps, message, reason="not_recorded")


def _same_for_all_tokens(evidence: Evidence) -> str:
    for index, logits in recorded_logits(evidence):
        finite = np.isfinite(logits)
        equal = (np.where(finite, logits, -np.inf).max(axis=2) == np.where(finite, logits, np.inf).min(axis=2)).any(
            axis=1
        )
        flat = equal & (finite.sum(axis=2) > 1).any(axis=1) & ~_forced_steps(evidence.generations[index], len(logits))
        if flat.any():
            step = int(np.argmax(flat))
            return f"request {index}, step {step}: all recorded logits are equal, which any token fits"
    return ""


def _same_for_all_steps(evidence: Evidence) -> str:
    for index, logits in recorded_logits(evidence):
        tokens = evidence.generations[index].tokens[: len(logits)]
        if len(logits) > 2 and len(set(tokens[:-1])) > 1 and (logits == logits[0]).all():
            return f"request {index}: the {len(logits)} recorded steps have the same logits, whatever was drawn before"
    return ""


def _same_for_all_requests(evidence: Evidence) -> str:
    kept: list[tuple[int, Logits]] = []
    for index, logits in recorded_logits(evidence):
        for other, theirs in kept:
            count = min(len(logits), len(theirs))
            tokens = [evidence.generations[one].tokens[: count - 1] for one in (index, other)]
            if count > 2 and tokens[0] != tokens[1] and np.array_equal(logits[:count], theirs[:count]):
                return f"requests {other} and {index} drew other tokens and have the same recorded logits"
        kept.append((index, logits))
    return ""


def _proven(evidence: Evidence) -> bool:
    """Whether the suite's own noise and the records give every token that was drawn."""
    return not evidence.requests[0].config.greedy and draws(evidence).outcome == "passed"


def _equal_rows(logits: Logits) -> NDArray[np.bool_]:
    """Steps at which the two rows of (T, 2, V) differ by one constant at most, as equal distributions do: (T,)."""
    finite = np.isfinite(logits)
    alike = (finite[:, 0] == finite[:, 1]).all(axis=1)
    both = np.where(finite, logits, 0.0)
    apart = both[:, 0] - both[:, 1]
    highest = np.where(finite[:, 0], apart, -np.inf).max(axis=1)
    lowest = np.where(finite[:, 0], apart, np.inf).min(axis=1)
    several = finite[:, 0].sum(axis=1) > 1  # where one token is left, guidance has nothing to say
    return np.asarray(alike & several & (highest - lowest <= SAME * (1 + np.abs(both).max(axis=(1, 2)))))


def _forced_steps(generation: Generation, count: int) -> NDArray[np.bool_]:
    flags = generation.record.flags if generation.record else ()
    return np.array([forces(text) for text in (*flags[:count], *[""] * (count - len(flags[:count])))], dtype=np.bool_)


def _depends_on_prompt(evidence: Evidence) -> bool:
    """Whether two prompts have different logits at their first step."""
    first = [(evidence.requests[index].prompt, logits[0]) for index, logits in recorded_logits(evidence) if len(logits)]
    return any(prompt != first[0][0] and not np.array_equal(row, first[0][1]) for prompt, row in first)


def _pairs(evidence: Evidence) -> Iterator[tuple[str, Generation, Generation]]:
    """Two runs of one prompt."""
    first = evidence.generations[0]
    for again in (evidence.reordered.get(0), evidence.alone):
        if again is None:
            continue
        yield "request 0 and the same request again", first, again
    if evidence.reseeded is not None:
        yield "request 0 and the same prompt with another seed", first, evidence.reseeded
    for index, request in enumerate(evidence.requests[1:], 1):
        if (request.prompt, request.language) == (evidence.requests[0].prompt, evidence.requests[0].language):
            yield f"requests 0 and {index}, which have the same prompt,", first, evidence.generations[index]
