"""Experiments whose unit is the run: values or marks of runs of several texts, as many on either side.

The laws are convolved term by term here, where the package tilts and transforms them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache, reduce

import numpy as np
from scipy.special import erfinv
from scipy.stats import hypergeom

from sampler.statistics.exceedances import Exceedances, conformal_rank
from sampler.statistics.ranks import RankSum
from sampler.statistics.stratified import StratifiedCounts
from tests.tools.calibration.distributions import Array
from tests.tools.calibration.experiments import Rng, Samples
from tests.tools.calibration.rates import TailProbability

PART = 250  # replicates that are compared at once


@dataclass(frozen=True)
class RunDesign:
    """How many texts there are; the n of an experiment is the number of runs of each text on either side."""

    name: str
    texts: int


ONE, TEN, THIRTY = RunDesign("1 text", 1), RunDesign("10 texts", 10), RunDesign("30 texts", 30)


def one_sided(rng: Rng, shape: tuple[int, ...], share: Array) -> Array:
    """Values above all those in (0, 1), or below, with the given probability: the worst case of the bounds."""
    return np.where(rng.random(shape) < share, 9.0, -9.0) + rng.random(shape)


def shared_out(share: float, texts: int) -> Iterator[tuple[str, Array]]:
    """Shares of each text whose mean is the given one: all equal, or twice as much in every other text."""
    yield "evenly", np.full(texts, share)
    if 2 * share <= 1 and texts % 2 == 0:
        yield "in half of the texts", np.where(np.arange(texts) % 2 == 0, 2 * share, 0.0)


class RunsExperiment:
    """Values of n runs of each text on either side, without ties: (replicates, 2, texts, n)."""

    def __init__(self, design: RunDesign, n: int):
        self.texts, self.n, self.runs = design.texts, n, [n] * design.texts

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.random((replicates, 2, self.texts, self.n))

    def rejected(self, samples: Samples, alpha: float) -> Samples:
        return np.array([self._p_value(sample) <= alpha for sample in samples])


class RankSumExperiment(RunsExperiment):
    """Whether the values of the one side are larger."""

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.random((replicates, 2, self.texts, self.n), dtype=np.float32)

    def rejected(self, samples: Samples, alpha: float) -> Samples:
        parts = np.array_split(samples, max(1, len(samples) // PART))
        wins = np.concatenate([(each[:, 0, ..., None] > each[:, 1, :, None]).sum(axis=(1, 2, 3)) for each in parts])
        high = int(np.argmax(_upper(_wins_of_texts(self.n, self.texts)) <= alpha / 2)) - 1
        return (wins < self.texts * self.n**2 - high) | (wins > high)

    def judged(self, sample: Samples, alpha: float) -> bool:
        return RankSum(alpha).judge(list(sample[0]), list(sample[1])).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Both sides, by the law of the package's own bound."""
        values = np.arange(2.0 * self.n).reshape(2, self.n)
        bound = RankSum(alpha).judge([values[0]] * self.texts, [values[1]] * self.texts).bound
        most = round(bound * self.texts * self.n**2)
        return TailProbability(2 * float(_upper(_wins_of_texts(self.n, self.texts))[most + 1]))

    def detectable(self, alpha: float) -> float:
        return RankSum(alpha).planned([(self.n, self.n)] * self.texts)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        if distance >= 1:
            return
        shape, right = (replicates, self.texts, self.n), rng.random((replicates, self.texts, self.n))
        yield "all above or all below", np.stack([one_sided(rng, shape, np.array(distance)), right], axis=1)
        shift = 2 * erfinv(2 * distance - 1)
        yield "shifted", np.stack([rng.normal(size=shape) + shift, rng.normal(size=shape)], axis=1)
        # As far as it goes in one half of the texts, and what is left in the other.
        first = np.arange(self.texts)[:, None] < self.texts // 2
        rest = (self.texts * distance - self.texts // 2) / (self.texts - self.texts // 2)
        uneven = one_sided(rng, shape, np.where(first, 1.0, rest))
        yield "all of half of the texts", np.stack([uneven, right], axis=1)


@lru_cache
def _wins_of_texts(n: int, texts: int) -> Array:
    """Probabilities of 0, 1, .. pairs in which the first side is larger: Gaussian binomials, in whole numbers."""
    counts = [1]
    for i in range(1, n + 1):
        shifted = [0] * (n + i) + counts
        product = [a - b for a, b in zip(counts + [0] * (n + i), shifted, strict=True)]  # times 1 - q^(n + i)
        for place in range(i, len(product)):  # divided by 1 - q^i
            product[place] += product[place - i]
        counts = product[: i * n + 1]
    total = sum(counts)
    return reduce(np.convolve, [np.array([count / total for count in counts])] * texts)


def _upper(law: Array) -> Array:
    return np.append(np.cumsum(law[::-1])[::-1], 0.0)


@cache
def _marks(marked: tuple[int, ...], n: int) -> Array:
    """P(X >= k) of the marks that fall to the first of two sides of n runs a text."""
    return _upper(reduce(np.convolve, [hypergeom.pmf(np.arange(min(m, n) + 1), 2 * n, m, n) for m in marked]))


class CountedRunsExperiment(RunsExperiment):
    """Marks of the runs of each text, of one rate in one half of the texts and of another in the rest."""

    def __init__(self, design: RunDesign, n: int):
        super().__init__(design, n)
        self.rates = np.where(np.arange(design.texts) % 2 == 0, 0.2, 0.02)

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.binomial(self.n, self.rates, (replicates, 2, self.texts))

    def _p_value(self, sample: Samples) -> float:
        upper, first = _marks(tuple(sorted(sample.sum(axis=0).tolist())), self.n), int(sample[0].sum())
        return 2 * min(float(upper[first]), float(1 - upper[first + 1]))

    def judged(self, sample: Samples, alpha: float) -> bool:
        first, second = sample.tolist()
        return StratifiedCounts(alpha).judge(first, self.runs, second, self.runs).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Given marks as they are drawn once, every count of the first side that the package rejects."""
        pooled = rng.binomial(2 * self.n, self.rates)
        law, wrong = -np.diff(_marks(tuple(sorted(pooled.tolist())), self.n)), 0.0
        for first in range(int(pooled.sum()) + 1):
            mine = _shared_out(pooled, first, self.n)
            if mine is not None and self.judged(np.array([mine, pooled - mine]), alpha):
                wrong += float(law[first])
        return TailProbability(wrong)

    def detectable(self, alpha: float) -> float:
        return StratifiedCounts(alpha).detectable_share(self.runs, self.runs)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        none = np.zeros((replicates, self.texts), dtype=np.int64)
        for name, shares in shared_out(distance, self.texts):
            yield name, np.stack([rng.binomial(self.n, shares, none.shape), none], axis=1)


class RisenRunsExperiment(CountedRunsExperiment):
    """The same counts where the first side's mean rate is above the second's."""

    def detectable(self, alpha: float) -> float:
        return StratifiedCounts(alpha).detectable_rise(float(self.rates.mean()), self.runs, self.runs)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        """The rise is shared out over all texts, in proportion to the room above their rates, or fills up some."""
        room = 1 - self.rates
        if distance <= room.mean():
            shape = (replicates, self.texts)
            filled = np.minimum(room, np.maximum(0.0, distance * len(room) - (np.cumsum(room[::-1])[::-1] - room)))
            for name, rise in (("every text", distance * room / room.mean()), ("some texts", filled)):
                sides = [rng.binomial(self.n, np.minimum(1, self.rates + more), shape) for more in (rise, 0.0)]
                yield name, np.stack(sides, axis=1)


def _shared_out(pooled: Samples, first: int, n: int) -> Samples | None:
    """Marks of the first side in each text that sum to `first`, if there is room for them."""
    least = np.maximum(0, pooled - n)
    mine, left = least.copy(), first - int(least.sum())
    for text, most in enumerate(np.minimum(pooled, n)):
        step = min(left, int(most - mine[text]))
        mine[text] += step
        left -= step
    return mine if left == 0 else None


class ExceedancesExperiment(RunsExperiment):
    """Lengths of runs beside calibration runs."""

    def __init__(self, design: RunDesign, n: int):
        super().__init__(design, n)
        self.rank = conformal_rank(n * design.texts)

    def _p_value(self, sample: Samples) -> float:
        bound = np.sort(sample[1], axis=None)[-self.rank]
        return self._upper(sample, int((sample[0] > bound).sum()))

    def _upper(self, both: Samples, above: int) -> float:
        largest = np.argsort(both, axis=None)[::-1][: above + self.rank - 1]
        texts = largest // self.n % self.texts
        marked = np.sort(np.bincount(texts, minlength=self.texts)).tolist()
        return float(_marks(tuple(marked), self.n)[above]) if above else 1.0

    def judged(self, sample: Samples, alpha: float) -> bool:
        return Exceedances(alpha).judge(list(sample[0]), list(sample[1])).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Given one order of the values: the package's own largest count, and the probability of one more."""
        both = rng.random((2, self.texts, self.n))
        judged = Exceedances(alpha).judge(list(both[0]), list(both[1]))
        return TailProbability(self._upper(both, round(judged.bound * self.texts * self.n) + 1))

    def detectable(self, alpha: float) -> float:
        return Exceedances(alpha).planned(self.n, self.texts)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        calibration = rng.random((replicates, self.texts, self.n))
        bound = np.sort(calibration.reshape(replicates, -1), axis=1)[:, -self.rank][:, None, None]
        for name, shares in shared_out(distance, self.texts):
            above, noise = rng.random(calibration.shape) < shares[:, None], rng.random(calibration.shape)
            yield name, np.stack([np.where(above, bound + noise * (1 - bound), noise * bound), calibration], axis=1)
