"""Which token wins a step: the largest score plus noise, unless rounding may decide."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from sampler.checks.scoring.bounds import Mask
from sampler.engines.base import Explains
from sampler.requests import Steps


@dataclass(frozen=True)
class Race:
    """Score plus noise at T steps. best: of the tokens that must be kept; gap: its lead over the drawn token.

    reach: the largest effect of rounding; lost: whether the drawn token cannot have won; chance: the probability of
    `best`; all (T,).
    """

    best: NDArray[np.int64]
    gap: NDArray[np.float64]
    reach: NDArray[np.float64]
    lost: Mask
    chance: NDArray[np.float64]

    @classmethod
    def of(cls, reference: Explains, steps: Steps, must: Mask, may: Mask) -> "Race":
        final = reference.last(steps, "generous")
        rows = np.arange(len(steps.tokens))
        raced = final.scores + np.asarray(steps.gumbel)
        best = np.where(must, raced, -np.inf).argmax(axis=-1)
        with np.errstate(invalid="ignore"):
            gap = raced[rows, best] - raced[rows, steps.tokens]
        reach = final.error[rows, best] + final.error[rows, steps.tokens] + 1e-6 * np.abs(raced[rows, best])
        ran = must.any(axis=-1) & final.kept[rows, steps.tokens]
        lost = ~may[rows, steps.tokens] | (ran & (gap > reach))
        return cls(best, gap, reach, lost, softmax(final.scores, axis=-1)[rows, best])

    def describe(self, steps: Steps, index: int) -> str:
        lead = f"ahead by {self.gap[index]:.3g} (rounding explains {self.reach[index]:.1g})"
        return (
            f"{steps.name(index)}: token {steps.tokens[index]} was drawn, the reference draws {self.best[index]} "
            f"with the same noise, {lead if np.isfinite(self.gap[index]) else 'and removes the other'}"
        )
