"""Compare two sets of runs, text by text: whether a scalar of one is larger more often than by chance.

The statistic is the probability of superiority P: over all pairs of a first and a second run of one text, the share in
which the first is larger, with ties counting half. Under the null hypothesis the runs of a text are exchangeable, so
given the pooled values every assignment to the first side is equally likely. The law of the rank sum is then known
exactly, ties included, and that of the sum over texts is a convolution (Mann and Whitney 1947; van Elteren 1960, here
with weights that make every pair count the same).

The power only assumes that runs are independent. A text with m first and n second runs has k = min(m, n) disjoint
pairs, and P is an average over arrangements of averages over such pairs, so bounds for sums of independent values in
[0, 1] hold for it. Source: Hoeffding 1963, "Probability inequalities for sums of bounded random variables", section 5.
The two used here, with weights w_t proportional to m n: exp(-2 x^2 / V), V = sum of w_t^2 / k_t, and
exp(-K KL(P - x, P)), K = min of k_t / w_t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import rankdata

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate, fewest
from sampler.statistics.sums import SumLaw

Array = NDArray[np.float64]

LARGEST = 50
"""Texts with more runs per side are judged in parts of at most this many, in the order of the runs: it costs 1 % of the
variance, while the exact law of 500 against 500 would take minutes."""

Blocks = list[tuple[Array, Array]]


@dataclass(frozen=True)
class RankSum:
    """Whether the first runs of each text resemble the second ones, two-sided, with false alarms at most `alpha`."""

    alpha: float

    def __post_init__(self) -> None:
        checked_rate("alpha", self.alpha)

    def judge(self, first: Sequence[Array], second: Sequence[Array]) -> Judgement:
        """first, second: for each text the scalars of its runs, (m,) and (n,). Texts without one side are left out.

        The statistic is the probability of superiority of the larger side, from 0.5 to 1; its bound is the largest one
        that is not rejected on that side. Raises ValueError for different numbers of texts, and for NaN.
        """
        blocks = _blocks(first, second)
        runs = sum(len(one) + len(other) for one, other in blocks)
        if not blocks:
            return Judgement(0.5, math.inf, 0, 1.0)
        doubled, pairs = sum(_doubled_wins(*block) for block in blocks), _pairs(blocks)
        law = _law(blocks)
        p_value = min(1.0, 2 * min(law.upper(doubled), law.lower(doubled)))
        low, high = self._accepted(law)
        upwards = doubled >= pairs
        statistic = max(doubled, 2 * pairs - doubled) / (2 * pairs)
        bound = (high if upwards else 2 * pairs - low) / (2 * pairs)
        return Judgement(statistic, bound, runs, p_value)

    def _accepted(self, law: SumLaw) -> tuple[int, int]:
        """Smallest and largest doubled count of wins that is not rejected."""
        return law.most - (law.mirrored.critical(self.alpha / 2) - 1), law.critical(self.alpha / 2) - 1

    def detectable(self, first: Sequence[Array], second: Sequence[Array], miss_rate: float = MISS_RATE) -> float:
        """Smallest probability of superiority, on the worse side, that is missed with at most `miss_rate`; 1.0 if none.

        It depends on the values only by their ties, and is a confidence bound: if a run is not rejected, the true
        probability is below it in all but `miss_rate` of the cases.
        """
        checked_rate("miss_rate", miss_rate)
        blocks = _blocks(first, second)
        if not blocks:
            return 1.0
        low, high = self._accepted(_law(blocks))
        pairs = _pairs(blocks)
        accepted = max(high, 2 * pairs - low) / (2 * pairs)
        sizes = [(len(one), len(other)) for one, other in blocks]
        return 1.0 if accepted >= 1 else _reached(accepted, sizes, miss_rate)

    def planned(self, sizes: Sequence[tuple[int, int]], miss_rate: float = MISS_RATE) -> float:
        """What `detectable` will be with so many (first, second) runs of each text and no ties."""
        first = [np.arange(m, dtype=np.float64) for m, _ in sizes]
        second = [np.arange(m, m + n, dtype=np.float64) for m, n in sizes]
        return self.detectable(first, second, miss_rate)

    def samples_needed(self, superiority: float, texts: int, miss_rate: float = MISS_RATE) -> int:
        """Runs of each of `texts` texts, on either side, with which `planned` is at most `superiority`.

        Raises ValueError for a superiority that is not between 0.5 and 1.
        """
        if not 0.5 < superiority < 1:
            raise ValueError(f"superiority = {superiority} (expected a number between 0.5 and 1)")
        return fewest(lambda runs: self.planned([(runs, runs)] * texts, miss_rate), superiority)


def superiority(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Share of the pairs of one text in which the first is larger, ties counting half; 0.5 without pairs."""
    blocks = _blocks(first, second)
    return sum(_doubled_wins(*block) for block in blocks) / (2 * _pairs(blocks)) if blocks else 0.5


def _blocks(first: Sequence[Array], second: Sequence[Array]) -> Blocks:
    """Texts with both sides, the large ones cut into parts."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} texts are compared with {len(second)}")
    blocks = []
    for one, other in zip(first, second, strict=True):
        if np.isnan(one).any() or np.isnan(other).any():
            raise ValueError("a scalar of a run is NaN")
        if min(len(one), len(other)):
            parts = min(math.ceil(max(len(one), len(other)) / LARGEST), len(one), len(other))
            blocks += list(zip(np.array_split(one, parts), np.array_split(other, parts), strict=True))
    return blocks


def _pairs(blocks: Blocks) -> int:
    return sum(len(one) * len(other) for one, other in blocks)


def _doubled_wins(one: Array, other: Array) -> int:
    """Twice the number of pairs in which the first is larger, plus those that tie."""
    differences = np.sign(one[:, None] - other)
    return int(np.sum(differences)) + differences.size


def _law(blocks: Blocks) -> SumLaw:
    return SumLaw(tuple(_null(len(one), _doubled_ranks(np.concatenate([one, other]))) for one, other in blocks))


def _doubled_ranks(values: Array) -> tuple[int, ...]:
    return tuple(sorted((2 * rankdata(values)).astype(int).tolist()))


@lru_cache(maxsize=4_096)
def _null(drawn: int, doubled_ranks: tuple[int, ...]) -> Array:
    """Probabilities of 0..2mn doubled wins of `drawn` of the runs, every choice being equally likely.

    ways[k, s]: the weight of choices of k runs so far with s doubled wins over an imagined order without ties.
    """
    total = len(doubled_ranks)
    least = drawn * (drawn + 1)
    size = least + 2 * drawn * (total - drawn) + 1
    ways = np.zeros((drawn + 1, size))
    ways[0, 0] = 1.0
    for rank in doubled_ranks:
        ways[1:, rank:] += ways[:-1, : size - rank]
    counts = ways[drawn, least:]
    return np.asarray(counts / counts.sum())


def _reached(accepted: float, sizes: Sequence[tuple[int, int]], miss_rate: float) -> float:
    """The superiority under which P <= accepted has a probability of `miss_rate` at most, by the nearer bound."""
    products = np.array([m * n for m, n in sizes], dtype=np.float64)
    weights, disjoint = products / products.sum(), np.array([min(size) for size in sizes])
    spread = float((weights**2 / disjoint).sum())
    by_variance = accepted + math.sqrt(-math.log(miss_rate) * spread / 2)
    count = float((disjoint / weights).min())

    def lack(true: float) -> float:
        divergence = rel_entr(accepted, true) + rel_entr(1 - accepted, 1 - true)
        return float(count * divergence + math.log(miss_rate))

    by_divergence = brentq(lack, accepted, 1 - 1e-12) if lack(1 - 1e-12) > 0 else 1.0
    return min(1.0, by_variance, float(by_divergence) + 1e-9)
