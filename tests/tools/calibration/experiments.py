"""Each check as an experiment: draws under the true and under wrong distributions, judged a replicate at a time.

`rejected` is vectorised; `judged` asks the package's own `judge` about one replicate. The calibration compares the two.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from sampler.checks.conformance.draw.frequencies import consecutive
from sampler.statistics.binomial import Binomial
from sampler.statistics.judgement import detectable_leak
from sampler.statistics.multinomial import Multinomial
from tests.tools.calibration.distributions import Array, Distribution, wrong_distributions
from tests.tools.calibration.rates import TailProbability
from tests.tools.calibration.separable import tail_probability
from tests.tools.calibration.terms import multinomial_terms

Samples = NDArray[Any]
Rng = np.random.Generator
TILTED_DRAWS = 4_000


class Experiment(Protocol):
    """One check on one distribution with n draws; samples have the replicates along their first axis."""

    def draw(self, rng: Rng, replicates: int) -> Samples:
        """Samples of the true distribution."""

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        """Which replicates the check rejects."""

    def judged(self, sample: Samples, alpha: float) -> bool:
        """Whether the package's own function rejects one replicate."""

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Probability of a false alarm."""

    def detectable(self, alpha: float) -> float:
        """The discrepancy that the check announces."""

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        """Samples at exactly that discrepancy, by direction."""


class SupportExperiment:
    """A token that the distribution cannot draw stands last."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = np.append(distribution.pmf, 0.0), n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.multinomial(self.n, self.pmf, replicates)

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        return samples[:, -1] > 0

    def judged(self, sample: Samples, alpha: float) -> bool:
        return bool(sample[self.pmf == 0].any())

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        return TailProbability(0.0)

    def detectable(self, alpha: float) -> float:
        return detectable_leak(self.n)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        leaky = np.append(self.pmf[:-1] * (1 - distance), distance)
        yield "leak", rng.multinomial(self.n, leaky, replicates)


class BinomialExperiment:
    """The count of the likeliest token."""

    def __init__(self, distribution: Distribution, n: int):
        self.p, self.n = float(distribution.pmf[0]), n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.binomial(self.n, self.p, replicates)

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        low, high = Binomial(self.p, alpha).accepted(self.n)
        return (samples < low) | (samples > high)

    def judged(self, sample: Samples, alpha: float) -> bool:
        return Binomial(self.p, alpha).judge(int(sample), self.n).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        low, high = Binomial(self.p, alpha).accepted(self.n)
        return TailProbability(float(binom.cdf(low - 1, self.n, self.p) + binom.sf(high, self.n, self.p)))

    def detectable(self, alpha: float) -> float:
        return Binomial(self.p, alpha).detectable(self.n)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        for name, other in (("more", self.p + distance), ("less", self.p - distance)):
            if 0 <= other <= 1:
                yield name, rng.binomial(self.n, other, replicates)


class MultinomialExperiment:
    """Counts of all tokens."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = distribution.pmf, n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.multinomial(self.n, self.pmf, replicates)

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        low, high = Multinomial(self.pmf, alpha).accepted(self.n)
        variation = np.abs(samples / self.n - self.pmf).sum(axis=1) / 2
        return np.asarray((variation < low) | (variation > high))

    def judged(self, sample: Samples, alpha: float) -> bool:
        return Multinomial(self.pmf, alpha).judge(sample).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Both sides, each by importance sampling with the tilt that the check's own bound uses."""
        test, terms = Multinomial(self.pmf, alpha), multinomial_terms(self.n, self.pmf)
        sides = [
            tail_probability(terms, self.n, bound, tail.theta * self.n, TILTED_DRAWS, rng)
            for bound, tail in zip(test.accepted(self.n)[::-1], test.limits(self.n).tails, strict=True)
            if bound > 0
        ]
        error = float(np.sqrt(sum(side.standard_error**2 for side in sides)))
        return TailProbability(sum(side.value for side in sides), error)

    def detectable(self, alpha: float) -> float:
        return Multinomial(self.pmf, alpha).detectable(self.n)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        for name, other in wrong_distributions(self.pmf, distance):
            yield name, rng.multinomial(self.n, other, replicates)


class CoincidenceExperiment:
    """Pairs of draws that should know nothing of each other: (replicates, 2, pairs) tokens."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = distribution.pmf, n
        self.probability = float(self.pmf @ self.pmf)

    @property
    def pairs(self) -> int:
        """How many pairs n draws make."""
        raise NotImplementedError

    def pair(self, tokens: Samples) -> Samples:
        """Tokens as they were drawn -> (replicates, 2, pairs)."""
        raise NotImplementedError

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return self.pair(tokens_of(self.pmf, rng, (replicates, self.n)))

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        low, high = Binomial(self.probability, alpha).accepted(self.pairs)
        equal = (samples[:, 0] == samples[:, 1]).sum(axis=1)
        return np.asarray((equal < low) | (equal > high))

    def judged(self, sample: Samples, alpha: float) -> bool:
        return Binomial(self.probability, alpha).judge(int((sample[0] == sample[1]).sum()), self.pairs).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        low, high = Binomial(self.probability, alpha).accepted(self.pairs)
        below, above = binom.cdf(low - 1, self.pairs, self.probability), binom.sf(high, self.pairs, self.probability)
        return TailProbability(float(below + above))

    def detectable(self, alpha: float) -> float:
        return Binomial(self.probability, alpha).detectable(self.pairs)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        """The second draw repeats the first's noise now and then; or it avoids the first's token."""
        room = 1 - self.probability
        if distance <= room:
            samples = self.draw(rng, replicates)
            again = rng.random((replicates, self.pairs), dtype=np.float32) < distance / room
            samples[:, 1] = np.where(again, samples[:, 0], samples[:, 1])
            yield "reused noise", samples
        if distance <= self.probability:
            samples = self.draw(rng, replicates)
            avoid = rng.random((replicates, self.pairs), dtype=np.float32) < distance / self.probability
            avoid &= samples[:, 0] == samples[:, 1]
            samples[:, 1] = np.where(avoid, (samples[:, 1] + 1) % len(self.pmf), samples[:, 1])
            yield "stratified noise", samples


class ConsecutiveExperiment(CoincidenceExperiment):
    """Consecutive draws of one row."""

    @property
    def pairs(self) -> int:
        return self.n // 2

    def pair(self, tokens: Samples) -> Samples:
        return np.stack([part.reshape(len(tokens), -1) for part in consecutive(tokens.ravel())], axis=1)


class RowsExperiment(CoincidenceExperiment):
    """Two rows, or two seeds, at the same steps."""

    @property
    def pairs(self) -> int:
        return self.n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return tokens_of(self.pmf, rng, (replicates, 2, self.n))


def tokens_of(pmf: Array, rng: Rng, shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Draws by inversion of the distribution function, from uniforms of 53 bits."""
    edges = np.cumsum(pmf)[:-1]
    rows = [np.searchsorted(edges, rng.random(shape[1:]), side="right").astype(np.int16) for _ in range(shape[0])]
    return np.stack(rows)
