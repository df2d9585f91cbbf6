"""Experiments whose statistic compares two samples, or two distribution functions."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom

from sampler.statistics.scalar import DistributionFunction
from sampler.statistics.two_sample import TwoCounts, TwoSamples, expected_variation_between
from tests.tools.calibration.distributions import Array, Distribution, wrong_distributions
from tests.tools.calibration.experiments import TILTED_DRAWS, Rng, Samples
from tests.tools.calibration.rates import TailProbability
from tests.tools.calibration.separable import tail_probability
from tests.tools.calibration.terms import split_terms


class TwoCountsExperiment:
    """The likeliest token's count in two samples of n draws each: (replicates, 2)."""

    def __init__(self, distribution: Distribution, n: int):
        self.p, self.n = float(distribution.pmf[0]), n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.binomial(self.n, self.p, (replicates, 2))

    def _limits(self, pooled: NDArray[np.int64], alpha: float) -> tuple[Samples, Samples]:
        values, place = np.unique(pooled, return_inverse=True)
        limits = np.array([TwoCounts(alpha).accepted(int(value), self.n, self.n) for value in values])
        return limits[place, 0], limits[place, 1]

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        low, high = self._limits(samples.sum(axis=1), alpha)
        return (samples[:, 0] < low) | (samples[:, 0] > high)

    def judged(self, sample: Samples, alpha: float) -> bool:
        return TwoCounts(alpha).judge(int(sample[0]), self.n, int(sample[1]), self.n).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Over all pooled counts but 1e-13 of them, which count as false alarms."""
        low, high = binom.ppf(5e-14, 2 * self.n, self.p), binom.isf(5e-14, 2 * self.n, self.p)
        pooled = np.arange(int(low), int(high) + 1)
        least, most = self._limits(pooled, alpha)
        law = hypergeom(2 * self.n, pooled, self.n)
        wrong = law.cdf(least - 1) + law.sf(most)
        return TailProbability(1e-13 + float(binom.pmf(pooled, 2 * self.n, self.p) @ wrong))

    def detectable(self, alpha: float) -> float:
        return TwoCounts(alpha).detectable(self.p, self.n, self.n)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        other = min(1.0, self.p + distance)
        first, second = rng.binomial(self.n, self.p, replicates), rng.binomial(self.n, other, replicates)
        yield "more in the second", np.stack([first, second], axis=1)


class TwoSamplesExperiment:
    """Counts of all tokens in two samples of n draws each: (replicates, 2, V)."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = distribution.pmf, n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.multinomial(self.n, self.pmf, (replicates, 2))

    @cached_property
    def _expected(self) -> Array:
        """What a token of each pooled count adds to the expectation."""
        most = int(binom.isf(1e-9, 2 * self.n, min(1.0, self.pmf.max() + 0.5))) + 1
        rest = [np.array([count, 2 * self.n - count]) for count in range(most)]
        # Two tokens whose counts are c and N - c deviate by the same amount: half of their expectation belongs to each.
        return np.array([expected_variation_between(pooled, self.n) / 2 for pooled in rest])

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        variation = np.abs(samples[:, 0] - samples[:, 1]).sum(axis=1) / (2 * self.n)
        excess = variation - self._expected[samples.sum(axis=1)].sum(axis=1)
        return np.asarray(excess > TwoSamples(alpha).reach(self.n, self.n))

    def judged(self, sample: Samples, alpha: float) -> bool:
        return TwoSamples(alpha).judge(sample[0], sample[1]).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Given pooled counts as they are expected; the bound holds for each of them."""
        pooled = rng.multinomial(2 * self.n, self.pmf)
        expected, reach = expected_variation_between(pooled, self.n), TwoSamples(alpha).reach(self.n, self.n)
        theta = reach * self.n  # the right tilt of a Gaussian of variance 1 / n, to begin with
        return tail_probability(split_terms(pooled, self.n), self.n, expected + reach, theta, TILTED_DRAWS, rng)

    def detectable(self, alpha: float) -> float:
        return TwoSamples(alpha).detectable(len(self.pmf), self.n, self.n)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        for name, other in wrong_distributions(self.pmf, distance):
            first, second = (rng.multinomial(self.n, pmf, replicates) for pmf in (self.pmf, other))
            yield name, np.stack([first, second], axis=1)


class DistributionFunctionExperiment:
    """Ranks: the scalar of a token is its place, so that a sample is its counts (replicates, V)."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = distribution.pmf, n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.multinomial(self.n, self.pmf, replicates)

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        distance = np.abs(np.cumsum(samples, axis=1) / self.n - np.cumsum(self.pmf)).max(axis=1)
        return np.asarray(distance > self._bound(alpha))

    def _bound(self, alpha: float) -> float:
        places = np.arange(len(self.pmf), dtype=float)
        return DistributionFunction(alpha).judge(np.zeros(self.n), places, self.pmf).bound

    def judged(self, sample: Samples, alpha: float) -> bool:
        places = np.arange(len(self.pmf), dtype=float)
        return DistributionFunction(alpha).judge(np.repeat(places, sample), places, self.pmf).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Importance sampling from a mixture of tilts: each moves one half-line's mass by the bound, either way."""
        edges, bound = np.cumsum(self.pmf)[:-1], self._bound(alpha)
        tilts = [
            (place, sign) for place in range(len(edges)) for sign in (1, -1) if 0 < edges[place] + sign * bound < 1
        ]
        if not tilts:
            return TailProbability(0.0)
        below = np.array([edges[place] + sign * bound for place, sign in tilts])
        place = np.array([place for place, _ in tilts])
        samples = np.stack([self._tilted(rng, place[i], below[i]) for i in rng.integers(len(tilts), size=TILTED_DRAWS)])
        counts = np.cumsum(samples, axis=1)[:, place]
        log_ratio = counts * np.log(below / edges[place])
        log_ratio += (self.n - counts) * np.log((1 - below) / (1 - edges[place]))
        values = np.where(self.rejected(samples, alpha), np.exp(-np.logaddexp.reduce(log_ratio, axis=1)), 0.0)
        values = values * len(tilts)
        return TailProbability(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))

    def _tilted(self, rng: Rng, place: int, below: float) -> Samples:
        edge = self.pmf[: place + 1].sum()
        head, tail = self.pmf[: place + 1] * (below / edge), self.pmf[place + 1 :] * ((1 - below) / (1 - edge))
        return rng.multinomial(self.n, np.concatenate([head, tail]))

    def detectable(self, alpha: float) -> float:
        return DistributionFunction(alpha).detectable(self.n)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        """Mass moved across one place, whichever is nearest to the one half that is worst, up or down."""
        edges = np.cumsum(self.pmf)
        for name, middle in (("down", (1 - distance) / 2), ("up", (1 + distance) / 2)):
            place = int(np.abs(edges[:-1] - middle).argmin())
            early = np.arange(len(self.pmf)) <= place
            below = edges[place] + (distance if name == "down" else -distance)
            if 0 <= below <= 1:
                parts = np.where(early, below / edges[place], (1 - below) / (1 - edges[place]))
                wrong = self.pmf * parts
                yield f"mass moved {name}", rng.multinomial(self.n, wrong / wrong.sum(), replicates)
