"""Which tokens of a step a right engine must be able to draw, and which it may."""

import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import Explains
from sampler.requests import Steps
from sampler.statistics.distance import UNSEEN

Mask = NDArray[np.bool_]


def seen_bounds(reference: Explains, steps: Steps) -> tuple[Mask, Mask]:
    """Which tokens must and may be kept, (T, V) each; a token that no draw can reach need not be."""
    must, may, final = reference.bounds(steps)
    return must & (final.scores >= final.scores.max(axis=-1, keepdims=True) - UNSEEN), may


def beyond(steps: Steps, may: Mask) -> NDArray[np.int64]:
    """The rows whose drawn token is outside of `may` (T, V)."""
    return np.flatnonzero(~may[np.arange(len(steps.tokens)), steps.tokens])


def widened(may: Mask, steps: Steps, reference: Explains) -> Mask:
    """`may` with what a reference of a wider tolerance may keep in the rows whose drawn token is outside."""
    rows = beyond(steps, may)
    if len(rows):
        may = may.copy()
        may[rows] = seen_bounds(reference, steps.only(rows.tolist()))[1]
    return may
