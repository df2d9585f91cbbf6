"""The table of optional stages, which are off by default. To add one: docs/processors.md."""

from collections.abc import Callable, Mapping
from typing import Final

import mlx.core as mx

from sampler.chain.bias import add_bias, forbid_end, suppress
from sampler.chain.occurrence import penalize_frequency, penalize_presence
from sampler.chain.repeats import forbid_ngrams, penalize_repeats
from sampler.chain.typical import exclude_top, keep_near_best, keep_typical
from sampler.requests import Batch
from sampler.stages import Stage

Processor = Callable[[mx.array, Batch], mx.array]
"""Scores (B, V) float32 and the batch, to scores (B, V); the identity in rows where the stage is off."""

OPTIONAL: Final[Mapping[Stage, Processor]] = {
    "logit_bias": add_bias,
    "frequency_penalty": penalize_frequency,
    "presence_penalty": penalize_presence,
    "dry_multiplier": penalize_repeats,
    "no_repeat_ngram_size": forbid_ngrams,
    "min_new_tokens": forbid_end,
    "suppressed_tokens": suppress,
    "top_n_sigma": keep_near_best,
    "typical_p": keep_typical,
    "xtc_probability": exclude_top,
}
