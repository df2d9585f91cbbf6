"""Observed rates of error and what may be concluded from them."""

from dataclasses import dataclass, field

from scipy.stats import binom, binomtest

from sampler.checks.conformance.draw.plan import DrawPlan

FAILURE_BUDGET = 1e-6  # probability that the whole calibration fails although every stated rate is true
NOMINAL = (0.05, 0.01)  # rates of false alarms at which replicates are counted
ALPHA = min(DrawPlan(0).alphas.values())
"""Rate of false alarms at which checks are used: the tail, the detectable discrepancy and the misses are for it."""

MISS_RATE = 0.01


@dataclass(frozen=True)
class TailProbability:
    """Probability of a false alarm; standard_error 0: computed, without sampling."""

    value: float
    standard_error: float = 0.0

    def within(self, alpha: float) -> bool:
        return self.value + 5 * self.standard_error <= alpha


@dataclass(frozen=True)
class Row:
    """What was measured of one check on one distribution. missed: replicates by direction of error."""

    check: str
    distribution: str
    n: int
    replicates: int
    false_alarms: dict[float, int]
    tail: TailProbability
    detectable: float
    missed: dict[str, int] = field(default_factory=dict)

    def faults(self, budget: float) -> list[str]:
        """What contradicts a stated rate, each conclusion wrong with a probability of at most `budget`."""
        where = f"{self.check}, {self.distribution}, n = {self.n}"
        found = [
            f"{where}: {count} false alarms of {self.replicates} at {rate:g}"
            for rate, count in self.false_alarms.items()
            if exceeds(count, self.replicates, rate, budget)
        ]
        if not self.tail.within(ALPHA):
            found.append(f"{where}: the tail is {self.tail.value:.2g} +- {self.tail.standard_error:.1g} at {ALPHA:g}")
        found += [
            f"{where}: {count} of {self.replicates} missed at {self.detectable:.4f}, direction {direction!r}"
            for direction, count in self.missed.items()
            if exceeds(count, self.replicates, MISS_RATE, budget)
        ]
        return found


def exceeds(count: int, trials: int, rate: float, budget: float) -> bool:
    return bool(binom.sf(count - 1, trials, rate) < budget)


def interval(count: int, trials: int) -> tuple[float, float]:
    """Exact 95 % interval of a rate. Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits"."""
    return tuple(binomtest(count, trials).proportion_ci(0.95, "exact"))


def all_faults(rows: list[Row]) -> list[str]:
    """Faults of all rows, with the failure budget split evenly over everything that is compared."""
    compared = sum(len(row.false_alarms) + len(row.missed) for row in rows)
    return [fault for row in rows for fault in row.faults(FAILURE_BUDGET / max(1, compared))]
