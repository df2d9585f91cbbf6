"""How much a failure matters: the largest total variation on ordinary inputs."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Maker, Mask, Probe, ProbeSet
from sampler.checks.conformance.settings import NEUTRAL
from sampler.config import SamplingConfig
from sampler.errors import Unsupported
from sampler.requests import Logits
from sampler.stages import NEUTRAL as OFF

COMMON: Mapping[str, tuple[float, float]] = {
    "cfg_weight": (0.0, 3.0),
    "repetition_penalty": (1.0, 2.0),
    "frequency_penalty": (0.0, 2.0),
    "presence_penalty": (0.0, 2.0),
    "dry_multiplier": (0.0, 2.0),
    "temperature": (0.5, 1.5),
    "top_k": (10, 1_000),
    "min_p": (0.0, 0.2),
    "top_p": (0.8, 1.0),
    "typical_p": (0.5, 1.0),
    "top_n_sigma": (1.0, 3.0),
    "min_tokens_to_keep": (1, 1),
}
"""Values of parameters that are common; that at which a stage is off is common too, and so is temperature 0."""

VALUES: Mapping[str, Mapping[str, Any]] = {
    "cfg": {"cfg_weight": 0.5},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "temperature": {"temperature": 0.8},
    "top_k": {"top_k": 40},
    "min_p": {"min_p": 0.05},
    "top_p": {"top_p": 0.9},
    "logit_bias": {"logit_bias": {0: 2.0, 1: -2.0}},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "presence_penalty": {"presence_penalty": 0.5},
    "dry_multiplier": {"dry_multiplier": 0.8},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "min_new_tokens": {"min_new_tokens": 50},
    "suppressed_tokens": {"suppressed_tokens": (0, 1)},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "typical_p": {"typical_p": 0.9},
    "xtc_probability": {"xtc_probability": 0.5},
}
"""The common value with which a stage is asked for its severity."""

KINDS = ("ordinary", "peaked")
"""Kinds of rows of the other probes that are ordinary; both are Gaussian and without ties."""

SIZE = 1_000
EACH = 4
"""Rows of each of the two shapes."""


def ordinary_rows(rng: np.random.Generator, size: int) -> Logits:
    """Logits of a model's kind, float32 (2 EACH, size): Zipf-Mandelbrot of exponent 1 to 2.5, and peaked Gaussian.

    A Gaussian row has deviation 2.5 and a head of five tokens that stands 2 to 6 above it. No two logits are equal.
    """
    rank = np.log(np.arange(size) + 2.7)
    zipf = [-(1.0 + 0.5 * row) * rng.permutation(rank) + rng.normal(0, 0.05, size) for row in range(EACH)]
    peaked = []
    for row in range(EACH):
        logits = rng.normal(0, 2.5, size)
        logits[rng.permutation(size)[:5]] += 2 + row * np.linspace(0, 4 / EACH, 5)
        peaked.append(logits)
    return np.stack([*zipf, *peaked]).astype(np.float32)


def severity_probe(cell: ProbeSet, config: SamplingConfig) -> Probe:
    """Ordinary rows for the stages of a cell with common values, in the order of the config that failed."""
    knobs = {name: value for stage in cell.stages for name, value in VALUES.get(stage, {}).items()}
    if config.greedy:
        knobs["temperature"] = 0.0
    knobs |= {"penalty_window": config.penalty_window, "cfg_convention": config.cfg_convention}
    order = tuple(stage for stage in config.order if stage in NEUTRAL.order or stage in cell.stages)
    asked = replace(NEUTRAL, **knobs, order=order)
    logits = ordinary_rows(np.random.default_rng([*f"{cell.name}".encode()]), SIZE)
    return Maker(cell.name, 0).make("ordinary rows", asked, SIZE, ("ordinary",) * len(logits), logits=logits)


def measured(judge: Judge, cell: ProbeSet, failing: Iterable[Comparison]) -> float | None:
    """The largest total variation of a failed cell on ordinary rows, None where it gives no scores for them."""
    compared = [one for one in failing if not one.failure]
    if not compared:
        return None
    common = [one for one in compared if is_common(one.probe.config)]
    try:
        shown = max(common or compared, key=lambda one: one.distance).probe.config
        config = judge.asked(severity_probe(cell, shown).config)
        asked = judge.compare(severity_probe(cell, shown).with_config(config))
    except Unsupported:
        return _largest(common)
    return _largest([*common, asked])


def _largest(comparisons: Iterable[Comparison]) -> float | None:
    values = [one.total[_ordinary(one.probe) & one.wrong] for one in comparisons if not one.failure]
    return float(np.concatenate(values).max(initial=0.0)) if values else None


def _ordinary(probe: Probe) -> Mask:
    return np.array([kind in KINDS for kind in probe.kinds], dtype=np.bool_)


def is_common(config: SamplingConfig) -> bool:
    """Whether every parameter of a config has a common value."""
    for name, (low, high) in COMMON.items():
        value = getattr(config, name)
        off = any(value == neutral[name] for neutral in OFF.values() if name in neutral)
        if not (low <= value <= high or off or (name == "temperature" and value == 0)):
            return False
    return True


def in_words(severity: float | None) -> str:
    """The severity as the end of a message."""
    if severity is None:
        return ""
    if severity == 0:
        return "no difference on ordinary rows"
    return f"differs by up to {severity:.2g} in total variation on ordinary rows"
