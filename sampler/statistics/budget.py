"""One false-alarm rate for a whole run, split over its checks before anything is tested."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sampler.statistics.judgement import checked_rate


@dataclass(frozen=True)
class Budget:
    """rate: the largest probability that a run accuses a right engine of anything (union bound)."""

    rate: float = 1e-6

    def __post_init__(self) -> None:
        checked_rate("false_alarm_rate", self.rate)

    def split(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Alpha of each check, in proportion to its weight; together never more than the rate.

        Raises ValueError for no weights, or one that is not positive and finite.
        """
        if not weights:
            raise ValueError("a budget is split over at least one check")
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"the weight of {name!r} is {weight} (expected a positive number)")
        total = math.fsum(weights.values())
        # A part in 2^40 is left unused, so that rounding never makes the sum exceed the rate.
        return {name: self.rate * (1 - 2**-40) * weight / total for name, weight in weights.items()}
