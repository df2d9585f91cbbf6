"""What an engine may do otherwise when it draws: distributions of the next token that bets are placed on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.checks.scoring.memory import BINS, Array, Past, Pasts, Step
from sampler.checks.scoring.named import EOS, TEMPERATURE, Named
from sampler.config import CfgConvention, SamplingConfig
from sampler.stages import Stage, of_kind

FACTORS = (1.06, 1.125, 1.25, 1.5, 2.0)
"""By how much a temperature may be wrong, up and down."""

LIFTS = (1.0, 2.0, 4.0)
"""Nats by which EOS may be lifted or lowered."""

WINDOWS = (20, 64)
"""Tokens that penalties look back on by default: in mlx-lm, and in llama.cpp."""

ADDED: Mapping[Stage, Sequence[float]] = {"top_p": (0.95, 0.9, 0.8), "top_k": (20, 5), "min_p": (0.05, 0.1)}
"""Filters that engines have by default though nobody asked for them."""

FILTERS = of_kind("tail", "head")

ADDED_ALONE: Mapping[Stage, Sequence[float]] = {
    "top_k": (50, 40),
    "top_n_sigma": (1.0, 2.0),
    "typical_p": (0.95, 0.9, 0.5),
    "frequency_penalty": (0.1, 0.3, 1.0),
    "presence_penalty": (0.1, 0.3, 1.0),
    "no_repeat_ngram_size": (2, 3, 4),
    "dry_multiplier": (0.8,),
}
"""Further ones, on which no bet is placed."""

GUIDANCE, BIASED = "other guidance", "likely, rare, low or high ids too often"
REPEATED = "noise that other requests had"


def other_configs(config: SamplingConfig) -> Iterator[tuple[Named, SamplingConfig]]:
    """The same chain with another value of one parameter."""
    on = config.active_stages()
    if "temperature" in config.order:
        for factor in FACTORS:
            for size in (1 / factor, factor):
                other = config.temperature * size
                named = Named("temperature", f"a temperature of {other:.3g}", TEMPERATURE, size)
                yield named, replace(config, temperature=other)
    if "repetition_penalty" in config.order:
        own = config.repetition_penalty
        for value in (1.0, own**0.5, own**2, own**3) if own != 1 else (1.1, 1.3):
            named = Named("repetition_penalty", f"a penalty of {value:.3g}", "a penalty of another strength")
            yield named, replace(config, repetition_penalty=float(value))
    if "cfg" in on:
        for weight in (0.0, config.cfg_weight / 2, config.cfg_weight * 2):
            yield Named("cfg", f"a guidance weight of {weight:.3g}", GUIDANCE), replace(config, cfg_weight=weight)
        swapped: CfgConvention = "unconditional" if config.cfg_convention == "conditional" else "conditional"
        yield Named("cfg", f"guidance of the {swapped} convention", GUIDANCE), replace(config, cfg_convention=swapped)
    if "temperature" in config.order and on & {"top_k", "top_p", "min_p"}:
        last = (*(stage for stage in config.order if stage != "temperature"), "temperature")
        yield Named("order", "the temperature after the filters"), replace(config, order=last)
    yield from _filters(config, {"top_p": (0.8, 0.6), "min_p": (2, 5), "top_k": (0.25,)})
    usual = {stage: values for stage, values in ADDED.items() if stage in config.order}
    yield from _added(config, usual, "a filter nobody asked for")


def looser_configs(config: SamplingConfig) -> Iterator[tuple[Named, SamplingConfig]]:
    """The same chain with a filter that keeps more, or without one stage: among allowed tokens nothing is different."""
    yield from _filters(config, {"top_p": (1.1, 1.2), "min_p": (0.5, 0.2), "top_k": (2, 4)})
    yield from _without_one(config)


def configs_in_part(config: SamplingConfig) -> Iterator[tuple[Named, SamplingConfig]]:
    """Chains that an engine may follow for a part of each run: without one stage, or at another temperature."""
    yield from _without_one(config)
    yield from (pair for pair in other_configs(config) if pair[0].family == TEMPERATURE)


def _without_one(config: SamplingConfig) -> Iterator[tuple[Named, SamplingConfig]]:
    for stage in sorted(config.active_stages()):
        yield Named(stage, f"no {stage}"), config.without([stage])


def causes_alone(
    config: SamplingConfig, eos_ids: Sequence[int], shortest: int
) -> Iterator[tuple[Named, SamplingConfig]]:
    """What explains impossible tokens and is not bet on. shortest: the number of tokens before the earliest EOS."""
    if "cfg" in config.active_stages():
        base: CfgConvention = "unconditional" if config.cfg_convention == "conditional" else "conditional"
        exchanged = replace(config, cfg_convention=base, cfg_weight=-config.cfg_weight)
        yield Named("cfg", "conditional and unconditional logits exchanged"), exchanged
    if "repetition_penalty" in config.active_stages() and not config.penalty_window:
        for window in WINDOWS:
            named = Named("repetition_penalty", f"a penalty that looks back on {window} tokens")
            yield named, replace(config, penalty_window=window)
    for lift in (*LIFTS, 2 * LIFTS[-1]):
        for size in (-lift, lift):
            yield _lifted(size), _with(config, "logit_bias", {**config.logit_bias, **dict.fromkeys(eos_ids, size)})
    yield from _added(config, ADDED_ALONE)
    yield Named("stop", "EOS suppressed"), _with(config, "suppressed_tokens", (*config.suppressed_tokens, *eos_ids))
    if shortest > config.min_new_tokens:
        named = Named("stop", f"EOS suppressed at first, for at most {shortest} tokens")
        yield named, _with(config, "min_new_tokens", shortest)


def _added(
    config: SamplingConfig, values: Mapping[Stage, Sequence[float]], family: str = ""
) -> Iterator[tuple[Named, SamplingConfig]]:
    """With one of the stages that are off."""
    for stage in (stage for stage in values if stage not in config.active_stages()):
        for value in values[stage]:
            named = Named(stage, f"a {stage} of {value:g}, where none was asked for", family)
            yield named, _with(config, stage, value)


def _with(config: SamplingConfig, stage: Stage, value: Any) -> SamplingConfig:
    """With an optional stage, which comes behind guidance in an order that lacks it, and a filter at the end."""
    guided = config.order.index("cfg") + 1 if "cfg" in config.order else 0
    behind = len(config.order) if stage in FILTERS else guided
    order = config.order if stage in config.order else (*config.order[:behind], stage, *config.order[behind:])
    return replace(config, order=order, **{stage: value})


def _lifted(size: float) -> Named:
    return Named("stop", f"EOS {'lifted' if size > 0 else 'lowered'} by {abs(size):g} nats", EOS, size)


def _filters(
    config: SamplingConfig, factors: Mapping[Stage, Sequence[float]]
) -> Iterator[tuple[Named, SamplingConfig]]:
    for stage in (stage for stage in factors if stage in config.active_stages()):
        for factor in factors[stage]:
            own = factor * getattr(config, stage)
            changed: dict[str, Any] = {stage: max(1, int(own)) if stage == "top_k" else min(own, 1.0)}
            named = Named(stage, f"a {stage} of {changed[stage]:.3g}", f"a stricter {stage}")
            yield named, replace(config, **changed)


Tilt = Callable[[Step, Pasts], Array]
"""From T steps and what came before each of them to probabilities (T, K)."""


def _normalised(q: Array) -> Array:
    return np.asarray(q / q.sum(axis=-1, keepdims=True))


def _tilted(p: Array, by: Array) -> Array:
    return _normalised(p * np.exp(by))


def _density(edges: tuple[Array, Array], seen: Array, prior: float) -> Array:
    """The probabilities (T, K) if uniform numbers come where they came before, seen (T, BINS)."""
    density = (prior + seen) * BINS / (BINS * prior + seen.sum(axis=-1, keepdims=True))
    below = np.cumsum(density, axis=-1) / BINS
    begin, end = edges
    first, last = (np.clip((edge * BINS).astype(np.int64), 0, BINS - 1) for edge in edges)
    rows = np.arange(len(below))[:, None]
    in_first, in_last, until_first = density[rows, first], density[rows, last], below[rows, first]
    until_last = below[rows, np.maximum(last - 1, 0)]
    across = in_first * ((first + 1) / BINS - begin) + (until_last - until_first) + in_last * (end - last / BINS)
    return _normalised(np.where(first == last, in_first * (end - begin), across))


def _surplus(past: Past) -> Array:
    return np.asarray(np.clip(past.drawn - past.expected, -3, 3))


def _other_odds(step: Step, before: Pasts) -> Array:
    """Each token as much more or less likely as it was so far."""
    return _normalised(step.p * (before.cell.drawn + 2) / (before.cell.expected + 2))


def _ranked(power: int, edges: Callable[[Step], tuple[Array, Array]], *, low: bool) -> Tilt:
    """The uniform number has the density of the smallest or the largest of `power` uniform ones."""

    def tilt(step: Step, before: Pasts) -> Array:  # noqa: ARG001
        begin, end = (np.clip(edge, 0, 1) for edge in edges(step))
        return _normalised((1 - begin) ** power - (1 - end) ** power if low else end**power - begin**power)

    return tilt


def _lift(size: float) -> Tilt:
    return lambda step, before: _tilted(step.p, size * step.is_eos.astype(np.float64))


def _sometimes_best(step: Step, before: Pasts) -> Array:  # noqa: ARG001
    return np.asarray(0.9 * step.p + 0.1 * step.is_best)


def _without_best(step: Step, before: Pasts) -> Array:  # noqa: ARG001
    others = np.where(step.is_best, 0.0, step.p)
    total = others.sum(axis=-1, keepdims=True)
    return np.asarray(0.95 * step.p + 0.05 * np.divide(others, total, out=step.p.copy(), where=total > 0))


def _ends_by_the_best(step: Step, before: Pasts) -> Array:  # noqa: ARG001
    """EOS where it is the likeliest, and hardly anywhere else."""
    return _tilted(step.p, np.where(step.is_eos, np.where(step.is_best, 6.0, -6.0), 0.0))


TILTS: tuple[tuple[Named, Tilt], ...] = (
    *((_lifted(size), _lift(size)) for lift in LIFTS for size in (-lift, lift)),
    (Named("draw", "likely tokens too often", BIASED), _ranked(2, lambda step: step.rank_edges, low=True)),
    (Named("draw", "rare tokens too often", BIASED), _ranked(2, lambda step: step.rank_edges, low=False)),
    (Named("draw", "low ids too often", BIASED), _ranked(2, lambda step: step.id_edges, low=True)),
    (Named("draw", "high ids too often", BIASED), _ranked(2, lambda step: step.id_edges, low=False)),
    (Named("draw", "the likeliest token in place of one draw in ten"), _sometimes_best),
    (Named("draw", "the likeliest token left out of one draw in twenty"), _without_best),
    (Named("stop", "EOS where it is the likeliest token alone"), _ends_by_the_best),
    (Named("draw", "other odds of the tokens that came too often or too rarely before"), _other_odds),
    (Named("draw", "the noise of the steps before"), lambda step, before: _tilted(step.p, _surplus(before.run))),
    (
        Named("seed", "the noise of other requests", REPEATED),
        lambda step, before: _tilted(step.p, 2 * _surplus(before.runs)),
    ),
    (
        Named("draw", "the uniform numbers of the steps before"),
        lambda step, before: _density(step.rank_edges, before.run.by_rank, 0.5),
    ),
    (
        Named("draw", "the uniform numbers of the steps before, by id"),
        lambda step, before: _density(step.id_edges, before.run.by_id, 0.5),
    ),
    (
        Named("seed", "the uniform numbers of other requests", REPEATED),
        lambda step, before: _density(step.rank_edges, before.runs.by_rank, 1 / BINS),
    ),
    (
        Named("seed", "the uniform numbers of other requests, by id", REPEATED),
        lambda step, before: _density(step.id_edges, before.runs.by_id, 1 / BINS),
    ),
)
"""Alternatives that need no other chain: they tilt the probabilities of the tokens that may be drawn."""
