"""The table of later generators, and chains that see the slots of their rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.chain.pipeline import Scores, run_rows
from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.requests import Batch
from sampler.stages import ALL_STAGES
from tests.wrong_engines.tables import flat
from tests.wrong_engines.wrong_generators.table import SENTENCES, Factory, WrongGenerator, with_block

Rows = NDArray[np.float32]
"""Scores of B rows, (B, V)."""

LATER_GENERATORS: dict[str, WrongGenerator] = {}


def registration(table: dict[str, WrongGenerator]) -> Callable[..., None]:
    """What puts the rows of a flat table, "name: fault" and a factory, into a table of generators."""

    def register(*items: Any) -> None:
        for name, fault, (factory,) in flat(*items):
            assert name not in table
            table[name] = WrongGenerator(name, fault, factory, questions=(), plan=SENTENCES)

    return register


later_generators = registration(LATER_GENERATORS)


def applied(batch: Batch, *stages: str) -> Rows:
    """The scores after some stages of the chain alone, in the order of the config."""
    configs = [config.without([other for other in ALL_STAGES if other not in stages]) for config in batch.configs]
    return np.array(run_rows(replace(batch, configs=configs)).final)


def then(batch: Batch, scores: Rows, *stages: str) -> Rows:
    """Some stages applied to scores in place of the logits."""
    return applied(replace(batch, logits=scores, uncond_logits=None), *stages)


def with_scores(chain: Callable[[Batch, Sequence[Slot]], Rows]) -> Factory:
    """Another chain, which sees the slots of its rows too."""

    class Changed(Block):
        def __init__(self, settings: Any, *rest: Any, **kind: Any) -> None:
            super().__init__(replace(settings, chain=self.scores), *rest, **kind)

        def _draw(self, active: Sequence[Slot]) -> None:
            self.active = active
            super()._draw(active)

        def scores(self, batch: Batch) -> Scores:
            final = mx.array(chain(batch, self.active).astype(np.float32))
            return Scores(final, final)

    return with_block(Changed)


def drawing(change: Callable[[Rows, Slot], Rows]) -> Factory:
    """The scores of each row (V,) changed after the whole chain, before its token is drawn."""

    def chain(batch: Batch, active: Sequence[Slot]) -> Rows:
        right = np.array(run_rows(batch).final)
        return np.stack([change(row, slot) for row, slot in zip(right, active, strict=True)])

    return with_scores(chain)


def alone(row: Rows, token: int) -> Rows:
    """A row (V,) with one token left."""
    kept = np.full_like(row, -np.inf)
    kept[token] = 0
    return kept
