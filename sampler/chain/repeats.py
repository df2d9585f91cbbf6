"""Stages against repeated sequences: no-repeat-n-gram and DRY."""

import math

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.requests import Batch

Ids = NDArray[np.int64]

LARGEST_EXPONENT = 88.7
"""Just under the logarithm of the largest float32: the exponent of a DRY penalty is limited by it."""

LARGEST_PENALTY = 1e30
"""No logit outweighs it, and later stages can still multiply it without overflow."""


def forbid_ngrams(scores: mx.array, batch: Batch) -> mx.array:
    """Remove tokens that would repeat an n-gram of the history; (B, V) -> (B, V).

    Source: NoRepeatNGramLogitsProcessor of transformers. The prompt counts; n = 1 removes every id of the history.
    """
    removed = np.zeros(scores.shape, dtype=np.bool_)
    for row, (config, history) in enumerate(zip(batch.configs, batch.history, strict=True)):
        if config.no_repeat_ngram_size:
            banned = _after(history, config.no_repeat_ngram_size - 1)
            removed[row, banned[banned < scores.shape[-1]]] = True
    return mx.where(mx.array(removed), -mx.inf, scores)


def _after(history: Ids, length: int) -> Ids:
    """Ids that followed earlier occurrences of the last `length` ids of the history."""
    if len(history) <= length:
        return history[:0]
    windows = np.lib.stride_tricks.sliding_window_view(history, length + 1)
    again: Ids = windows[(windows[:, :length] == history[len(history) - length :]).all(axis=1), length]
    return again


def penalize_repeats(scores: mx.array, batch: Batch) -> mx.array:
    """DRY: penalize tokens that would extend a repeat of the history's end, more the longer it is; (B, V) -> (B, V).

    Let n be the length of the longest suffix of the history that occurred before followed by the token. For
    n >= `dry_allowed_length` and without any of `dry_breakers` in it, the token loses multiplier x base^(n - allowed);
    breakers themselves are not penalised. Sources: `DRYLogitsProcessor` of text-generation-webui, pull request 5677;
    `llama_sampler_dry_apply` in `src/llama-sampling.cpp` of llama.cpp, pull request 9702, whose limit of the exponent
    is used here.
    """
    penalty = np.zeros(scores.shape, dtype=np.float32)
    for row, (config, history) in enumerate(zip(batch.configs, batch.history, strict=True)):
        for token, length in _repeats(history, config).items() if config.dry_multiplier else ():
            if token < scores.shape[-1]:
                penalty[row, token] = _dry_penalty(config, length)
    return scores - mx.array(penalty)


def _dry_penalty(config: SamplingConfig, length: int) -> float:
    exponent = min(length - config.dry_allowed_length, _largest_exponent(config))
    return min(config.dry_multiplier * config.dry_base**exponent, LARGEST_PENALTY)


def _largest_exponent(config: SamplingConfig) -> int:
    return int(LARGEST_EXPONENT / math.log(config.dry_base)) if config.dry_base > 1.000001 else 0


def _repeats(history: Ids, config: SamplingConfig) -> dict[int, int]:
    """Tokens that would extend a repeat, with its length up to the largest that counts."""
    longest: dict[int, int] = {}
    places = np.flatnonzero(~np.isin(history[1:], config.dry_breakers))  # a repeat may end where no breaker follows
    most = config.dry_allowed_length + _largest_exponent(config)
    for length in range(1, min(len(history), most + 1)):
        last = int(history[-length])
        if last in config.dry_breakers:
            break
        places = places[places >= length - 1]
        places = places[history[places - length + 1] == last]
        if not len(places):
            break
        if length >= config.dry_allowed_length:
            longest.update(dict.fromkeys(history[places + 1].tolist(), length))
    return longest
