"""Sampling knobs of a batch as columns, so that every row of a batch can have its own values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from sampler.config import SamplingConfig, Stage


@dataclass(frozen=True)
class Knobs:
    """Knob values of B rows that share one order of stages; every array is (B, 1).

    float32: temperature (1 where greedy), one_minus_top_p, log_min_p (-inf where off), repetition_penalty, cfg_weight.
    int32: top_k (the number of scores kept, the vocabulary's size where off), min_tokens_to_keep.
    bool: greedy, nucleus (top_p is on), from_unconditional (`cfg_convention`).
    largest_top_k: the largest top_k of the rows where it is on, 0 where it is off everywhere.
    most_to_keep: the largest min_tokens_to_keep.
    """

    order: tuple[Stage, ...]
    temperature: mx.array
    one_minus_top_p: mx.array
    log_min_p: mx.array
    repetition_penalty: mx.array
    cfg_weight: mx.array
    top_k: mx.array
    min_tokens_to_keep: mx.array
    greedy: mx.array
    nucleus: mx.array
    from_unconditional: mx.array
    largest_top_k: int
    most_to_keep: int
    active: frozenset[Stage]
    """Stages that at least one row uses; the others are skipped."""

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig], vocab_size: int) -> "Knobs":
        """Collect the knobs of rows whose `order` is the same."""
        kept = [_kept_by_top_k(config, vocab_size) for config in configs]
        on = [count for count in kept if count < vocab_size]
        return cls(
            order=configs[0].order,
            temperature=_column([1.0 if config.greedy else config.temperature or 1.0 for config in configs]),
            # In float64, as HuggingFace has it: 1 - 0.95 in float32 is off by 1.2e-8.
            one_minus_top_p=_column([1.0 - config.top_p for config in configs]),
            log_min_p=_column([math.log(config.min_p) if config.min_p else -math.inf for config in configs]),
            repetition_penalty=_column([config.repetition_penalty for config in configs]),
            cfg_weight=_column([config.cfg_weight for config in configs]),
            top_k=_column(kept, np.int32),
            min_tokens_to_keep=_column([min(config.min_tokens_to_keep, vocab_size) for config in configs], np.int32),
            greedy=_column([config.greedy for config in configs], np.bool_),
            nucleus=_column([config.top_p < 1 for config in configs], np.bool_),
            from_unconditional=_column([config.cfg_convention == "unconditional" for config in configs], np.bool_),
            largest_top_k=max(on, default=0),
            most_to_keep=min(max(config.min_tokens_to_keep for config in configs), vocab_size),
            active=frozenset().union(*(config.active_stages() for config in configs)),
        )


def _column(values: Sequence[float] | Sequence[int] | Sequence[bool], dtype: type[np.generic] = np.float32) -> mx.array:
    with np.errstate(over="ignore"):  # a knob beyond float32 makes scores that are refused as infinite
        return mx.array(np.array(values, dtype=dtype)[:, None])


def _kept_by_top_k(config: SamplingConfig, vocab_size: int) -> int:
    return min(max(config.top_k, config.min_tokens_to_keep), vocab_size) if config.top_k else vocab_size
