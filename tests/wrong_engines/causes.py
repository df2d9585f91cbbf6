"""Wrong engines whose cause has a name of its own, and right ones that such a name must not meet."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sampler.engines.base import EVERYTHING, EngineInfo
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Batch

from .chain import Array
from .engines import INFO, Miniature, OnlyDraws, behind, with_order
from .limits import Without
from .tables import DRAW, PROCESS, example, right_rows, wrong_rows

REFERENCE = ReferenceEngine()
EVERY_STAGE = replace(INFO, supports=EVERYTHING)


@dataclass(frozen=True)
class Asked:
    """The reference, asked for what `change` makes of the rows: it has every stage."""

    change: Callable[[Batch], Batch]
    info: EngineInfo = EVERY_STAGE

    def process(self, logits, history, config, uncond_logits=None, *, context=None) -> Array:
        batch = Batch(np.asarray(logits), history, (config,) * len(logits), uncond_logits, context)
        return REFERENCE.evaluate(self.change(batch))[-1].scores.astype(np.float32)


# Keywords.


class ByKeyword:
    """Takes its arguments by keyword only."""

    info = INFO

    def process(self, *, logits, history, config, uncond_logits=None) -> Array:
        return Miniature().process(logits, history, config, uncond_logits)

    def draw(self, *, logits, history, config, n, seed, uncond_logits=None) -> Array:
        return Miniature().draw(logits, history, config, n, seed, uncond_logits)


class ByOtherKeywords:
    """Likewise, and calls them otherwise."""

    info = INFO

    def process(self, *, scores, ids, config, uncond=None) -> Array:
        return Miniature().process(scores, ids, config, uncond)


class DrawsByOtherKeywords:
    """Likewise, of draw() alone."""

    info = INFO

    def draw(self, *, row, ids, config, count, seed) -> Array:
        return Miniature().draw(row, ids, config, count, seed)


wrong_rows(
    "purity",
    "takes_other_keywords: process() takes its arguments by keyword only, under other names [N18].",
    ByOtherKeywords,
    {"offers": PROCESS},
    "draws_with_other_keywords: draw() takes its arguments by keyword only, under other names [N18].",
    DrawsByOtherKeywords,
    {"offers": DRAW, "stage": "draw"},
    says="uses its arguments by keyword only",
)


# Orders of engines without guidance.


@dataclass(frozen=True)
class DrawsWithout(OnlyDraws):
    """Draws, has no guidance and says so."""

    @property
    def info(self):
        return replace(self.engine.info, cfg=False)


def tempering_last():
    return with_order(lambda order: behind(order, "temperature", ("top_k", "top_p", "min_p")))


def tempering_first():
    its_order = ("temperature", "repetition_penalty", "top_p", "top_k", "min_p", "cfg", "alignment")
    return with_order(lambda order: tuple(stage for stage in its_order if stage in order))


FILTERED = example(temperature=2.5, top_p=0.7)

wrong_rows(
    "order",
    "without_guidance_tempers_last: filters come before temperature; it has no guidance [O01].",
    lambda: Without(tempering_last()),
    FILTERED,
    {"says": "'truncate, then temper': repetition_penalty > top_k > min_p > top_p > temperature", "offers": PROCESS},
    "without_guidance_tempers_first: temperature comes before the penalty; it has no guidance [O01].",
    lambda: Without(tempering_first()),
    example(temperature=2.5, top_k=8, top_p=0.5),
    {"says": "'temperature first': temperature > repetition_penalty > top_p > top_k > min_p", "offers": PROCESS},
    "draws_without_guidance_tempering_last: draws alone, filters before temperature; it has no guidance [O01].",
    lambda: DrawsWithout(tempering_last()),
    FILTERED,
    {"says": "'truncate, then temper': repetition_penalty > top_k > min_p > top_p > temperature", "offers": DRAW},
)


# Uniform numbers that equal a probability.


def up_to_and_with(batch: Batch) -> Batch:
    """XTC that also acts where its uniform number equals the probability."""
    if batch.context is None or batch.context.uniforms is None:
        return batch
    return replace(batch, context=batch.context._replace(uniforms=np.nextafter(batch.context.uniforms, -1)))


right_rows(
    "right_by_keyword: process() and draw() take their arguments by keyword only.",
    ByKeyword,
    "right_at_an_equal_uniform: XTC acts where the uniform number is at most its probability.",
    lambda: Asked(up_to_and_with),
)
