"""Guidance: the unconditional row, its weight, and how long it lasts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from sampler.chain.pipeline import run_rows
from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.t3.model import T3

from .positions import with_model
from .table import ANYTHING, SENTENCES, SHARPER, UNSEEN, Factory, with_block, with_chain, wrong_generators


def by_step(change: Any) -> Factory:
    """The config of every step; change: from the config that was asked for and the number of tokens so far."""

    class Changed(Block):
        def _draw(self, active: Sequence[Slot]) -> None:
            asked = [slot.request for slot in active]
            for slot in active:
                slot.request = replace(slot.request, config=change(slot.request.config, len(slot.tokens)))
            super()._draw(active)
            for slot, request in zip(active, asked, strict=True):
                slot.request = request

    return with_block(Changed)


class TextTwice(T3):
    """Two conditional rows."""

    def prefix(self, *inputs: Any, **keywords: Any) -> mx.array:
        made = super().prefix(*inputs, **keywords)
        return mx.concatenate([made[:1]] * made.shape[0])


wrong_generators(
    ANYTHING,
    "unconditional_row_keeps_the_text: "
    "the text of the unconditional row is not zeroed, so that guidance does nothing [C06].",
    with_model(TextTwice, attention="mlx"),  # its rows share less than a cache that shares may take for granted
    {"unseen": UNSEEN},
    "guides_from_the_unconditional_row: conditional and unconditional logits are exchanged [C02].",
    with_chain(lambda batch: run_rows(replace(batch, logits=batch.uncond_logits, uncond_logits=batch.logits))),
    "guides_by_the_other_convention: "
    "u + w (c - u), so that a weight of 0.5 pulls away from the text where it should push towards it [C01].",
    by_step(lambda config, step: replace(config, cfg_weight=config.cfg_weight - 1)),
    "drops_guidance_after_8_tokens: from token 8 on only the conditional row is computed, to save time [C03].",
    by_step(lambda config, step: replace(config, cfg_weight=config.cfg_weight if step < 8 else 0.0)),
    {"unseen": UNSEEN},
    "warms_up_along_the_run: the temperature grows by a hundredth of itself with every token [T03].",
    by_step(lambda config, step: replace(config, temperature=config.temperature * 1.01**step)),
    {"questions": SHARPER},
    "cools_down_along_the_run: "
    "the temperature falls by a hundredth of itself with every token, towards one token for ever [T06].",
    by_step(lambda config, step: replace(config, temperature=config.temperature * 0.99**step)),
    {"questions": SHARPER},
    "drops_min_p: min_p is accepted and ignored [N14].",
    by_step(lambda config, step: replace(config, min_p=0.0)),
    {"questions": SHARPER},
    plan=SENTENCES,
)
