"""Sampling parameters of a batch as columns, so that each row of a batch can have its own values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.stages import Stage


@dataclass(frozen=True)
class Knobs:
    """Sampling parameters of B rows that share one order of stages; every array is (B, 1).

    float32: temperature (1 where greedy), log_min_p (-inf where off), repetition_penalty, cfg_weight.
    float64: one_minus_top_p (negative where top_p is off).
    int64: top_k (the number of scores kept, the vocabulary's size where off), min_tokens_to_keep.
    bool: greedy, from_unconditional (`cfg_convention`).
    """

    order: tuple[Stage, ...]
    temperature: NDArray[np.float32]
    one_minus_top_p: NDArray[np.float64]
    log_min_p: NDArray[np.float32]
    repetition_penalty: NDArray[np.float32]
    cfg_weight: NDArray[np.float32]
    top_k: NDArray[np.int64]
    min_tokens_to_keep: NDArray[np.int64]
    greedy: NDArray[np.bool_]
    from_unconditional: NDArray[np.bool_]
    active: frozenset[Stage]
    """Stages that at least one row uses; the others are skipped."""

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig], vocab_size: int) -> "Knobs":
        """Collect the parameters of rows with the same `order`."""
        return cls(
            order=configs[0].order,
            temperature=_column([1.0 if config.greedy else config.temperature or 1.0 for config in configs]),
            one_minus_top_p=_column([_beyond_nucleus(config) for config in configs], np.float64),
            log_min_p=_column([math.log(config.min_p) if config.min_p else -math.inf for config in configs]),
            repetition_penalty=_column([config.repetition_penalty for config in configs]),
            cfg_weight=_column([config.cfg_weight for config in configs]),
            top_k=_column([_kept_by_top_k(config, vocab_size) for config in configs], np.int64),
            min_tokens_to_keep=_column([min(config.min_tokens_to_keep, vocab_size) for config in configs], np.int64),
            greedy=_column([config.greedy for config in configs], np.bool_),
            from_unconditional=_column([config.cfg_convention == "unconditional" for config in configs], np.bool_),
            active=frozenset().union(*(config.active_stages() for config in configs)),
        )


def _column(values: Sequence[float] | Sequence[int] | Sequence[bool], dtype: type[np.generic] = np.float32) -> Any:
    with np.errstate(over="ignore"):  # a value beyond float32 gives infinite scores, which are refused later
        return np.array(values, dtype=dtype)[:, None]


def _beyond_nucleus(config: SamplingConfig) -> float:
    """The share of the mass that may be removed; in float64, because 1 - 0.95 in float32 is off by 1.2e-8."""
    return 1.0 - config.top_p if config.top_p < 1 else -1.0


def _kept_by_top_k(config: SamplingConfig, vocab_size: int) -> int:
    return min(max(config.top_k, config.min_tokens_to_keep), vocab_size) if config.top_k else vocab_size
