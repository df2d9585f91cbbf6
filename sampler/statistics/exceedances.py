"""Bounds that hold 95 % of right runs on one side, from calibration runs, and a test of how many runs exceed them.

With n calibration runs the bound is the k-th largest, k = floor(0.05 (n + 1)): a further run of the same kind exceeds
it with a probability of at most 0.05, whatever the law. Source: Vovk, Gammerman and Shafer 2005, "Algorithmic
Learning in a Random World", section 2.2; Lei et al. 2018, "Distribution-free predictive inference for regression", for
the split.

The bound itself is random, so the number of runs that exceed it is judged by its exact law. E >= e means that among the
e + k - 1 largest values of both sides at most k - 1 are calibration runs, hence at least e are others. Given the pooled
values and the text of each, that is a sum of hypergeometric counts over the texts. With one text and no ties E is a
negative hypergeometric count. Ties count as not beyond, which can only make E smaller.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest
from sampler.statistics.share import most_likely_missed, reached_share
from sampler.statistics.sums import drawn_marks

Array = NDArray[np.float64]

BEYOND = 0.05
"""The share of right runs that may exceed a bound."""


def conformal_rank(count: int, beyond: float = BEYOND) -> int:
    """The k of the k-th most extreme of `count` calibration runs; 0 if they are too few (at 5 % below 19)."""
    return math.floor(beyond * (count + 1) + 1e-9)


@dataclass(frozen=True)
class Exceedances:
    """Whether too many runs exceed the bound of the calibration runs, with false alarms at most `alpha`."""

    alpha: float
    beyond: float = BEYOND

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)
        checked_rate("beyond", self.beyond)

    def bound(self, calibration: Sequence[Array]) -> float:
        """The k-th largest value of the calibration runs of all texts; inf if they are too few."""
        values = np.concatenate([*calibration, np.empty(0)])
        rank = conformal_rank(len(values), self.beyond)
        return float(np.sort(values)[-rank]) if rank else math.inf

    def judge(self, runs: Sequence[Array], calibration: Sequence[Array]) -> Judgement:
        """runs, calibration: values of the runs of each text. Texts without one side are left out.

        The statistic is the share of the runs above the bound; its bound is the largest allowed share. Raises
        ValueError for different numbers of texts, and for NaN.
        """
        pooled = _Pooled.of(runs, calibration, self.beyond)
        if pooled.rank == 0:
            return Judgement(0.0, math.inf, pooled.count + pooled.calibrating, 1.0)
        above = pooled.above
        allowed = pooled.most_allowed(self.alpha) / pooled.count
        return Judgement(
            above / pooled.count, allowed, pooled.count + pooled.calibrating, min(1.0, pooled.upper(above))
        )

    def detectable(self, runs: Sequence[Array], calibration: Sequence[Array], miss_rate: float = MISS_RATE) -> float:
        """Smallest long-run share of runs beyond the bound that is missed with at most `miss_rate`, given these texts.

        1.0 if none is detected.
        """
        checked_rate("miss_rate", miss_rate)
        pooled = _Pooled.of(runs, calibration, self.beyond)
        if pooled.rank == 0:
            return 1.0
        return reached_share(pooled.most_allowed(self.alpha), pooled.count, miss_rate)

    def planned(self, runs: int, texts: int, miss_rate: float = MISS_RATE) -> float:
        """An upper limit of `detectable` with `runs` runs of each text on both sides, whatever their order."""
        count = runs * texts
        rank = conformal_rank(count, self.beyond)
        if rank == 0:
            return 1.0
        return reached_share(most_likely_missed(self.alpha, rank - 1, 0.5), count, miss_rate)

    def samples_needed(self, share: float, texts: int, miss_rate: float = MISS_RATE) -> int:
        """Runs of each of `texts` texts, on both sides, with which `planned` is at most `share`.

        Raises ValueError for a share outside of `beyond` to 1.
        """
        if not self.beyond < share < 1:
            raise ValueError(f"share = {share} (expected a number between {self.beyond} and 1)")
        return fewest(lambda runs: self.planned(runs, texts, miss_rate), share)


@dataclass(frozen=True, eq=False)
class _Pooled:
    """Values of both sides together. texts: the text of each pooled value, the largest value first."""

    above: int
    rank: int
    texts: NDArray[np.int64]
    n_runs: tuple[int, ...]
    n_calibration: tuple[int, ...]

    @classmethod
    def of(cls, runs: Sequence[Array], calibration: Sequence[Array], beyond: float) -> "_Pooled":
        both = [(one, other) for one, other in zip(runs, calibration, strict=True) if len(one) and len(other)]
        values = np.concatenate([np.empty(0), *(value for pair in both for value in pair)])
        if np.isnan(values).any():
            raise ValueError("a value of a run is NaN")
        texts = np.repeat(np.arange(len(both)), [len(one) + len(other) for one, other in both])
        # The order among equal values must not depend on the side: sort by text.
        order = np.lexsort((texts, -values))
        n_runs, n_calibration = [len(one) for one, _ in both], [len(other) for _, other in both]
        rank = conformal_rank(sum(n_calibration), beyond)
        above = 0
        if rank:
            bound = np.sort(np.concatenate([other for _, other in both]))[-rank]
            above = sum(int((one > bound).sum()) for one, _ in both)
        return cls(above, rank, texts[order], tuple(n_runs), tuple(n_calibration))

    @cached_property
    def count(self) -> int:
        return sum(self.n_runs)

    @cached_property
    def calibrating(self) -> int:
        return sum(self.n_calibration)

    def upper(self, above: int) -> float:
        """P(E >= above): the probability that so many of the `above + rank - 1` largest values are judged runs."""
        if above == 0:
            return 1.0
        largest = self.texts[: above + self.rank - 1]
        marked = np.bincount(largest, minlength=len(self.n_runs)).tolist()
        total = [one + other for one, other in zip(self.n_runs, self.n_calibration, strict=True)]
        return drawn_marks(marked, self.n_runs, total).upper(above)

    def most_allowed(self, alpha: float) -> int:
        """The largest count that is not rejected."""
        low, high = 0, self.count + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.upper(middle) > alpha else (low, middle)
        return low
