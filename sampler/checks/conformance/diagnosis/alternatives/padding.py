"""Columns that pad a vocabulary to a multiple of a block and take part in what a stage computes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.special import log_softmax

from sampler.checks.conformance.diagnosis.alternatives.base import Alternative, Array, Change, at_least, ranks, without
from sampler.requests import Batch

PADDING = "padding columns compete"
"""How each of these explanations begins."""

MULTIPLES = (64, 128, 32, 16, 8, 256)


def padded(stage: str, right: Change, *, up_to_ties: bool = False) -> Iterator[Alternative]:
    """A stage that looks at a row with columns of logit 0 behind it. right: the stage itself."""
    for multiple in MULTIPLES:
        text = f"{PADDING}: the vocabulary is padded to a multiple of {multiple} with logits of 0, which take part"
        yield Alternative(stage, text, _with_columns(right, multiple), up_to_ties)


def _with_columns(right: Change, multiple: int) -> Change:
    def scores(batch: Batch) -> Array:
        size = batch.logits.shape[1]
        wide = np.pad(batch.logits, [(0, 0), (0, -size % multiple)])
        return right(replace(batch, logits=wide))[:, :size]

    return scores


def typical(batch: Batch) -> Array:
    """Keep the tokens whose surprise is nearest to the entropy, until they have the mass."""
    logs = log_softmax(batch.logits, axis=-1)
    p = np.exp(logs)
    distance = np.abs(-logs + (p * np.where(p > 0, logs, 0)).sum(axis=-1, keepdims=True))
    place = ranks(-np.where(np.isnan(distance), np.inf, distance))
    nearest = np.argsort(place, axis=-1)
    before = np.cumsum(np.take_along_axis(p, nearest, axis=-1), axis=-1) - np.take_along_axis(p, nearest, axis=-1)
    kept = np.take_along_axis(before, place, axis=-1) < batch.config.typical_p
    return without(batch.logits, ~(kept | (place < at_least(batch))))


def sigma(batch: Batch) -> Array:
    """Keep scores that are at most some standard deviations below the largest."""
    left = np.where(batch.logits > -np.inf, batch.logits, np.nan)
    threshold = np.nanmax(left, axis=-1, keepdims=True) - batch.config.top_n_sigma * np.nanstd(
        left, axis=-1, keepdims=True
    )
    return without(batch.logits, batch.logits < threshold)
