"""Known mistakes where no stage is on: precision, and stages that act with a default value although they are off."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import softmax

from sampler.checks.conformance.diagnosis.alternatives.base import Alternative, Array, Change, seen
from sampler.checks.conformance.diagnosis.alternatives.filters import exactly_k, min_p, nucleus, top_k
from sampler.checks.conformance.diagnosis.alternatives.scaling import guided, penalized
from sampler.checks.conformance.rows import bfloat16
from sampler.requests import Batch


def _leaky(epsilon: float) -> Alternative:
    return Alternative(
        "draw",
        f"removed tokens come back: log(p + {epsilon:g})",
        lambda i: np.asarray(np.log(softmax(i.logits, axis=-1) + epsilon)),
    )


def _rounded(scores: Array, dtype: type[np.floating[Any]]) -> Array:
    with np.errstate(over="ignore"):
        return scores.astype(dtype).astype(np.float64)


DEFAULTS: dict[str, tuple[str, tuple[float, ...], Callable[[Batch, float], Array]]] = {
    "top_k": (
        "0",
        (1, 5, 10, 20, 40, 50, 64, 100, 1_000),
        lambda i, k: exactly_k(i) if k == 1 else top_k(i.logits, int(k)),
    ),
    "top_p": ("1", (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99), lambda i, mass: nucleus(i.logits, mass)),
    "min_p": ("0", (0.01, 0.02, 0.05, 0.1, 0.2, 1.0), lambda i, share: min_p(i.logits, share)),
    "temperature": ("1", (0.5, 0.6, 0.7, 0.8, 0.9, 1.2), lambda i, value: np.asarray(i.logits / value)),
    "repetition_penalty": ("1", (1.05, 1.1, 1.2, 1.3, 1.5, 2.0), lambda i, _value: penalized(i, seen(i))),
    "cfg_weight": ("0", (0.5, 1.0, 1.5, 3.0), lambda i, _value: guided("c", lambda w: w)(i)),
}
"""By parameter: the value that is off, the values that may act in its place, and their effect."""


def _with_default(knob: str, value: float) -> Change:
    """A stage that should be off and acts with a default value."""
    act = DEFAULTS[knob][2]

    def scores(inputs: Batch) -> Array:
        if knob.removesuffix("_weight") not in inputs.config.order:
            return inputs.logits
        knobs: dict[str, Any] = {knob: value}
        return act(inputs.with_config(replace(inputs.config, **knobs)), value)

    return scores


IDLE = (
    Alternative("precision", "logits are rounded to float16", lambda i: _rounded(i.logits, np.float16)),
    Alternative("precision", "logits are rounded to bfloat16", lambda i: bfloat16(i.logits)),
    *(_leaky(epsilon) for epsilon in (1e-10, 1e-8, 1e-5)),
    *(
        Alternative(
            knob.removesuffix("_weight"),
            f"{off}, which is off, acts as {value:g}",
            _with_default(knob, value),
            up_to_ties=knob == "top_k",
        )
        for knob, (off, values, _) in DEFAULTS.items()
        for value in values
    ),
)
