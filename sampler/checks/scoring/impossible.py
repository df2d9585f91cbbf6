"""Tokens that no right engine can draw: a proof, which needs no budget of false alarms."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from sampler.engines.base import Evaluation, Explains
from sampler.requests import Steps

ALIKE = 1e-4
"""Probabilities that differ by so little are equal."""


class Impossible(NamedTuple):
    """A token that the chain removes. depth: how many nats it lies below the least likely token that is kept.

    run: its name. stage: which one removes it; `draw` if its logit is -inf.
    """

    run: str
    step: int
    token: int
    stage: str
    depth: float

    def __str__(self) -> str:
        edge = f"{self.depth:.2g} nats below the edge" if np.isfinite(self.depth) else "which the model never gives"
        removed = "" if self.stage == "draw" else f"; {self.stage} removes it"
        return f"token {self.token} at step {self.step} of {self.run}, {edge}{removed}"


def impossible_tokens(run: str, steps: Steps, may: np.ndarray, reference: Explains) -> list[Impossible]:
    """The drawn tokens outside of `may` (T, V), each with the stage that removes it."""
    rows = np.flatnonzero(~may[np.arange(len(steps.tokens)), steps.tokens])
    if not len(rows):
        return []
    chosen = steps.only(rows.tolist())
    states = reference.evaluate(chosen)
    places = chosen.context.step if chosen.context else rows
    return [
        Impossible(run, int(places[index]), int(token), *_removed(states, index, int(token)))
        for index, token in enumerate(chosen.tokens.tolist())
    ]


class Explained(NamedTuple):
    """Of impossible tokens, if they were draws of a cause. expected: how many there would be.

    ranks: of each one that there is, the share of the impossible draws that are less likely, and half of those that are
    as likely.
    """

    expected: float
    ranks: list[float]


def as_explained(steps: Steps, drawn: Steps, reference: Explains) -> Explained:
    """The impossible tokens of `steps` if they came from the chain and logits of the same steps `drawn`.

    Those at the edge, which may be possible, do not count.
    """
    may = reference.bounds(steps)[1]
    p = softmax(reference.last(drawn, "strict").scores, axis=-1) * ~may
    own, totals = p[np.arange(len(p)), steps.tokens], p.sum(axis=-1)
    low, high = (np.where(p < own[:, None] * limit, p, 0.0).sum(axis=-1) for limit in (1 - ALIKE, 1 + ALIKE))
    rows = np.flatnonzero(own)
    return Explained(float(totals.sum()), ((low + high)[rows] / 2 / totals[rows]).tolist())


class Removal(NamedTuple):
    """Where the chain removes a token. place, stage: which stage does; before, after: the states around it."""

    place: int
    stage: str
    before: Evaluation
    after: Evaluation


def removal(states: Sequence[Evaluation], row: int, token: int) -> Removal | None:
    """Where a token of a row is removed; None if its logit is -inf."""
    for place, (before, after) in enumerate(pairwise(states)):
        if before.kept[row, token] and not after.kept[row, token]:
            return Removal(place, "temperature" if after.stage == "greedy" else after.stage, before, after)
    return None


def _removed(states: Sequence[Evaluation], row: int, token: int) -> tuple[str, float]:
    found = removal(states, row, token)
    if found is None:
        return "draw", float("inf")
    kept = found.before.scores[row][found.after.kept[row]]
    return found.stage, float(kept.min() - found.before.scores[row, token]) if len(kept) else float("inf")
