"""Stages of the chain: temperature, filters, penalty, guidance."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import log_softmax, softmax

from sampler.chain.pipeline import run_rows
from sampler.generation.block import Block
from sampler.generation.slot import Slot
from sampler.requests import Batch
from tests.wrong_engines.wrong_generators.guidance import by_step
from tests.wrong_engines.wrong_generators.penalties import only, seeing
from tests.wrong_engines.wrong_generators.table import Factory, with_block, with_chain

from .table import Rows, applied, later_generators, then, with_scores

FILTERS = ("top_k", "min_p", "top_p")
MIN_P_FIRST = ("cfg", "alignment", "repetition_penalty", "min_p", "temperature", "top_k", "top_p")


def tempering_one_row(batch: Batch):
    tempered = np.array(batch.logits) / np.float32([[config.temperature] for config in batch.configs])
    return run_rows(replace(batch, logits=tempered, configs=[replace(each, temperature=1.0) for each in batch.configs]))


def filtering(keep: Callable[[Rows, float], Rows]) -> Factory:
    """In place of min_p a mask of what is kept; keep: from scores (B, V) and min_p. The most likely token stays."""

    def chain(batch: Batch, active: Sequence[Slot]) -> Rows:
        scores = applied(batch, "cfg", "repetition_penalty", "temperature")
        kept = keep(scores, batch.config.min_p) | (scores == scores.max(axis=-1, keepdims=True))
        return np.where(kept, scores, -np.inf)

    return with_scores(chain)


def penalising(change: Callable[[Rows, float, Batch, Sequence[Slot]], Rows]) -> Factory:
    """Another penalty; change: from guided scores (B, V) and repetition_penalty."""

    def chain(batch: Batch, active: Sequence[Slot]) -> Rows:
        penalised = change(applied(batch, "cfg"), batch.config.repetition_penalty, batch, active)
        return then(batch, penalised, "temperature", *FILTERS)

    return with_scores(chain)


def per_occurrence(scores: Rows, penalty: float, batch: Batch, active: Sequence[Slot]) -> Rows:
    counts = np.stack([np.bincount(slot.tokens, minlength=scores.shape[-1]) for slot in active])
    return np.where(scores < 0, scores * penalty**counts, scores / penalty**counts)


def penalising_before_guidance(batch: Batch, active: Sequence[Slot]) -> Rows:
    penalised = then(batch, np.array(batch.logits), "repetition_penalty")
    return applied(replace(batch, logits=penalised), "cfg", "temperature", *FILTERS)


def mixing_probabilities(batch: Batch, active: Sequence[Slot]) -> Rows:
    logits, uncond = (np.array(rows) for rows in (batch.logits, batch.uncond_logits))
    cond, other = (softmax(rows, axis=-1) for rows in (logits, uncond))
    mixed = np.log(np.maximum(cond + batch.config.cfg_weight * (cond - other), 1e-12))
    scores = mixed + np.logaddexp.reduce(logits, axis=-1, keepdims=True)  # on the scale of the logits, for the penalty
    return then(batch, scores, "repetition_penalty", "temperature", *FILTERS)


class SeesText(Block):
    """The ids of the text are seen from the first step on."""

    def _admit(self, queue: deque[int], place: int) -> Slot | None:
        slot = super()._admit(queue, place)
        if slot is not None:
            slot.seen[list(self.prompts[slot.index])] = True
        return slot


later_generators(
    "tempers_twice: the server divides by the temperature, and the sampler that it calls divides again [T03].",
    by_step(lambda config, step: replace(config, temperature=config.temperature**2)),
    "tempers_the_conditional_row_alone: "
    "conditional logits are divided by the temperature before guidance, unconditional ones never.",
    with_chain(tempering_one_row),
    "forgets_the_temperature_after_25_tokens: "
    "the temperature is that of the first chunk of 25 tokens; later ones have the default of 1.0.",
    by_step(lambda config, step: replace(config, temperature=config.temperature if step < 25 else 1.0)),
    "adds_top_p: a default of 0.9 for top_p that nobody asked for [T06].",
    by_step(lambda config, step: replace(config, top_p=0.9)),
    "adds_top_k: a preset of another model keeps the 5 likeliest tokens [T06].",
    by_step(lambda config, step: replace(config, top_k=5)),
    "min_p_compares_logits: min_p is a share of the largest logit, where it is one of the largest probability [N13].",
    filtering(lambda scores, min_p: scores >= min_p * scores.max(axis=-1, keepdims=True)),
    "min_p_before_the_temperature: what min_p removes is decided on scores that are not tempered yet [N15].",
    by_step(lambda config, step: replace(config, order=MIN_P_FIRST)),
    "penalty_always_multiplies: scores of seen tokens are multiplied by the penalty whatever their sign [P01].",
    penalising(lambda scores, penalty, batch, active: scores * np.where(batch.seen, np.float32(penalty), 1)),
    "penalty_of_every_occurrence: a token that was said three times is penalised three times [P02].",
    penalising(per_occurrence),
    "penalty_is_subtracted: the penalty is taken for a presence penalty and subtracted from seen tokens [P08].",
    penalising(lambda scores, penalty, batch, active: scores - np.float32(penalty) * batch.seen),
    "penalty_is_late_by_a_token: the newest token comes into the history after the next one was drawn [P07].",
    seeing(lambda slot, active: only(slot, [2_048, *slot.tokens[:-1]])),
    "penalty_sees_the_ids_of_the_text: ids of the text are in the history, as if they were speech tokens [P08].",
    with_block(SeesText),
    "penalty_of_log_probabilities: "
    "scores are normalised first, so that all are negative, and seen tokens are multiplied alike [P12].",
    penalising(
        lambda scores, penalty, batch, active: (
            log_softmax(scores, axis=-1) * np.where(batch.seen, np.float32(penalty), 1)
        )
    ),
    "penalises_before_guidance: the conditional logits are penalised, and guidance comes after that [P12].",
    with_scores(penalising_before_guidance),
    "guides_probabilities: conditional and unconditional probabilities are mixed, not logits [C01].",
    with_scores(mixing_probabilities),
)
