"""Temperature, and the greedy choice at temperature 0."""

import numpy as np

from sampler.chain.knobs import Knobs
from sampler.chain.survivors import FloatRows


def temper(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Divide by the temperature; rows at temperature 0 pass unchanged. Source: TemperatureLogitsWarper."""
    return scores / knobs.temperature


def keep_most_likely(scores: FloatRows, knobs: Knobs) -> FloatRows:
    """Keep only the lowest id among the maxima, in rows at temperature 0."""
    rows = np.flatnonzero(knobs.greedy)
    best = scores[rows].argmax(axis=-1)
    kept = scores.copy()
    kept[rows] = -np.inf
    kept[rows, best] = scores[rows, best]
    return kept
