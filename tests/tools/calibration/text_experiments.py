"""The experiment whose observations are runs of texts: each text has a rate of its own."""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.stratified import StratifiedCounts
from tests.tools.calibration.distributions import Array, Distribution
from tests.tools.calibration.experiments import Rng, Samples
from tests.tools.calibration.rates import TailProbability

TEXTS = 20
POOLED_DRAWS = 10


class StratifiedCountsExperiment:
    """Runs that count, of n a sample shared out over texts: (replicates, 2, texts). A token is a text, p its rate."""

    def __init__(self, distribution: Distribution, n: int):
        self.rates = distribution.pmf[:TEXTS]
        self.runs = np.full(len(self.rates), n // len(self.rates))

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.binomial(self.runs, self.rates, (replicates, 2, len(self.runs)))

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        pooled, first = np.sort(samples.sum(axis=1), axis=1), samples[:, 0].sum(axis=1)
        limits = np.array([_accepted(alpha, tuple(row), int(self.runs[0])) for row in pooled.tolist()])
        return np.asarray((first < limits[:, 0]) | (first > limits[:, 1]))

    def judged(self, sample: Samples, alpha: float) -> bool:
        return StratifiedCounts(alpha).judge(sample[0], self.runs, sample[1], self.runs).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """By whole numbers: the largest given pooled counts, of some draws at the detectable rise."""
        pooled = [samples.sum(axis=1) for _, samples in self.wrong(self.detectable(alpha), rng, POOLED_DRAWS)]
        return TailProbability(max(self._tail_given(alpha, row) for row in np.concatenate(pooled).tolist()))

    def _tail_given(self, alpha: float, pooled: list[int]) -> float:
        ways, runs = np.array([1], dtype=object), int(self.runs[0])
        for count in pooled:
            each = [math.comb(runs, ours) * math.comb(runs, count - ours) for ours in range(count + 1)]
            ways = np.convolve(ways, np.array(each, dtype=object))
        low, high = StratifiedCounts(alpha).accepted(pooled, self.runs, self.runs)
        return float((sum(ways[:low]) + sum(ways[high + 1 :])) / sum(ways))

    def detectable(self, alpha: float) -> float:
        return StratifiedCounts(alpha).detectable(float(self.rates.mean()), self.runs, self.runs)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        """The rise is shared out over all texts, in proportion to the room above their rates, or fills up some."""
        room = 1 - self.rates
        if distance <= room.mean():
            first = rng.binomial(self.runs, self.rates, (replicates, len(self.runs)))
            filled = np.minimum(room, np.maximum(0.0, distance * len(room) - (np.cumsum(room[::-1])[::-1] - room)))
            for name, rise in (("every text", distance * room / room.mean()), ("some texts", filled)):
                second = rng.binomial(self.runs, self.rates + rise, (replicates, len(self.runs)))
                yield name, np.stack([first, second], axis=1)


@lru_cache(maxsize=100_000)
def _accepted(alpha: float, pooled: tuple[int, ...], runs: int) -> tuple[int, int]:
    each: Array = np.full(len(pooled), runs)
    return StratifiedCounts(alpha).accepted(pooled, each, each)
