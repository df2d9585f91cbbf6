"""Draws outside the support: one is enough, so there are no false alarms and the power is a geometric tail."""

import math

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate


def judge_support(counts: NDArray[np.int64], support: NDArray[np.bool_]) -> Judgement:
    """Counts (V,): draws of each token; support (V,): tokens of positive probability. The alpha of this test is 0."""
    outside = int(counts[~support].sum())
    return Judgement(float(outside), 0.0, int(counts.sum()), 0.0 if outside else 1.0)


def detectable_leak(n: int, miss_rate: float = MISS_RATE) -> float:
    """Smallest mass outside the support that n draws miss with at most `miss_rate`: 1 - miss_rate^(1/n)."""
    return -math.expm1(math.log(checked_rate("miss_rate", miss_rate)) / n) if n else 1.0


def samples_for_leak(mass: float, miss_rate: float = MISS_RATE) -> int:
    """Draws that miss a leak of `mass` with at most `miss_rate`."""
    checked_rate("miss_rate", miss_rate)
    if not 0 < mass <= 1:
        raise ValueError(f"mass = {mass} is no mass to look for (expected a number in (0, 1])")
    return 1 if mass == 1 else math.ceil(math.log(miss_rate) / math.log1p(-mass))
