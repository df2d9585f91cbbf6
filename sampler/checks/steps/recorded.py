"""The recorded steps of a run, some at a time, and what the reference says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.verdict import Evidence, Finding, Step
from sampler.config import ALL_STAGES, SamplingConfig, Stage
from sampler.engines.base import Context, Level
from sampler.errors import Unsupported

STEPS_AT_ONCE = 64
FORCING = {"long_tail", "alignment_repetition", "token_repetition"}
DECIDED = 32768.0
"""What the alignment analyzer writes in place of a logit, on either side of 0."""

EXACT_DTYPES = ("float32", "float64")

Logits = NDArray[np.float32]
Mask = NDArray[np.bool_]
ChainInputs = tuple[Logits, list[list[int]], SamplingConfig, Logits | None]


@dataclass(frozen=True)
class Steps:
    """Consecutive steps of one run: (T, V) logits and noise, T histories, (T,) tokens and uniforms."""

    request: int
    first: int
    config: SamplingConfig
    histories: list[list[int]]
    logits: Logits
    uncond_logits: Logits | None
    gumbel: Logits | None
    tokens: NDArray[np.int64]
    eos_ids: tuple[int, ...] = ()
    uniforms: NDArray[np.float64] | None = None

    def inputs(self) -> ChainInputs:
        """Arguments of `process`."""
        return self.logits, self.histories, self.config, self.uncond_logits

    def context(self) -> Context:
        """Where these steps stand in their run."""
        places = self.first + np.arange(len(self.histories))
        lengths = np.array([len(history) for history in self.histories], dtype=np.int64)
        return Context(lengths - places, places, self.eos_ids, self.uniforms)

    def with_config(self, config: SamplingConfig) -> "Steps":
        """The same steps under another config."""
        return replace(self, config=config)

    def before(self, stage: Stage, scores: NDArray[np.float64]) -> "Steps":
        """One stage by itself, on the scores (T, V) that the stages before it have left."""
        config = self.config.without([other for other in ALL_STAGES if other != stage])
        uncond = self.uncond_logits if stage == "cfg" else None
        return replace(self, config=config, logits=scores.astype(np.float32), uncond_logits=uncond)

    def only(self, index: int) -> "Steps":
        """One step by itself."""
        rows = slice(index, index + 1)
        return replace(
            self,
            first=self.first + index,
            histories=self.histories[rows],
            logits=self.logits[rows],
            uncond_logits=None if self.uncond_logits is None else self.uncond_logits[rows],
            gumbel=None if self.gumbel is None else self.gumbel[rows],
            tokens=self.tokens[rows],
            uniforms=None if self.uniforms is None else self.uniforms[rows],
        )

    def step(self, index: int, scores: Logits | None = None) -> Step | None:
        """One step by itself, for a crash file; scores: (V,) as the engine has them."""
        if self.gumbel is None:
            return None
        uncond = None if self.uncond_logits is None else self.uncond_logits[index]
        history, token = tuple(self.histories[index]), int(self.tokens[index])
        return Step(self.config, history, self.logits[index], uncond, self.gumbel[index], token, scores)

    def name(self, index: int) -> str:
        """Where a step stands, for a message."""
        return f"request {self.request}, step {self.first + index}"


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
            yield Steps(
                request=index,
                first=start,
                config=request.config,
                histories=[[*evidence.prefix, *generation.tokens[:step]] for step in steps],
                logits=logits[:, 0],
                uncond_logits=logits[:, 1] if logits.shape[1] == 2 else None,
                gumbel=np.stack([request.noise(step) for step in steps]) if request.noise else None,
                tokens=np.array(generation.tokens[part], dtype=np.int64),
                eos_ids=evidence.engine.info.eos_ids,
                uniforms=np.array([request.uniform(step) for step in steps]) if request.uniform else None,
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
    key = steps.request, steps.first
    if key not in evidence.known:
        bounds = evidence.reference.kept_bounds(*steps.inputs(), context=steps.context())
        evidence.known[key] = tuple(np.packbits(mask, axis=-1) for mask in bounds)
    must, may = (
        np.unpackbits(packed, axis=-1, count=steps.logits.shape[-1]).astype(np.bool_) for packed in evidence.known[key]
    )
    return must, may


def nothing_recorded(evidence: Evidence, level: Level, stage: str) -> Finding:
    """The answer where there is no step to look at."""
    if any(generation.tokens for generation in evidence.generations):
        return Finding(level, stage, "unavailable", 0, "the engine records no logits")
    return Finding(level, stage, "unavailable", 0, "no run drew a single token")
