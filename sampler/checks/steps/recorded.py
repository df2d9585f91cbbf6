"""The recorded steps of a run, some at a time, and what the reference says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.steps.evidence import Evidence
from sampler.checks.verdict import Finding
from sampler.engines.base import Level
from sampler.errors import Unsupported
from sampler.requests import Context, Logits, Steps

STEPS_AT_ONCE = 64
FORCING = {"long_tail", "alignment_repetition", "token_repetition"}
DECIDED = 32768.0
"""What the alignment analyzer writes in place of a logit, on either side of 0."""

EXACT_DTYPES = ("float32", "float64")

Mask = NDArray[np.bool_]


def recorded_steps(evidence: Evidence) -> Iterator[Steps]:
    """All recorded steps, some at a time; nothing for an engine that records no logits.

    Raises Unsupported where the record cannot be judged: of another precision, or without the logits that are mixed.
    """
    dtype = evidence.engine.info.dtype
    if dtype not in EXACT_DTYPES:
        raise Unsupported(f"it computes in {dtype}, for which no tolerance is known yet")
    for index, (request, generation) in enumerate(zip(evidence.requests, evidence.generations, strict=True)):
        record = generation.record
        if record is None or record.logits is None:
            continue
        if "cfg" in request.config.active_stages() and record.logits.shape[1] == 1:
            raise Unsupported("the engine records no unconditional logits, so its guidance cannot be followed")
        for start in range(0, len(generation.tokens), STEPS_AT_ONCE):
            part = slice(start, min(start + STEPS_AT_ONCE, len(generation.tokens)))
            steps = range(part.start, part.stop)
            logits = decided(record.logits[part], record.flags[part], evidence.engine.info.eos_ids)
            tokens = np.array(generation.tokens[part], dtype=np.int64)
            histories = [[*evidence.prefix, *generation.tokens[:step]] for step in steps]
            uniforms = np.array([request.uniform(step) for step in steps]) if request.uniform else None
            places = np.array(steps, dtype=np.int64)
            prefix = np.full(len(places), len(evidence.prefix), dtype=np.int64)
            yield Steps(
                logits[:, 0],
                histories,
                (request.config,) * len(steps),
                logits[:, 1] if logits.shape[1] == 2 else None,
                Context(prefix, places, evidence.engine.info.eos_ids, uniforms),
                gumbel=np.stack([request.noise(step) for step in steps]) if request.noise else None,
                tokens=tokens,
                request=index,
            )


def decided(logits: Logits, flags: Sequence[str], eos_ids: Sequence[int]) -> Logits:
    """Logits (T, rows, V) as the stage `alignment` leaves them, in every row alike, so that guidance changes nothing.

    flags: what is up at each step (`Decisions.flags`); none where no analyzer looks.
    """
    names = [set(each.split("+")) for each in flags]
    if not any(each - {""} for each in names):
        return logits
    result, eos = logits.copy(), list(eos_ids)
    for row, each in zip(result, names, strict=True):
        if each & FORCING:  # which wins over suppression in every variant that ships
            row[:] = -DECIDED
            row[:, eos] = DECIDED
        elif "suppressed" in each:
            row[:, eos] = -DECIDED
    return result


def kept_bounds(evidence: Evidence, steps: Steps) -> tuple[Mask, Mask]:
    """What must and what may be kept, (T, V) each; worked out once for all checks of a cell."""
    key = steps.request, len(steps.history[0])
    if key not in evidence.known:
        must, may, _ = evidence.reference.bounds(steps)
        evidence.known[key] = tuple(np.packbits(mask, axis=-1) for mask in (must, may))
    must, may = (
        np.unpackbits(packed, axis=-1, count=steps.logits.shape[-1]).astype(np.bool_) for packed in evidence.known[key]
    )
    return must, may


def one_step(steps: Steps, index: int, scores: Logits | None = None) -> Steps | None:
    """One step for a crash file, which holds its noise; scores: (V,) as the engine has them."""
    if steps.gumbel is None:
        return None
    return replace(steps.only([index]), scores=None if scores is None else scores[None])


def nothing_recorded(evidence: Evidence, level: Level, stage: str) -> Finding:
    """The answer where there is no step to look at."""
    if any(generation.tokens for generation in evidence.generations):
        return Finding.skipped(level, stage, "not_recorded", "the engine records no logits")
    return Finding.skipped(level, stage, "not_recorded", "no run drew a single token")
