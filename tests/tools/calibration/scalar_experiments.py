"""The experiment whose statistic compares two distribution functions."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.scalar import DistributionFunction
from tests.tools.calibration.distributions import Distribution
from tests.tools.calibration.experiments import TILTED_DRAWS, Rng, Samples
from tests.tools.calibration.rates import TailProbability


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
