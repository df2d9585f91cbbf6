"""The plan of level `draw`: cells, number of draws, and what each statistical check must detect; fixed in advance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.draw.cells import CHUNK, DRAWS, DrawCell
from sampler.checks.conformance.draw.further import further_cells
from sampler.checks.conformance.draw.sets import sets_of
from sampler.checks.conformance.draw.wide import VOCABULARY, wide_cells
from sampler.checks.conformance.probes import Maker, Probe
from sampler.checks.conformance.settings import ALL_ON, NEUTRAL, PAIRED
from sampler.config import SamplingConfig
from sampler.stages import STAGES, Stage
from sampler.statistics.binomial import Binomial
from sampler.statistics.budget import Budget
from sampler.statistics.multinomial import Multinomial
from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.sets import SetFrequencies

SINGLE_DRAWS = 2_000
"""Calls of one draw each, which is how a decoder draws."""

SIZE = 17
IDLE_SIZE = 37
"""No multiple of a block size that a kernel might use."""

REMOVED = (4, 9, 14)
"""Ranks of the tokens that are removed before the first draw."""

FILLER = REMOVED * 8
RANKS = (
    5, 0, 0, 3, 3, 3, 1, 1, 1, *FILLER, 6, *FILLER[:16], 12, *FILLER[:13], 15, *FILLER[:7], 8, *FILLER[:5], 10,
    *FILLER[:10], 7,
)  # fmt: skip
"""The history, by rank: a first id, repeated ones, then one at place 57, 40, 26, 18 and 12 from the end, so that
windows of 64, 50, 32, 20 and 16 differ; a last id. Between them are removed tokens, which no penalty can change."""

LAGS = (1, 2, 64, CHUNK // 2)
"""How far apart draws are tested for dependence, within one call."""

ALONE: dict[Stage, Mapping[str, Any]] = {
    "cfg": {"cfg_weight": 0.8},
    "repetition_penalty": {"repetition_penalty": 3.0},
    "temperature": {"temperature": 0.5},
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.2},
    "top_p": {"top_p": 0.7},
}

TOGETHER: tuple[tuple[Stage, Stage], ...] = (
    ("cfg", "repetition_penalty"),
    ("cfg", "top_p"),
    ("repetition_penalty", "top_p"),
    ("temperature", "min_p"),
    ("temperature", "top_p"),
    ("top_k", "top_p"),
    ("min_p", "top_p"),
)
"""Pairs of stages whose order affects the frequencies of draws."""

WHOLE: dict[str, Mapping[str, Any]] = {
    "chatterbox": {},
    "everything": {**ALL_ON, "temperature": 2.0},
}


@dataclass(frozen=True)
class StatisticalCheck:
    """One hypothesis test. n: observations; detect: the difference it must detect; weight: its share of the budget."""

    name: str
    n: int
    detect: float
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class DrawPlan:
    """All cells of level `draw` with their checks, and the alpha of each check. size: the large vocabulary."""

    seed: int
    rate: float = 1e-6
    size: int = VOCABULARY

    @cached_property
    def cells(self) -> tuple[DrawCell, ...]:
        alone = (self._cell(stage, (stage,), knobs) for stage, knobs in ALONE.items())
        pairs = (
            self._cell(f"{first}+{second}", (first, second), {**PAIRED[first][0], **PAIRED[second][0]})
            for first, second in TOGETHER
        )
        whole = (self._whole(name) for name in WHOLE)
        wide = wide_cells(self.seed, self.size)
        ordinary = (self._cell("nothing", (), {}), *alone, *pairs, *whole, self._vocabulary())
        return (*ordinary, *wide, *further_cells(self.seed))

    @cached_property
    def checks(self) -> tuple[StatisticalCheck, ...]:
        """Every statistical check; exact ones use none of the budget."""
        frequencies = [StatisticalCheck(f"{cell.name}/frequencies", cell.draws, cell.detect) for cell in self.cells]
        pairs = [StatisticalCheck(f"nothing/pairs-{lag}", DRAWS // 2, 0.03) for lag in LAGS]
        return (
            *frequencies,
            *pairs,
            StatisticalCheck("nothing/pairs-shifted", DRAWS // 2 - DRAWS // CHUNK, 0.03),
            StatisticalCheck("nothing/seeds", DRAWS // 2, 0.03),
            StatisticalCheck("chain:everything/single-draws", SINGLE_DRAWS, 0.15),
            StatisticalCheck("chain:everything/single-pairs", SINGLE_DRAWS // 2, 0.15),
            StatisticalCheck("vocabulary/ranks", DRAWS, 0.05),
        )

    @cached_property
    def alphas(self) -> dict[str, float]:
        """Alpha of each check by name; they sum to the rate, whatever the engine supports."""
        return Budget(self.rate).split({check.name: check.weight for check in self.checks})

    def check(self, name: str) -> StatisticalCheck:
        return next(check for check in self.checks if check.name == name)

    def cell(self, check: str) -> DrawCell:
        return next(cell for cell in self.cells if cell.name == check.split("/", maxsplit=1)[0])

    def vocabulary(self, check: str) -> int:
        return int(self.cell(check).probe.logits.shape[1])

    def detectable(self, name: str, probabilities: NDArray[np.float64]) -> float:
        """The difference that a check detects with its n, with a miss rate of 1 %; probabilities: of its cell, (V,)."""
        check, alpha = self.check(name), self.alphas[name]
        if name.endswith("/ranks"):
            return DistributionFunction(alpha).detectable(check.n)
        if name.endswith("/frequencies") and self.cell(name).by_sets:
            sets = sets_of(probabilities, self.cell(name).places)
            return SetFrequencies(sets.probabilities, alpha).detectable(check.n)
        if name.endswith(("/frequencies", "/single-draws")):
            return Multinomial(probabilities, alpha).detectable(check.n)
        return Binomial(float(np.square(probabilities).sum()), alpha).detectable(check.n)

    def _cell(self, name: str, stages: Sequence[Stage], knobs: Mapping[str, Any]) -> DrawCell:
        return DrawCell(
            name, tuple(stages), self._probe(name, replace(NEUTRAL, **knobs), SIZE if stages else IDLE_SIZE)
        )

    def _whole(self, name: str) -> DrawCell:
        config = replace(SamplingConfig(), **WHOLE[name])
        stages = tuple(stage for stage in STAGES if stage in config.active_stages())
        return DrawCell(f"chain:{name}", stages, self._probe(name, config, SIZE))

    def _vocabulary(self) -> DrawCell:
        """A vocabulary of a model's size with mostly rare tokens; judged by rank, since no token is drawn often."""
        maker = Maker("vocabulary", self.seed)
        return DrawCell("vocabulary", (), maker.make("V=8194", NEUTRAL, 8_194, ("ordinary",)), 0.25)

    def _probe(self, name: str, config: SamplingConfig, size: int) -> Probe:
        """Logits in even steps in random order, so that none is near a threshold; three tokens are already removed."""
        rng = np.random.default_rng([self.seed, *name.encode()])
        row = np.linspace(2.2, -1.4, size) + rng.uniform(-0.02, 0.02, size)
        if config.repetition_penalty != 1:
            row -= 1.8  # most likely tokens become negative, which exposes a wrong sign
        order = rng.permutation(size)
        logits = row[order]
        logits[np.isin(order, REMOVED)] = -np.inf
        places = np.argsort(order)
        history = [int(places[rank]) for rank in RANKS]
        uncond = (row[::-1][order] * 0.4 + rng.uniform(-0.1, 0.1, size)).astype(np.float32)
        rows = logits.astype(np.float32)[None]
        given = uncond[None] if "cfg" in config.active_stages() else None
        return Probe.of(name, f"V={size}", config, rows, [history], ("steps",), uncond_logits=given)
