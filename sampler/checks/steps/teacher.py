"""Recorded logits beside those that the engine's model predicts over the same prompt and tokens (teacher forcing)."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sampler.checks.steps.coverage import broken_steps
from sampler.checks.steps.evidence import Evidence
from sampler.engines.base import Predicts, Request
from sampler.requests import Logits
from sampler.statistics.distance import total_variation

Distances = NDArray[np.float64]

MOST_STEPS: Final = 320
"""Recorded steps of a cell that are compared. Beyond, an even choice of its requests is, another one in each cell."""

AT_ONCE: Final = 64


@dataclass(frozen=True)
class Forced:
    """A run's recorded logits, float32 (T, 2 or 1, V), and those of the model for the same tokens, shaped alike.

    further: the model's logits of steps T and later that are not recorded, (N, 2 or 1, V), for a record of the wrong
    steps.
    """

    request: int
    tokens: tuple[int, ...]
    recorded: Logits
    model: Logits
    further: Logits

    @cached_property
    def distance(self) -> Distances:
        """Total variation at each step, the larger of the two rows: (T,)."""
        return distance(self.recorded, self.model)


def distance(left: Logits, right: Logits) -> Distances:
    """Total variation of (T, rows, V) and (T, rows, V), the largest of the rows at each step; 1 where it is undefined.

    It is undefined where a row has NaN, +inf or no token left.
    """
    result = np.ones(len(left))
    for start in range(0, len(left), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        valid = ~(broken_steps(left[part]) | broken_steps(right[part]))
        rows = start + np.flatnonzero(valid)
        if len(rows):
            result[rows] = total_variation(left[rows], right[rows]).max(axis=-1)
    return result


def predicted(model: Predicts, request: Request, tokens: Sequence[int], *, guided: bool) -> Logits:
    """The model's logits for each of the tokens and the one after them: (len + 1, 2 if guided else 1, V).

    A model whose predict() has the keywords `language` or `guided` gets them. Raises ValueError for another shape.
    """
    predict: Callable[..., Any] = model.predict
    known = inspect.signature(predict).parameters
    given = {"language": request.language, "guided": guided}
    logits = np.asarray(
        predict(request.prompt, list(tokens), **{name: value for name, value in given.items() if name in known}),
        dtype=np.float32,
    )
    rows = logits[None] if logits.ndim == 2 else logits
    if rows.ndim != 3 or rows.shape[1] != len(tokens) + 1 or len(rows) < 1 + guided:
        expected = f"({'2, ' if guided else ''}{len(tokens) + 1}, vocabulary)"
        raise ValueError(f"predict() gave logits of shape {logits.shape} for {len(tokens)} tokens, expected {expected}")
    return np.ascontiguousarray(rows[: 1 + guided].transpose(1, 0, 2))


def forced(evidence: Evidence, model: Predicts) -> list[Forced]:
    """Every run with a record, or an even choice of them within MOST_STEPS, but at least one."""
    recorded = [
        (index, one.record.logits)
        for index, one in enumerate(evidence.generations)
        if one.record is not None and one.record.logits is not None and len(one.record.logits)
    ]
    steps = sum(len(evidence.generations[index].tokens) for index, _ in recorded)
    most = max(1, MOST_STEPS * len(recorded) // max(steps, 1))
    if len(recorded) > most:
        first, count = evidence.requests[0].seed, len(recorded)
        recorded = [recorded[(first + place * count // most) % count] for place in range(most)]
    return [_forced(evidence, model, index, logits) for index, logits in recorded]


def _forced(evidence: Evidence, model: Predicts, index: int, logits: Logits) -> Forced:
    tokens = evidence.generations[index].tokens
    count = min(len(tokens), MOST_STEPS)  # of one long run, its beginning
    both = logits.shape[1] == 2
    rows = predicted(model, evidence.requests[index], tokens[: count - 1], guided=both)
    length = min(len(logits), count)
    if rows.shape[2] != logits.shape[2]:
        raise ValueError(f"predict() gives {rows.shape[2]} logits a step, the record has {logits.shape[2]}")
    return Forced(index, tokens[:count], logits[:length], rows[:length], rows[length:])
