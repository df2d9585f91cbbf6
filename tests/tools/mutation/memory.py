"""Answers of pure functions, kept within one judgement at level draw, which asks for the same thing many times.

Only where the mutation is elsewhere: a chain that answers one question in two ways is killed at level process.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

NOT_FOR = ("draw.py", "noise.py")  # files whose mutations are judged without any memory
LARGE = 1_000  # noise over so many tokens is not kept


def remember() -> None:
    """Let the copy's `draw` remember what `process` gave for equal inputs, and the noise of equal keys."""
    module = importlib.import_module("sampler.chain.draw")
    module.process = _remembering(module.process)
    make, known = module.gumbel_where, {}

    def where(keys: Any, steps: Any, kept: Any) -> Any:
        if kept.shape[1] > LARGE:
            return make(keys, steps, kept)
        key = (tuple(keys), tuple(steps), kept.shape, kept.tobytes())
        if key not in known:
            known[key] = make(keys, steps, kept)
        return known[key]

    module.gumbel_where = where


def _remembering(process: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, Any] = {}

    def remembered(logits: Any, history: Any, config: Any, uncond_logits: Any, **further: Any) -> Any:
        key = (_first(logits), repr(history[:1]), len(history), repr(config), _first(uncond_logits), repr(further))
        if key not in known:
            known[key] = process(logits, history, config, uncond_logits, **further)
        return known[key]

    return remembered


def _first(array: Any) -> tuple[Any, ...]:
    return () if array is None else (array.shape, np.array(array[:1]).tobytes())
