"""Whether draws know of each other: consecutive ones, or those of two rows at the same step.

Draws that should be independent are paired, every draw in one pair at most. A pair coincides with probability
sum p_i q_i, so the number of coincidences is binomial, and both of its tails are exact: too many where noise is reused
or shared by rows, too few where it is stratified.
"""

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.binomial import Binomial
from sampler.statistics.judgement import Judgement

Array = NDArray[np.float64]


def coincidence(first: Array, second: Array) -> float:
    """Probability that a draw from `first` (V,) and one from `second` (V,) are the same token."""
    return float(np.dot(first, second))


def judge_pairs(first: NDArray[np.int64], second: NDArray[np.int64], probability: float, alpha: float) -> Judgement:
    """first, second: tokens of n pairs (n,). probability: of a coincidence, as `coincidence` gives it.

    Raises ValueError for two lengths.
    """
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} tokens are paired with {len(second)}")
    return Binomial(min(1.0, probability), alpha).judge(int((first == second).sum()), len(first))


def consecutive(tokens: NDArray[np.int64], lag: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint pairs of draws that are `lag` apart: (n,), (n,) with n close to half of the draws."""
    if lag < 1:
        raise ValueError(f"lag = {lag} (expected 1 or more)")
    usable = len(tokens) // (2 * lag) * 2 * lag
    blocks = tokens[:usable].reshape(-1, 2, lag)
    return blocks[:, 0].ravel(), blocks[:, 1].ravel()
