"""What the rules that an engine declares change in the judgement of a probe."""

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.probes import Mask, Probe
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.rules import DIALECTS, RULES, Rules, rules_of, sentences, written

EITHER_COUNT = 1e-9
"""Relative tolerance of a count that allows one token more or less: a mass of exactly top_p may count either way."""


def acting(rules: Rules, config: SamplingConfig) -> list[str]:
    """The rules that change what a config does, apart from its order."""
    at_work = config.active_stages() | ({"temperature"} if config.greedy else set())
    return [name for name in rules if name != "temperature_last" and at_work & set(RULES[name].stages)]


def ruled_counts(rules: Rules, probe: Probe, kept: Mask, rounding: float) -> tuple[NDArray[np.int64] | None, float]:
    """How many tokens of each row are kept under the rules, (B,), and the relative tolerance of that.

    kept: by the reference, as defined. None where equal scores leave it open.
    """
    config = probe.config
    if {"filters_spare_eos", "min_p_relative_to"} & set(acting(rules, config)):
        return None, rounding
    if config.active_stages() == {"top_k"} and rules.get("top_k_ties") == "exact":
        return kept.sum(axis=-1), 0.0
    if probe.counts is None:
        return None, rounding
    return kept.sum(axis=-1), max(rounding, EITHER_COUNT if rules.get("top_p_crossing") == "dropped" else 0.0)


def declared(info: EngineInfo) -> str | None:
    """The dialect that an engine declares, with what its rules mean, for `--json`; None for HuggingFace's.

    The rules of a named dialect are those of its name.
    """
    if not info.rules:
        return info.dialect
    return f"{info.dialect or 'HuggingFace'} with {written(info.rules)}: {'. '.join(sentences(info.rules))}"


def meanings(info: EngineInfo) -> list[str]:
    """What the declared dialect and rules mean beside HuggingFace's processors, one sentence each."""
    found = []
    if info.dialect is not None:
        dialect = DIALECTS.get(info.dialect)
        order = f"{' > '.join(dialect.order)} ({dialect.source})" if dialect else ""
        unknown = f"is unknown, so it is judged by HuggingFace's rules; known: {', '.join(DIALECTS)}"
        found.append(f"judged as the dialect {info.dialect!r}, which it declares" + (f": {order}" if order else ""))
        if dialect is None:
            found[-1] = f"the dialect {info.dialect!r}, which it declares, {unknown}"
    return [*found, *(f"declared: {text}" for text in sentences(rules_of(info.dialect, info.rules)))]
