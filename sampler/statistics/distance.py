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
