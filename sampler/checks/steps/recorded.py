"""The recorded steps of a run in blocks, and the reference's bounds for them."""

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
"""The score, positive or negative, that the alignment analyzer writes in place of a logit."""

EXACT_DTYPES = ("float32", "float64")

Mask = NDArray[np.bool_]


def recorded_steps(evidence: Evidence) -> Iterator[Steps]:
    """All recorded steps in blocks; none for an engine that records no logits.

    Raises Unsupported for a record that cannot be judged: of another precision, or without unconditional logits.
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
    """Logits (T, rows, V) after the stage `alignment`, equal in every row, so that guidance changes nothing.

    flags: the flags set at each step (`Decisions.flags`); empty without an analyzer.
    """
    names = [set(text.split("+")) for text in flags]
    if not any(some - {""} for some in names):
        return logits
    result, eos = logits.copy(), list(eos_ids)
    for row, some in zip(result, names, strict=True):
        if some & FORCING:  # forcing wins over suppression in every variant that ships
            row[:] = -DECIDED
            row[:, eos] = DECIDED
        elif "suppressed" in some:
            row[:, eos] = -DECIDED
    return result


def kept_bounds(evidence: Evidence, steps: Steps) -> tuple[Mask, Mask]:
    """Which tokens must and may be kept, (T, V) each; cached for all checks of a cell."""
    key = steps.request, len(steps.history[0])
    if key not in evidence.known:
        must, may, _ = evidence.reference.bounds(steps)
        evidence.known[key] = tuple(np.packbits(mask, axis=-1) for mask in (must, may))
    must, may = (
        np.unpackbits(packed, axis=-1, count=steps.logits.shape[-1]).astype(np.bool_) for packed in evidence.known[key]
    )
    return must, may


def one_step(steps: Steps, index: int, scores: Logits | None = None) -> Steps | None:
    """One step for a crash file, if its noise is known; scores: (V,) of the engine."""
    if steps.gumbel is None:
        return None
    return replace(steps.only([index]), scores=None if scores is None else scores[None])


def nothing_recorded(evidence: Evidence, level: Level, stage: str) -> Finding:
    """The finding if there is no step to test."""
    if any(generation.tokens for generation in evidence.generations):
        return Finding.skipped(level, stage, "not_recorded", "the engine records no logits")
    return Finding.skipped(level, stage, "not_recorded", "no run drew a single token")
