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
from sampler.statistics.scalar import DistributionFunction
from tests.tools.calibration.distributions import Array, Distribution, wrong_distributions
from tests.tools.calibration.rates import TailProbability
from tests.tools.calibration.separable import multinomial_terms, tail_probability

Samples = NDArray[Any]
Rng = np.random.Generator
TILTED_DRAWS = 4_000


class Experiment(Protocol):
    """One check on one distribution with n draws; samples have the replicates along their first axis.

    draw: samples of the true distribution. rejected: which replicates the check rejects; judged: whether the package's
    own function rejects one of them. tail: probability of a false alarm. detectable: the discrepancy that the check
    announces. wrong: samples at exactly that discrepancy, by direction.
    """

    def draw(self, rng: Rng, replicates: int) -> Samples: ...
    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]: ...
    def judged(self, sample: Samples, alpha: float) -> bool: ...
    def tail(self, alpha: float, rng: Rng) -> TailProbability: ...
    def detectable(self, alpha: float) -> float: ...
    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]: ...


class TokensExperiment:
    """Counts of all tokens: (replicates, V)."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = distribution.pmf, n

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.multinomial(self.n, self.pmf, replicates)


class SupportExperiment(TokensExperiment):
    """A token that the distribution cannot draw stands last."""

    def __init__(self, distribution: Distribution, n: int):
        super().__init__(distribution, n)
        self.pmf = np.append(self.pmf, 0.0)

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


class CountExperiment:
    """A count with a known probability in `trials` trials, judged by the exact binomial test."""

    def __init__(self, probability: float, trials: int):
        self.p, self.trials = probability, trials

    def count(self, samples: Samples) -> Samples:
        return samples

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        low, high = Binomial(self.p, alpha).accepted(self.trials)
        counts = self.count(samples)
        return np.asarray((counts < low) | (counts > high))

    def judged(self, sample: Samples, alpha: float) -> bool:
        return Binomial(self.p, alpha).judge(int(self.count(sample)), self.trials).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        low, high = Binomial(self.p, alpha).accepted(self.trials)
        return TailProbability(float(binom.cdf(low - 1, self.trials, self.p) + binom.sf(high, self.trials, self.p)))

    def detectable(self, alpha: float) -> float:
        return Binomial(self.p, alpha).detectable(self.trials)


class BinomialExperiment(CountExperiment):
    """The count of the likeliest token."""

    def __init__(self, distribution: Distribution, n: int):
        super().__init__(float(distribution.pmf[0]), n)

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return rng.binomial(self.trials, self.p, replicates)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        for name, other in (("more", self.p + distance), ("less", self.p - distance)):
            if 0 <= other <= 1:
                yield name, rng.binomial(self.trials, other, replicates)


class MultinomialExperiment(TokensExperiment):
    """The total variation of the counts."""

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


class DistributionFunctionExperiment(TokensExperiment):
    """Ranks: the scalar of a token is its place, so that a sample is its counts."""

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        distance = np.abs(np.cumsum(samples, axis=1) / self.n - np.cumsum(self.pmf)).max(axis=1)
        return np.asarray(distance > self._bound(alpha))

    def _bound(self, alpha: float) -> float:
        return self._judged(np.append(self.n, np.zeros(len(self.pmf) - 1, dtype=int)), alpha).bound

    def _judged(self, sample: Samples, alpha: float) -> Any:
        places = np.arange(len(self.pmf), dtype=float)
        return DistributionFunction(alpha).judge(np.repeat(places, sample), places, self.pmf)

    def judged(self, sample: Samples, alpha: float) -> bool:
        return self._judged(sample, alpha).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Importance sampling from a mixture of tilts: each moves one half-line's mass by the bound, either way."""
        edges, bound = np.cumsum(self.pmf)[:-1], self._bound(alpha)
        moved = [(place, edge + sign * bound) for place, edge in enumerate(edges) for sign in (1, -1)]
        tilts = [(place, below) for place, below in moved if 0 < below < 1]
        if not tilts:
            return TailProbability(0.0)
        place, below = (np.array(column) for column in zip(*tilts, strict=True))
        samples = np.stack([self._tilted(rng, *tilts[i]) for i in rng.integers(len(tilts), size=TILTED_DRAWS)])
        counts = np.cumsum(samples, axis=1)[:, place]
        log_ratio = counts * np.log(below / edges[place])
        log_ratio += (self.n - counts) * np.log((1 - below) / (1 - edges[place]))
        ratios = len(tilts) * np.exp(-np.logaddexp.reduce(log_ratio, axis=1))
        values = np.where(self.rejected(samples, alpha), ratios, 0.0)
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
                wrong = self.pmf * np.where(early, below / edges[place], (1 - below) / (1 - edges[place]))
                yield f"mass moved {name}", rng.multinomial(self.n, wrong / wrong.sum(), replicates)


class CoincidenceExperiment(CountExperiment):
    """Pairs of draws that should be independent: (replicates, 2, pairs) tokens."""

    def __init__(self, distribution: Distribution, n: int, pairs: int):
        super().__init__(float(distribution.pmf @ distribution.pmf), pairs)
        self.pmf, self.n = distribution.pmf, n

    def count(self, samples: Samples) -> Samples:
        return (samples[..., 0, :] == samples[..., 1, :]).sum(axis=-1)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        """The second draw repeats the first's noise now and then; or it avoids the first's token."""
        room = 1 - self.p
        if distance <= room:
            samples = self.draw(rng, replicates)
            again = rng.random((replicates, self.trials), dtype=np.float32) < distance / room
            samples[:, 1] = np.where(again, samples[:, 0], samples[:, 1])
            yield "reused noise", samples
        if distance <= self.p:
            samples = self.draw(rng, replicates)
            avoid = rng.random((replicates, self.trials), dtype=np.float32) < distance / self.p
            avoid &= samples[:, 0] == samples[:, 1]
            samples[:, 1] = np.where(avoid, (samples[:, 1] + 1) % len(self.pmf), samples[:, 1])
            yield "stratified noise", samples


class ConsecutiveExperiment(CoincidenceExperiment):
    """Consecutive draws of one row."""

    def __init__(self, distribution: Distribution, n: int):
        super().__init__(distribution, n, n // 2)

    def pair(self, tokens: Samples) -> Samples:
        """Tokens as they were drawn -> (replicates, 2, pairs)."""
        return np.stack([part.reshape(len(tokens), -1) for part in consecutive(tokens.ravel())], axis=1)

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return self.pair(tokens_of(self.pmf, rng, (replicates, self.n)))


class RowsExperiment(CoincidenceExperiment):
    """Two rows, or two seeds, at the same steps."""

    def __init__(self, distribution: Distribution, n: int):
        super().__init__(distribution, n, n)

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return tokens_of(self.pmf, rng, (replicates, 2, self.n))


def tokens_of(pmf: Array, rng: Rng, shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Draws by inversion of the distribution function, from uniforms of 53 bits."""
    edges = np.cumsum(pmf)[:-1]
    rows = [np.searchsorted(edges, rng.random(shape[1:]), side="right").astype(np.int16) for _ in range(shape[0])]
    return np.stack(rows)
