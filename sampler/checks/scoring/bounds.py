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
