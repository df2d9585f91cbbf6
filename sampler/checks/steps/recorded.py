"""The recorded steps of a run in blocks, and the reference's bounds for them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.bounds import seen_bounds
from sampler.checks.steps.coverage import gaps, judged_steps
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.forced import FORCING
from sampler.checks.verdict import Finding
from sampler.engines.base import Level
from sampler.requests import Context, Logits, Steps

STEPS_AT_ONCE = 64
DECIDED = 32768.0
"""The score, positive or negative, that the alignment analyzer writes in place of a logit."""

EXACT_DTYPES = ("float32", "float64")

MOST_NOISE = 2**24
"""Values of noise that are kept for all checks of a cell; what is beyond is made again."""

Mask = NDArray[np.bool_]


def recorded_steps(evidence: Evidence) -> Iterator[Steps]:
    """All recorded steps that can be judged, in blocks; none for an engine that records no logits."""
    for index, (request, generation) in enumerate(zip(evidence.requests, evidence.generations, strict=True)):
        record = generation.record
        if record is None or record.logits is None:
            continue
        judged = judged_steps(evidence, index)
        for start in range(0, len(judged), STEPS_AT_ONCE):
            steps = (start + np.flatnonzero(judged[start : start + STEPS_AT_ONCE])).tolist()
            if not steps:
                continue
            flags = [record.flags[step] for step in steps] if record.flags else []
            logits = decided(record.logits[steps], flags, evidence.engine.info.eos_ids)
            histories = [[*evidence.prefix, *generation.tokens[:step]] for step in steps]
            uniforms = np.array([request.uniform(step) for step in steps]) if request.uniform else None
            prefix = np.full(len(steps), len(evidence.prefix), dtype=np.int64)
            yield Steps(
                logits[:, 0],
                histories,
                (request.config,) * len(steps),
                logits[:, 1] if logits.shape[1] == 2 else None,
                Context(prefix, np.array(steps, dtype=np.int64), evidence.engine.info.eos_ids, uniforms),
                gumbel=_noise(evidence, index, steps),
                tokens=np.array([generation.tokens[step] for step in steps], dtype=np.int64),
                request=index,
            )


def _noise(evidence: Evidence, index: int, steps: Sequence[int]) -> Logits | None:
    """The suite's noise (T, V) of some steps; None for an engine that does not take it."""
    noise, place = evidence.requests[index].noise, (index, steps[0])
    if noise is None or place in evidence.noise:
        return evidence.noise.get(place)
    values = np.stack([noise(step) for step in steps])
    if values.size + sum(kept.size for kept in evidence.noise.values()) <= MOST_NOISE:
        evidence.noise[place] = values
    return values


def decided(logits: Logits, flags: Sequence[str], eos_ids: Sequence[int]) -> Logits:
    """Logits (T, rows, V) after the stage `alignment`, equal in every row, so that guidance changes nothing.

    flags: the flags set at each step (`Decisions.flags`); empty without an analyzer.
    """
    names = [set(text.split("+")) for text in flags]
    if not any(some - {""} for some in names):
        return logits
    result, eos = logits.copy(), list(eos_ids)
    for row, some in zip(result, names, strict=True):
        if FORCING & some:  # forcing wins over suppression in every variant that ships
            row[:] = -DECIDED
            row[:, eos] = DECIDED
        elif "suppressed" in some:
            row[:, eos] = -DECIDED
    return result


def kept_bounds(evidence: Evidence, steps: Steps) -> tuple[Mask, Mask]:
    """`seen_bounds`, cached for all checks of a cell."""
    key = steps.request, len(steps.history[0])
    if key not in evidence.known:
        must, may = seen_bounds(evidence.reference, steps)
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
        return Finding.skipped(level, stage, "not_recorded", "; ".join(gaps(evidence)))
    return Finding.skipped(level, stage, "not_recorded", "no run drew a single token")
