"""Further faults of the stages: limits, filters, what the penalty sees, and guidance that is old or partial."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from scipy.special import softmax

from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.requests import Batch
from tests.wrong_engines.wrong_generators.guidance import by_step
from tests.wrong_engines.wrong_generators.penalties import only, seeing
from tests.wrong_engines.wrong_generators.table import with_block

from .chains import FILTERS, filtering
from .table import Rows, applied, drawing, later_generators, with_scores

BOS, EOS = 2_048, 2_049
PENALTY_LAST = ("cfg", "alignment", "temperature", *FILTERS, "repetition_penalty")


def filling_up_with_the_last(batch: Batch, active: Sequence[Slot]) -> Rows:
    """The probability that min_p removed goes to the least likely token that is left."""
    tempered = applied(batch, "cfg", "repetition_penalty", "temperature").astype(np.float64)
    kept = applied(batch, "cfg", "repetition_penalty", "temperature", "min_p") > -np.inf
    probabilities = softmax(tempered, axis=-1)
    last = np.where(kept, probabilities, np.inf).argmin(axis=-1)
    removed = np.where(kept, 0, probabilities).sum(axis=-1)
    probabilities[np.arange(len(last)), last] += removed
    return np.log(probabilities, where=kept, out=np.full_like(probabilities, -np.inf))


def below_the_whole_mass(row: Rows, slot: Slot) -> Rows:
    """All but the token with which the cumulated probabilities reach 1; the most likely one stays."""
    falling = np.argsort(-row, kind="stable")
    last = falling[np.isfinite(row[falling])][1:][-1:]
    left = row.copy()
    left[last] = -np.inf
    return left


def guiding_the_filters_alone(batch: Batch, active: Sequence[Slot]) -> Rows:
    stages = ("repetition_penalty", "temperature", *FILTERS)
    unguided = applied(batch, "repetition_penalty", "temperature")
    return np.where(applied(batch, "cfg", *stages) > -np.inf, unguided, -np.inf)


class SeesThePrompt(Block):
    """The speech prompt of the voice is seen from the first step on."""

    def _admit(self, queue: deque[int], place: int) -> Slot | None:
        slot = super()._admit(queue, place)
        if slot is not None:
            slot.seen[self.settings.checkpoint.voice.prompt] = True
        return slot


class KeepsTheFirst(Block):
    """The unconditional logits of every step are those of the first one."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.first: dict[int, mx.array] = {}

    def _draw(self, active: Sequence[Slot]) -> None:
        for slot in active:
            slot.logits = mx.stack([slot.logits[0], self.first.setdefault(slot.index, slot.logits[1])])
        super()._draw(active)


later_generators(
    "limits_the_temperature: the server takes temperatures up to 0.7, and makes that of a larger one without a word.",
    by_step(lambda config, step: replace(config, temperature=min(0.7, config.temperature))),
    "min_p_is_a_probability: "
    "tokens with a probability below min_p are removed, not those below min_p times the largest.",
    filtering(lambda scores, min_p: softmax(scores, axis=-1) >= min_p),
    "penalises_after_the_filters: "
    "the penalty comes last, as in Turbo, and what min_p removes is decided without it [P12].",
    by_step(lambda config, step: replace(config, order=PENALTY_LAST)),
    "does_not_renormalise_after_min_p: "
    "probabilities that are left are cumulated as they are, and numbers beyond their sum take the last, rarest one.",
    with_scores(filling_up_with_the_last),
    "top_p_of_1_drops_a_token: "
    "a top_p of 1.0 is not skipped, and the rarest token left, with which the sum reaches 1.0, is dropped [N01].",
    drawing(below_the_whole_mass),
    "penalises_twice: the model's wrapper applies the penalty, and the sampler that it calls does so again [P04].",
    by_step(lambda config, step: replace(config, repetition_penalty=config.repetition_penalty**2)),
    "penalty_sees_the_first_20_tokens: "
    "a window of 20 tokens is cut from the wrong end of the history, so that later tokens never come into it [P06].",
    seeing(lambda slot, active: only(slot, [BOS, *slot.tokens[:20]])),
    "penalty_sees_eos: "
    "the buffer of the history is filled up with EOS, which is penalised from the first step on, as if it were said.",
    seeing(lambda slot, active: only(slot, [BOS, EOS, *slot.tokens])),
    "penalty_sees_the_prompt_of_the_voice: "
    "the tokens of the voice's speech prompt are in the history, as a server counts ids of its prompt [P08].",
    with_block(SeesThePrompt),
    "guides_with_the_first_unconditional_logits: "
    "the unconditional logits are computed with the prefill and kept for all steps, whatever was said since.",
    with_block(KeepsTheFirst),
    "guides_the_filters_alone: "
    "guided scores decide which tokens are left, and the token is drawn by the conditional logits, as Dia does [C01].",
    with_scores(guiding_the_filters_alone),
)
