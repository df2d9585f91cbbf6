"""Stages that change the scores of given ids: logit bias, suppressed tokens, minimum of new tokens."""

from collections.abc import Callable, Iterable

import mlx.core as mx
import numpy as np

from sampler.chain.history import context_of
from sampler.config import SamplingConfig
from sampler.errors import ConfigError
from sampler.requests import Batch


def add_bias(scores: mx.array, batch: Batch) -> mx.array:
    """Add each row's `logit_bias`; (B, V) -> (B, V). Removed tokens stay removed.

    Sources: SequenceBiasLogitsProcessor of transformers with sequences of one id; `logit_bias` of vLLM. Raises
    ConfigError for an id beyond the vocabulary, as both do.
    """
    check_ids(batch.configs, scores.shape[-1])
    bias = np.zeros(scores.shape, dtype=np.float32)
    for row, config in enumerate(batch.configs):
        bias[row, list(config.logit_bias)] = list(config.logit_bias.values())
    return scores + mx.array(bias)


def suppress(scores: mx.array, batch: Batch) -> mx.array:
    """Remove each row's `suppressed_tokens`; (B, V) -> (B, V).

    Source: SuppressTokensLogitsProcessor of transformers. Raises ConfigError for an id beyond the vocabulary.
    """
    check_ids(batch.configs, scores.shape[-1])
    return _remove(scores, batch, lambda row, config: config.suppressed_tokens)


def forbid_end(scores: mx.array, batch: Batch) -> mx.array:
    """Remove all EOS ids in rows with fewer than `min_new_tokens` drawn tokens; (B, V) -> (B, V).

    Source: MinNewTokensLengthLogitsProcessor of transformers. EOS ids beyond the vocabulary are ignored. Raises
    ConfigError if no EOS ids are given.
    """
    context = context_of(batch)
    if not context.eos_ids:
        longest = max(config.min_new_tokens for config in batch.configs)
        raise ConfigError(f"min_new_tokens = {longest} and no EOS id is known", hint="give eos_ids")
    ends = [token for token in context.eos_ids if token < scores.shape[-1]]
    return _remove(scores, batch, lambda row, config: ends if context.step[row] < config.min_new_tokens else ())


def check_ids(configs: Iterable[SamplingConfig], vocab_size: int) -> None:
    """Raise ConfigError for a biased or suppressed id that is not in the vocabulary."""
    for config in configs:
        for name, ids in (("logit_bias", config.logit_bias), ("suppressed_tokens", config.suppressed_tokens)):
            if ids and max(ids) >= vocab_size:
                raise ConfigError(f"{name} names the id {max(ids)}", hint=f"the vocabulary has {vocab_size} ids")


def _remove(scores: mx.array, batch: Batch, ids: Callable[[int, SamplingConfig], Iterable[int]]) -> mx.array:
    removed = np.zeros(scores.shape, dtype=np.bool_)
    for row, config in enumerate(batch.configs):
        removed[row, list(ids(row, config))] = True
    return mx.where(mx.array(removed), -mx.inf, scores)
