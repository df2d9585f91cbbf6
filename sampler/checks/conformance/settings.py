"""Tables of the parameters and orders that a chain is tested with: each stage alone, two together, whole chains."""

from collections.abc import Mapping
from typing import Any

from sampler.config import SamplingConfig
from sampler.engines.rules import DIALECTS
from sampler.stages import STAGES, Stage

NEUTRAL = SamplingConfig().without(STAGES)
"""Every stage is in the order and all are off."""

SINGLE: dict[Stage, tuple[Mapping[str, Any], ...]] = {
    "cfg": (
        {"cfg_weight": 0.5},
        {"cfg_weight": 3.0},
        {"cfg_weight": -0.5},
        {"cfg_weight": 1.5, "cfg_convention": "unconditional"},
        {"cfg_weight": 0.0, "cfg_convention": "unconditional"},
    ),
    "repetition_penalty": ({"repetition_penalty": 1.2}, {"repetition_penalty": 3.0}, {"repetition_penalty": 0.7}),
    "temperature": tuple({"temperature": value} for value in (0.8, 0.3, 2.5, 0.05, 0.0)),
    "top_k": (
        {"top_k": 5}, {"top_k": 1}, {"top_k": 50}, {"top_k": 10_000}, {"top_k": 2, "min_tokens_to_keep": 3},
    ),
    "min_p": ({"min_p": 0.05}, {"min_p": 0.4}, {"min_p": 1.0}, {"min_p": 0.9, "min_tokens_to_keep": 3}),
    "top_p": (
        {"top_p": 0.9}, {"top_p": 0.5}, {"top_p": 0.05}, {"top_p": 0.995}, {"top_p": 1e-9}, {"top_p": 0.0},
        {"top_p": 0.3, "min_tokens_to_keep": 3},
    ),
}  # fmt: skip
"""Parameters for each stage alone."""

OPTIONAL: dict[Stage, tuple[Mapping[str, Any], ...]] = {
    "logit_bias": ({"logit_bias": {0: 3.0, 1: -2.5}}, {"logit_bias": {1: -100.0, 16: 2.0}}),
    "frequency_penalty": (
        {"frequency_penalty": 0.4}, {"frequency_penalty": -0.6}, {"frequency_penalty": 0.4, "penalty_window": 20},
    ),
    "presence_penalty": (
        {"presence_penalty": 1.1}, {"presence_penalty": -0.6}, {"presence_penalty": 1.1, "penalty_window": 20},
    ),
    "dry_multiplier": (
        {"dry_multiplier": 0.8}, {"dry_multiplier": 0.8, "dry_allowed_length": 1},
        {"dry_multiplier": 1.5, "dry_base": 1.2, "dry_breakers": (0,)},
        {"dry_multiplier": 0.8, "dry_base": 1e20, "dry_allowed_length": 1},
    ),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3}),
    "min_new_tokens": ({"min_new_tokens": 1_000}, {"min_new_tokens": 2}),
    "suppressed_tokens": ({"suppressed_tokens": (0,)}, {"suppressed_tokens": (1, 16)}),
    "top_n_sigma": ({"top_n_sigma": 1.0}, {"top_n_sigma": 2.5}),
    "typical_p": (
        {"typical_p": 0.9}, {"typical_p": 0.5}, {"typical_p": 0.1}, {"typical_p": 0.3, "min_tokens_to_keep": 3},
        {"typical_p": 1 - 1e-9},
    ),
    "xtc_probability": (
        {"xtc_probability": 1.0}, {"xtc_probability": 1.0, "xtc_threshold": 0.02}, {"xtc_probability": 0.5},
        {"xtc_probability": 1.0, "xtc_threshold": 0.02, "min_tokens_to_keep": 12},
    ),
}  # fmt: skip
"""Likewise for optional stages, which are tested only if an engine names them."""

EXTREME: dict[Stage, tuple[Mapping[str, Any], ...]] = {
    "cfg": (
        {"cfg_weight": 10.0}, {"cfg_weight": 0.02}, {"cfg_weight": -3.0},
        {"cfg_weight": 7.5, "cfg_convention": "unconditional"},
    ),
    "repetition_penalty": tuple({"repetition_penalty": value} for value in (1.01, 5.0, 100.0, 0.2, 0.01)),
    "temperature": tuple({"temperature": value} for value in (0.02, 0.005, 5.0, 100.0, 10_000.0)),
    "top_k": ({"top_k": 150}, {"top_k": 299}, {"top_k": 2, "min_tokens_to_keep": 1_000}),
    "min_p": (
        {"min_p": 0.005}, {"min_p": 1e-4}, {"min_p": 1e-6}, {"min_p": 0.99},
        {"min_p": 0.9, "min_tokens_to_keep": 1_000},
    ),
    "top_p": (
        {"top_p": 0.999}, {"top_p": 0.9999}, {"top_p": 0.99999}, {"top_p": 0.01},
        {"top_p": 0.3, "min_tokens_to_keep": 1_000},
    ),
    "logit_bias": (
        {"logit_bias": dict.fromkeys(range(150), 100.0) | dict.fromkeys(range(75), 97.5)},
        {"logit_bias": dict.fromkeys(range(300), -100.0) | dict.fromkeys(range(0, 300, 3), -98.0)},
        {"logit_bias": dict.fromkeys(range(0, 300, 2), 1e-3)}, {"logit_bias": {7: 1e3}},
    ),
    "frequency_penalty": tuple({"frequency_penalty": value} for value in (5.0, -5.0, 0.01)),
    "presence_penalty": tuple({"presence_penalty": value} for value in (5.0, -5.0, 0.01)),
    "dry_multiplier": (
        {"dry_multiplier": 0.01, "dry_allowed_length": 1}, {"dry_multiplier": 20.0, "dry_allowed_length": 1},
        {"dry_multiplier": 1.5, "dry_base": 4.0, "dry_allowed_length": 1},
    ),
    "no_repeat_ngram_size": tuple({"no_repeat_ngram_size": size} for size in (1, 4, 5, 8, 500)),
    "min_new_tokens": ({"min_new_tokens": 1},),
    "suppressed_tokens": ({"suppressed_tokens": tuple(range(0, 300, 2))}, {"suppressed_tokens": (299,)}),
    "top_n_sigma": ({"top_n_sigma": 0.05}, {"top_n_sigma": 0.3}, {"top_n_sigma": 4.0}),
    "typical_p": (
        {"typical_p": 0.999}, {"typical_p": 0.99}, {"typical_p": 0.01}, {"typical_p": 0.3, "min_tokens_to_keep": 1_000},
    ),
    "xtc_probability": (
        {"xtc_probability": 1.0, "xtc_threshold": 0.5}, {"xtc_probability": 1.0, "xtc_threshold": 0.001},
        {"xtc_probability": 0.1, "xtc_threshold": 0.02}, {"xtc_probability": 0.9, "xtc_threshold": 0.02},
    ),
}  # fmt: skip
"""Parameters near the ends of their ranges, for each stage alone with 300 tokens."""

LOOPING: tuple[Mapping[str, Any], ...] = (
    {"dry_multiplier": 0.8, "dry_base": 1.0, "dry_allowed_length": 1},
    {"dry_multiplier": 0.8, "dry_base": 1.01, "dry_allowed_length": 1},
)
"""DRY parameters whose penalty stays measurable after a long loop."""

SCALED = (2e-4, 1_000.0)
"""Temperatures that are tested with logits in proportion, whose quotient float32 has exactly enough."""

WINDOWED: tuple[Mapping[str, Any], ...] = tuple(
    {"repetition_penalty": 1.5, "penalty_window": size} for size in (20, 1, 500)
)

PAIRED: dict[Stage, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "cfg": ({"cfg_weight": 0.8}, {"cfg_weight": 2.0}),
    "repetition_penalty": ({"repetition_penalty": 1.6}, {"repetition_penalty": 0.8}),
    "temperature": ({"temperature": 2.5}, {"temperature": 0.4}),
    "top_k": ({"top_k": 8}, {"top_k": 4}),
    "min_p": ({"min_p": 0.1}, {"min_p": 0.3}),
    "top_p": ({"top_p": 0.7}, {"top_p": 0.9}),
}
"""Parameters for two stages together, in two editions."""

ALL_ON: Mapping[str, Any] = {
    "cfg_weight": 0.5, "repetition_penalty": 1.3, "temperature": 1.4, "top_k": 40, "min_p": 0.02, "top_p": 0.9,
}  # fmt: skip

CHAINS: dict[str, Mapping[str, Any]] = {
    "chatterbox": {},
    "multilingual": {"repetition_penalty": 2.0, "top_p": 0.95},
    "turbo": {"cfg_weight": 0.0, "top_k": 1_000, "top_p": 0.95, "min_p": 0.0},
    "llama": {"cfg_weight": 0.0, "repetition_penalty": 1.1, "top_k": 40, "top_p": 0.95},
    "hot": {"temperature": 1.5, "top_p": 0.8, "min_p": 0.02},
    "cold": {"temperature": 0.3, "top_k": 20, "top_p": 0.9},
    "everything": ALL_ON,
    "greedy": {**ALL_ON, "temperature": 0.0},
}
"""Whole chains in the default order, named after the origin of their parameters."""

ORDERS: dict[str, tuple[Stage, ...]] = {
    **{name: dialect.order for name, dialect in DIALECTS.items() if name != "mlx-audio"},  # which has mlx-lm's
    "without filters": ("cfg", "repetition_penalty", "temperature"),
    "without top_p": ("cfg", "repetition_penalty", "temperature", "top_k", "min_p"),
    "without temperature": ("cfg", "repetition_penalty", "top_k", "min_p", "top_p"),
    "empty": (),
}
"""Orders by name."""
