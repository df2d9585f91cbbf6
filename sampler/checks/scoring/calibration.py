"""Calibration: whether the probability integral transforms (PIT) of drawn tokens are uniform.

A token stands for an interval of the uniform number that an inverted distribution function takes. Its observation is
spread over the bins that the interval meets, in place of a random point of it: with PIT_x(b) the part of the interval
of token x in bin b, the expectation of PIT_x(b) is 1 / BINS, and of its square the sum of (part of b)^2 / p_x. So each
count minus its expectation is a martingale whose variance is known step by step.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.memory import Step

Array = NDArray[np.float64]

BINS = 16

ORDERS = ("rank", "id")
"""How the tokens of a step are ordered: the likeliest first, or by their ids."""


@dataclass
class Calibration:
    """counts: of tokens by bin, for each of ORDERS, (2, BINS). variances: of these counts if the draws are right."""

    steps: int = 0
    counts: Array = field(default_factory=lambda: np.zeros((len(ORDERS), BINS)))
    variances: Array = field(default_factory=lambda: np.zeros((len(ORDERS), BINS)))

    def add(self, steps: Step, drawn: NDArray[np.int64]) -> None:
        """Further steps. drawn: the places (T,) of their tokens."""
        self.steps += len(drawn)
        for row, edges in enumerate((steps.rank_edges, steps.id_edges)):
            landed = steps.landed(edges, drawn).sum(axis=0)
            self.counts[row] += landed.reshape(BINS, -1).sum(axis=-1)
            self.variances[row] += _variances(steps.p, edges)


def _variances(p: Array, edges: tuple[Array, Array]) -> Array:
    """Of the counts of T steps, (BINS,). Tokens within one bin have (part of b)^2 / p_x = p_x, which sums to 1."""
    begin, end = edges
    several = np.floor(begin * BINS) + 1 < end * BINS
    begin, end, p = (of[several][:, None] for of in (begin, end, p))
    borders = np.arange(BINS + 1) / BINS
    parts = np.maximum(np.minimum(end, borders[1:]) - np.maximum(begin, borders[:-1]), 0)
    lost = (parts - parts**2 / np.where(p > 0, p, 1)).sum(axis=0)
    return np.asarray(len(edges[0]) * (1 / BINS - 1 / BINS**2) - lost)
