"""What an engine offers and what it answers: configs it can be asked for, generations that are what they say."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import get_args

import numpy as np

from sampler.config import STAGES, SamplingConfig, Stage, is_default
from sampler.engines.base import EngineInfo, Generation, Record, Request, StopReason
from sampler.errors import Unsupported

THE_SEVEN = frozenset({*STAGES, "min_tokens_to_keep", "cfg_convention"})
"""What an engine that names nothing supports. Further stages must be named: an engine that was written before there was
one would else be accused of ignoring it."""


def offered(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """Give the config as the engine is to be asked for it: in an order of its own, if that comes to the same.

    An engine of one fixed order is asked for the default one in its own. Raises Unsupported naming what is missing.
    """
    if "cfg" in config.active_stages() and not info.cfg:
        raise Unsupported(f"{info.name} has no guidance")
    named = frozenset() if info.orders == "any" else frozenset(stage for order in info.orders for stage in order)
    missing = sorted(_needed(config, THE_SEVEN | named if info.supports is None else info.supports))
    if missing:
        raise Unsupported(f"{info.name} does not support {', '.join(missing)}")
    if info.orders == "any" or config.order in info.orders:
        return config
    same = [order for order in info.orders if _effective(order, config) == _effective(config.order, config)]
    if not same and len(info.orders) == 1 and is_default(config.order):
        same = [order for order in info.orders if config.active_stages() <= set(order)]
    if not same:
        raise Unsupported(f"{info.name} does not offer the order {'>'.join(config.order)}")
    # A stage that the config's order leaves out must not come to life in the longer order of the engine.
    idle = config.without([stage for stage in STAGES if stage not in config.order])
    return replace(idle, order=same[0])  # type: ignore[arg-type]  # checked by SamplingConfig


def trimmed(info: EngineInfo, config: SamplingConfig) -> SamplingConfig:
    """The config without those of the seven stages that the engine lacks, as long as two or more are left.

    What an engine without guidance makes of its other stages together is then still asked.
    """
    lacking = [stage for stage in STAGES if stage in config.active_stages() and not _has(info, stage)]
    rest = config.without(lacking)
    return rest if len(rest.active_stages()) > 1 else config


def _has(info: EngineInfo, stage: Stage) -> bool:
    named = info.supports is None or bool(info.supports & {stage, f"{stage}_weight"})
    ordered = info.orders == "any" or any(stage in order for order in info.orders)
    return named and ordered and (stage != "cfg" or info.cfg)


def _needed(config: SamplingConfig, supports: frozenset[str]) -> set[str]:
    """Stages and knobs that a config uses and that are not among `supports`, which may name either."""
    active = config.active_stages()
    missing: set[str] = {stage for stage in active if not supports & {stage, f"{stage}_weight"}}
    default = {field.name: field.default for field in fields(SamplingConfig)}
    further = {
        "min_tokens_to_keep": {"top_k", "min_p", "top_p", "typical_p", "xtc_probability"},
        "cfg_convention": {"cfg"},
        "penalty_window": {"repetition_penalty", "frequency_penalty", "presence_penalty"},
    }
    for knob, stages in further.items():
        if getattr(config, knob) != default[knob] and stages & active and knob not in supports:
            missing.add(knob)
    return missing


def _effective(order: Sequence[str], config: SamplingConfig) -> list[str]:
    """The stages of an order that do something; `alignment` is the identity in `process`."""
    active: frozenset[Stage] = config.active_stages()
    return [stage for stage in order if stage in active]


def checked_generations(
    generations: Sequence[Generation], requests: Sequence[Request], info: EngineInfo
) -> list[Generation]:
    """Answers of `generate()` with tokens as plain integers. Raises ValueError naming what does not fit."""
    if len(generations) != len(requests):
        raise ValueError(f"generate() gave {len(generations)} generations for {len(requests)} requests")
    return [_checked(generation, index, info) for index, generation in enumerate(generations)]


def _checked(generation: Generation, index: int, info: EngineInfo) -> Generation:
    tokens = tuple(int(token) for token in generation.tokens)
    size = info.vocab_size
    outside = [token for token in tokens if token < 0 or (size is not None and token >= size)]
    if outside:
        raise ValueError(f"request {index} has the token {outside[0]}, expected 0 to {size - 1 if size else 'any'}")
    if generation.stop_reason not in get_args(StopReason):
        known = ", ".join(get_args(StopReason))
        raise ValueError(f"request {index} stopped for {generation.stop_reason!r}, expected one of {known}")
    record = generation.record
    if record is not None and record.logits is not None:
        record = replace(record, logits=_checked_logits(record, len(tokens), index, size))
    return replace(generation, tokens=tokens, record=record)


def _checked_logits(record: Record, count: int, index: int, size: int | None) -> np.ndarray:
    logits = np.asarray(record.logits, dtype=np.float32)
    shape = logits.shape
    if len(shape) != 3 or shape[0] != count or shape[1] not in (1, 2) or (size is not None and shape[2] != size):
        expected = f"({count}, 1 or 2, {size or 'vocabulary'})"
        raise ValueError(f"request {index} has logits of shape {shape} for {count} tokens, expected {expected}")
    return logits
