"""Distances between distributions over tokens."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax


def total_variation(left_scores: ArrayLike, right_scores: ArrayLike) -> NDArray[np.float64]:
    """Half the sum of |p - q| over the last axis, in float64; (..., V) scores -> (...), from 0 to 1.

    p and q are the softmax of the scores; -inf is probability 0. Source: Levin, Peres and Wilmer, "Markov Chains and
    Mixing Times", proposition 4.2.
    """
    left = softmax(np.asarray(left_scores, dtype=np.float64), axis=-1)
    right = softmax(np.asarray(right_scores, dtype=np.float64), axis=-1)
    return np.asarray(0.5 * np.abs(left - right).sum(axis=-1))


UNSEEN = 80.0
"""A score more than this many nats below the best of its row is a removed token: its probability is below the smallest
normal float32, and no number of draws can show it. Engines mask with -1e9, -65504, -1e4 or the smallest float."""


def drawable(scores: ArrayLike, unseen: float = UNSEEN) -> NDArray[np.float64]:
    """Scores (..., V) in float64, -inf for tokens more than `unseen` nats below the best. NaN and +inf stay."""
    values = np.asarray(scores, dtype=np.float64)
    best = np.max(values, axis=-1, keepdims=True, where=np.isfinite(values), initial=-np.inf)
    with np.errstate(invalid="ignore"):
        return np.where(values < best - unseen, -np.inf, values)
