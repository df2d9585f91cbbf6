"""Stages of the chain: guidance, temperature, filters, penalty."""

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
from scipy.special import entr, softmax

from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.requests import Batch
from tests.wrong_engines.later_generators.chains import FILTERS, penalising
from tests.wrong_engines.later_generators.table import Rows, alone, applied, drawing, then, with_scores
from tests.wrong_engines.later_generators.tokens import uniform
from tests.wrong_engines.wrong_generators.guidance import by_step
from tests.wrong_engines.wrong_generators.penalties import only, seeing
from tests.wrong_engines.wrong_generators.table import with_block

from .table import held_out_generators

BOS = 2_048

LOWEST, HIGHEST = 0.5, 1.1
"""Temperatures of a step without and with the largest entropy."""


class NeighboursRow(Block):
    """Each request is guided by the unconditional row of the active one before it."""

    def _draw(self, active: Sequence[Slot]) -> None:
        unconditional = [slot.logits[1] for slot in active]
        for place, slot in enumerate(active):
            slot.logits = mx.stack([slot.logits[0], unconditional[place - 1]])
        super()._draw(active)


def drawing_untempered(batch: Batch, active: Sequence[Slot]) -> Rows:
    kept = applied(batch, "cfg", "repetition_penalty", "temperature", *FILTERS) > -np.inf
    return np.where(kept, applied(batch, "cfg", "repetition_penalty"), -np.inf)


def tempering_by_entropy(batch: Batch, active: Sequence[Slot]) -> Rows:
    scores = applied(batch, "cfg", "repetition_penalty").astype(np.float64)
    entropy = entr(softmax(scores, axis=-1)).sum(axis=-1, keepdims=True) / np.log(scores.shape[-1])
    return then(batch, (scores / (LOWEST + (HIGHEST - LOWEST) * entropy)).astype(np.float32), *FILTERS)


def filtering_by_the_conditional_row(batch: Batch, active: Sequence[Slot]) -> Rows:
    unguided = replace(batch, uncond_logits=None)
    kept = applied(unguided, "repetition_penalty", "temperature", *FILTERS) > -np.inf
    return np.where(kept, applied(batch, "cfg", "repetition_penalty", "temperature"), -np.inf)


def without_top_choices(row: Rows, slot: Slot) -> Rows:
    """In half of the steps only the least likely of all tokens with a probability of 0.1 or more stays of these."""
    choices = np.flatnonzero(softmax(row.astype(np.float64)) >= 0.1)
    if len(choices) < 2 or uniform(slot) >= 0.5:
        return row
    left = row.copy()
    left[choices[choices != choices[row[choices].argmin()]]] = -np.inf
    return left


def fading(scores: Rows, penalty: float, batch: Batch, active: Sequence[Slot]) -> Rows:
    strength = np.zeros_like(scores)
    for row, slot in zip(strength, active, strict=True):
        for age, token in reversed([*enumerate(reversed(slot.tokens))]):
            row[token] = 0.95**age
    return np.where(scores < 0, scores * penalty**strength, scores / penalty**strength)


def penalising_probabilities(batch: Batch, active: Sequence[Slot]) -> Rows:
    tempered = applied(batch, "cfg", "temperature")
    penalty = np.log(np.float32(batch.config.repetition_penalty))
    return then(batch, tempered - penalty * batch.seen, *FILTERS)


held_out_generators(
    "guides_with_the_scale_of_others: "
    "a guidance scale of 1.5, as other libraries count it, is taken for the weight, which should be 0.5 [C01].",
    by_step(lambda config, step: replace(config, cfg_weight=1 + config.cfg_weight)),
    "guides_with_the_row_of_a_neighbour: "
    "pairs of rows are split in halves where they alternate, and requests get each other's unconditional row [P15].",
    with_block(NeighboursRow),
    "draws_untempered: "
    "the temperature is in the scores that the filters see, and the token is drawn from those before it [T02].",
    with_scores(drawing_untempered),
    "temperature_follows_the_entropy: "
    "a dynamic temperature is on by default: 0.5 where the model is sure, up to 1.1 where it is not [T06].",
    with_scores(tempering_by_entropy),
    "first_token_is_the_likeliest: the token that comes with the prefill is not drawn: the likeliest one is taken.",
    drawing(lambda row, slot: row if slot.tokens else alone(row, int(row.argmax()))),
    "min_p_reads_the_conditional_row: "
    "what min_p removes is decided by the conditional row, and guidance comes after that [P12].",
    with_scores(filtering_by_the_conditional_row),
    "adds_xtc: "
    "a preset of a chat program turns XTC on, which leaves out the likeliest tokens in half of the steps [T06].",
    drawing(without_top_choices),
    "penalty_waits_for_the_chunk: tokens come into the history when their chunk of 25 is whole, and not before [P07].",
    seeing(lambda slot, active: only(slot, [BOS, *slot.tokens[: len(slot.tokens) // 25 * 25]])),
    "penalty_is_that_of_another_version: "
    "a repetition penalty of 2.0, the default of an older version, whatever was asked for [P05].",
    by_step(lambda config, step: replace(config, repetition_penalty=2.0)),
    "penalty_fades: the penalty of a token loses a twentieth of its strength with every token since, as in RWKV [P06].",
    penalising(fading),
    "penalty_divides_probabilities: "
    "the penalty comes after the softmax and divides the probabilities of seen tokens, not their scores [P12].",
    with_scores(penalising_probabilities),
)
