"""A long series in bounded memory: every step at first, later every second one, every fourth, and so on."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 200
"""Steps that are kept at most."""


@dataclass
class Thinned:
    """steps: the numbers of the kept ones, all multiples of `every`, from 1. values: what is known after each of them.

    count: how many there were.
    """

    every: int = 1
    count: int = 0
    steps: list[int] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, values: NDArray[np.float64]) -> None:
        """The next T steps, (..., T)."""
        for place in range(-(self.count + 1) % self.every, values.shape[-1], self.every):
            self.steps.append(self.count + place + 1)
            self.values.append(values[..., place].copy())
        self.count += values.shape[-1]
        while len(self.steps) > MOST_POINTS:
            self.every *= 2
            self.steps, self.values = self.steps[1::2], self.values[1::2]
