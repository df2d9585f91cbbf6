"""Two stages together, in the default order and in the other one; one stage at temperature 0.

The rows of a probe have the same tokens in the same ranks, on other scales, so that the ids that a stage names or finds
in the history have known ranks: an order shows, and no order removes every token.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.probes import Probe, ProbeSet
from sampler.checks.conformance.settings import NEUTRAL, OPTIONAL, PAIRED
from sampler.config import SamplingConfig
from sampler.requests import Logits
from sampler.stages import ALL_STAGES, STAGES, Stage

SIZE = 40
SCALES: tuple[tuple[float, float], ...] = ((1.0, 0.0), (0.35, -0.2), (2.2, -5.0), (0.8, -3.5))
"""Factor and shift of each row; the third has negative scores from the fifth token on, the last one all."""

REMOVED = (8, 11, 17, 26, 33)
"""Ranks of the tokens that are removed from the second row."""

HISTORY = (3, 5, 1, 7, 2, 9, 3, 5, 0, 5, 3, 5)
"""Ranks; the first half is prompt. Its last two ids stood before ranks 1 and 0, and its last id before rank 3 too: a
repeat of one id would go on with more tokens than a repeat of two."""

TOGETHER: Mapping[Stage, Mapping[str, Any]] = {
    "frequency_penalty": {"frequency_penalty": 0.9},
    "presence_penalty": {"presence_penalty": 1.1},
    "dry_multiplier": {"dry_multiplier": 1.2, "dry_allowed_length": 1},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "min_new_tokens": {"min_new_tokens": 1_000},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "typical_p": {"typical_p": 0.6},
    "xtc_probability": {"xtc_probability": 1.0, "xtc_threshold": 0.06},
}
"""Parameters with which each of two stages acts; those that name ids follow from the row."""

STAGES_TO_PAIR = tuple(stage for stage in ALL_STAGES if stage != "alignment")


@dataclass(frozen=True)
class _Rows:
    """The rows of one probe. ids: by rank."""

    logits: Logits
    uncond: Logits
    ids: NDArray[np.int64]

    @classmethod
    def make(cls, seed: int, name: str) -> "_Rows":
        rng = np.random.default_rng([seed, *name.encode()])
        steps = np.linspace(3.2, -3.0, SIZE) + rng.uniform(-0.02, 0.02, SIZE)
        ids = rng.permutation(SIZE)
        row = np.empty(SIZE)
        row[ids] = steps
        logits = np.stack([factor * row + shift for factor, shift in SCALES]).astype(np.float32)
        logits[1, ids[list(REMOVED)]] = -np.inf
        uncond = 0.6 * np.where(logits > -np.inf, logits, 0) + rng.normal(0, 0.8, logits.shape)
        return cls(logits, uncond.astype(np.float32), ids)

    def knobs(self, stage: Stage) -> Mapping[str, Any]:
        if stage == "logit_bias":
            return {"logit_bias": {int(self.ids[0]): -2.5, int(self.ids[4]): 3.0}}
        if stage == "suppressed_tokens":
            return {"suppressed_tokens": (int(self.ids[0]), int(self.ids[2]))}
        return TOGETHER.get(stage) or (PAIRED[stage][0] if stage in PAIRED else OPTIONAL[stage][0])

    def probe(self, cell: str, config: SamplingConfig) -> Probe:
        history = [[int(self.ids[rank]) for rank in HISTORY] for _ in SCALES]
        uncond = self.uncond if "cfg" in config.active_stages() else None
        eos_ids = (int(self.ids[0]), int(self.ids[6]))
        name = f"V={SIZE}, {' > '.join(stage for stage in config.order if stage in config.active_stages())}"
        return Probe.of(
            cell, name, config, self.logits, history, ("steps",) * len(SCALES), uncond_logits=uncond, eos_ids=eos_ids
        )


def pair_cells(seed: int) -> Iterator[ProbeSet]:
    """Every two stages of which one is optional, in either order, and every other two in the order that is not default.

    All other stages stand in the order and are off.
    """
    for first, second in itertools.combinations(STAGES_TO_PAIR, 2):
        rows = _Rows.make(seed, f"{first}+{second}")
        config = replace(NEUTRAL, **rows.knobs(first), **rows.knobs(second), order=ALL_STAGES)
        if not {first, second} <= set(STAGES):
            name = f"{first}+{second}"
            yield ProbeSet(name, (first, second), (rows.probe(name, config),), optional=True)
        name = f"order:{second}+{first}"
        turned = replace(config, order=_turned(first, second))
        yield ProbeSet(name, (second, first), (rows.probe(name, turned),), optional=True)


def _turned(first: Stage, second: Stage) -> tuple[Stage, ...]:
    """The default order with the second stage just before the first."""
    rest = [stage for stage in ALL_STAGES if stage != second]
    rest.insert(rest.index(first), second)
    return tuple(rest)


def greedy_cells(seed: int) -> Iterator[ProbeSet]:
    """Each stage with temperature 0, which decides after it."""
    for stage in STAGES_TO_PAIR:
        if stage != "temperature":
            name = f"greedy:{stage}"
            rows = _Rows.make(seed, name)
            config = replace(NEUTRAL, **rows.knobs(stage), temperature=0.0, order=ALL_STAGES)
            yield ProbeSet(name, (stage, "temperature"), (rows.probe(name, config),), stage not in STAGES)
