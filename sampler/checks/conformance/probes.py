"""The calls that a chain is tested with: rows that share a config, and how they are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.rows import histories, logit_rows
from sampler.config import SamplingConfig
from sampler.requests import Batch, Logits
from sampler.stages import Stage

Mask = NDArray[np.bool_]

NOT_EMPTY = ", no empty history"
"""Ends the name of a probe whose empty histories were filled."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe(Batch):
    """One call of `process`. kinds: of each row.

    kept: bool (B, V), if there is exactly one right answer and float32 computes it exactly. counts: (B,), how many
    tokens are kept, if any of several equal ones may be. prompts: how many ids of each history are prompt; None: half.
    """

    cell: str
    name: str
    kinds: tuple[str, ...]
    eos_ids: tuple[int, ...] = ()
    prompts: tuple[int, ...] | None = None
    kept: Mask | None = None
    counts: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        cell: str,
        name: str,
        config: SamplingConfig,
        logits: Logits,
        history: list[list[int]],
        kinds: Sequence[str],
        **known: Any,
    ) -> Self:
        """Rows that share a config; known: other fields of the probe."""
        return cls(logits, history, (config,) * len(logits), cell=cell, name=name, kinds=tuple(kinds), **known)

    def only(self, rows: Sequence[int]) -> Self:
        at = np.asarray(rows)
        return replace(
            super().only(rows),
            kinds=tuple(self.kinds[row] for row in rows),
            prompts=self.prompts and tuple(self.prompts[row] for row in rows),
            kept=None if self.kept is None else self.kept[at],
            counts=None if self.counts is None else self.counts[at],
        )

    def with_filled_histories(self) -> Self | None:
        """The same rows without empty histories, or None if there are none."""
        if all(self.history):
            return None
        history = [ids or [0] for ids in self.history]
        return replace(self, name=f"{self.name}{NOT_EMPTY}", history=history, context=None)

    def before(self, stage: Stage, scores: NDArray[np.float64]) -> Self:
        """The same rows with one stage alone, on the scores (B, V) before it."""
        return replace(super().before(stage, scores), kept=None, counts=None)


@dataclass(frozen=True)
class ProbeSet:
    """Probes that test one property together. stages: those that are on."""

    name: str
    stages: tuple[Stage, ...]
    probes: tuple[Probe, ...] = field(repr=False)
    optional: bool = False
    """Whether it tests stages or orders that only some engines have."""


@dataclass(frozen=True)
class Maker:
    """Makes probes of one cell, each from its own random numbers."""

    cell: str
    seed: int

    def make(self, name: str, config: SamplingConfig, size: int, kinds: Sequence[str], **known: Any) -> Probe:
        """Rows of some kinds with matching histories and unconditional logits."""
        words = [self.seed, size, *f"{self.cell}/{name}".encode()]
        rng = np.random.default_rng(words)
        logits = known.pop("logits", None)
        rows = logit_rows(rng, size, kinds) if logits is None else logits
        uncond = None
        if known.pop("guided", "cfg" in config.active_stages()):
            noise = rng.normal(0, 1.5, rows.shape).astype(np.float32)
            uncond = (np.where(rows > -np.inf, rows, 0) * np.float32(0.7) + noise).astype(np.float32)
        history = histories(rng, rows)
        eos_ids = (0, rows.shape[1] - 1)
        return Probe.of(self.cell, name, config, rows, history, kinds, uncond_logits=uncond, eos_ids=eos_ids, **known)


SHOWN = 40
"""Characters of a value in the name of a probe."""


def label(knobs: Mapping[str, Any]) -> str:
    """Parameters as the name of a probe."""
    return ", ".join(f"{name}={_short(str(value))}" for name, value in knobs.items())


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."
