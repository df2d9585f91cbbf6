"""How a token is drawn, what ends a run, and what is handed over."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.requests import Generation
from tests.wrong_engines.wrong_generators.noise import with_noise
from tests.wrong_engines.wrong_generators.table import answering, with_block

from .table import Rows, alone, drawing, later_generators

BOS, EOS = 2_048, 2_049


def uniform(slot: Slot) -> float:
    """A uniform number of this step from the run's own noise, that of BOS, which is never drawn."""
    return float(np.exp(-np.exp(-np.float64(slot.noise(len(slot.tokens))[BOS]))))


def second_best(row: Rows, slot: Slot) -> Rows:
    others = np.where(np.arange(len(row)) == row.argmax(), -np.inf, row)
    return others if uniform(slot) < 0.05 and others.max() > -np.inf else row


def from_half_of_the_numbers(row: Rows, slot: Slot) -> Rows:
    below = np.cumsum(np.exp(row - row.max(), dtype=np.float64))
    return alone(row, int(np.searchsorted(below, 0.5 * uniform(slot) * below[-1], side="right")))


def reviving(row: Rows, slot: Slot) -> Rows:
    weights = np.exp(row - row.max(), dtype=np.float64)
    return np.log(weights / weights.sum() + 1e-5)


def ending_by_the_likeliest(row: Rows, slot: Slot) -> Rows:
    ends = row.argmax() == EOS
    return np.where((np.arange(len(row)) == EOS) == ends, row, -np.inf)


def ending_at_a_double(row: Rows, slot: Slot) -> Rows:
    return alone(row, EOS) if len(slot.tokens) > 1 and slot.tokens[-1] == slot.tokens[-2] else row


def in_ten_bits(generation: Generation) -> Generation:
    tokens = tuple(token if token == EOS else token % 1_024 for token in generation.tokens)
    return replace(generation, tokens=tokens)


class DrawsFromThePast(Block):
    """Every step but the first draws from the logits of the step before it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.newest: dict[int, mx.array] = {}

    def _step(self, slots: Sequence[Slot | None]) -> None:
        waiting = [slot and self.newest.get(slot.index, slot.logits) for slot in slots]
        super()._step(slots)
        for slot, logits in zip(slots, waiting, strict=True):
            if slot is not None:
                self.newest[slot.index], slot.logits = slot.logits, logits


later_generators(
    "takes_the_second_best_at_times: in one step of twenty the likeliest token is left out.",
    drawing(second_best),
    "is_greedy_in_every_tenth_step: every tenth step takes the likeliest token, as a draft that is checked.",
    drawing(lambda row, slot: alone(row, int(row.argmax())) if len(slot.tokens) % 10 == 9 else row),
    "revives_removed_tokens: 1e-5 is added to every probability before its logarithm, removed tokens included [S01].",
    drawing(reviving),
    "draws_with_half_of_the_numbers: "
    "the cumulated probabilities are searched for numbers up to a half: 31 random bits are divided by 2^32 [S04].",
    drawing(from_half_of_the_numbers),
    "noise_comes_again_after_16_steps: the counter of the noise has four bits, so that step 16 has that of step 0.",
    with_noise(lambda place, request, right: lambda step: right(step % 16)),
    "ends_by_the_likeliest_token: a run ends where EOS is the likeliest token, and never where it is only drawn.",
    drawing(ending_by_the_likeliest),
    "ends_at_a_doubled_token: a guard against repetition forces EOS after two equal tokens [A02].",
    drawing(ending_at_a_double),
    "hands_over_ten_bits: of the ids that are handed over ten bits are left; the model is fed the right ones [S07].",
    answering(in_ten_bits),
    "draws_from_the_logits_before: the loop looks ahead, and each token is drawn from logits that are one old [R11].",
    with_block(DrawsFromThePast),
)
