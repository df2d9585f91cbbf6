"""Bets on how tokens were drawn (sampler/statistics/bets.py) as an experiment: tokens in order, judged at every one."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.alternatives import TILTS
from sampler.checks.scoring.memory import Past, Pasts, Step
from sampler.statistics.bets import Bets
from tests.tools.calibration.distributions import Array, Distribution
from tests.tools.calibration.experiments import TILTED_DRAWS, Rng, Samples, tokens_of
from tests.tools.calibration.rates import TailProbability

FACTORS = (0.5, 0.8, 1.25, 2.0)
STEADY = ("likely tokens too often", "rare tokens too often", "the likeliest token in place of one draw in ten")
AT_ONCE = 500
"""Replicates whose wealth is followed at a time."""


class BetsExperiment:
    """Tokens (replicates, n) of one distribution; the bets are on other temperatures and on other ranks."""

    def __init__(self, distribution: Distribution, n: int):
        self.pmf, self.n = distribution.pmf, n
        size = len(self.pmf)
        step = Step(np.arange(size)[None], self.pmf[None], np.zeros((1, size), dtype=np.bool_))
        nothing = Past.of(step)
        self.others = {f"temperature x {factor:g}": _tempered(self.pmf, factor) for factor in FACTORS}
        self.others |= {
            named.text: tilt(step, Pasts(nothing, nothing, nothing))[0] for named, tilt in TILTS if named.text in STEADY
        }
        self._q = np.array(list(self.others.values()))

    @cached_property
    def _gains(self) -> Array:
        """What each token adds to the logarithm of each wealth, (tokens, bets)."""
        return np.array([self._bets([token]).logs.ravel() for token in range(len(self.pmf))])

    def _bets(self, tokens: list[int]) -> Bets:
        bets = Bets(len(self._q))
        for token in tokens:
            bets.place(self.pmf, self._q, token)
        return bets

    def draw(self, rng: Rng, replicates: int) -> Samples:
        return tokens_of(self.pmf, rng, (replicates, self.n))

    def rejected(self, samples: Samples, alpha: float) -> NDArray[np.bool_]:
        parts = [samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE)]
        highest = [_mean_wealth(self._gains[part]).max(axis=1) for part in parts]
        return np.concatenate(highest) >= -np.log(alpha)

    def judged(self, sample: Samples, alpha: float) -> bool:
        return self._bets(sample.tolist()).judge(alpha).rejected

    def tail(self, alpha: float, rng: Rng) -> TailProbability:
        """Sampled from the law whose likelihood ratio is the mean wealth; each crossing has the weight 1 / wealth."""
        laws = self.pmf[:, None] * np.exp(self._gains)
        gains = self._gains - np.log(laws.sum(axis=0))
        weights = []
        for bet in range(gains.shape[1]):
            tokens = tokens_of(laws[:, bet] / laws[:, bet].sum(), rng, (TILTED_DRAWS // gains.shape[1] + 1, self.n))
            over = _mean_wealth(self._gains[tokens]) >= -np.log(alpha)
            first = over.argmax(axis=1)[:, None]
            wealth = np.take_along_axis(_mean_wealth(gains[tokens]), first, axis=1)[:, 0]
            weights.append(np.where(over.any(axis=1), np.exp(-wealth), 0.0))
        found = np.concatenate(weights)
        return TailProbability(float(found.mean()), float(found.std() / len(found) ** 0.5))

    def detectable(self, alpha: float) -> float:
        """The smallest total variation of the alternatives that are missed with at most 1 %; 1 if there is none."""
        seen = self._bets([0] * self.n).detected(alpha)
        return min((self._distance(q) for q, found in zip(self._q, seen, strict=True) if found), default=1.0)

    def wrong(self, distance: float, rng: Rng, replicates: int) -> Iterator[tuple[str, Samples]]:
        for name, q in self.others.items():
            if abs(self._distance(q) - distance) < 1e-12:
                yield name, tokens_of(q, rng, (replicates, self.n))

    def _distance(self, q: Array) -> float:
        return float(np.abs(q - self.pmf).sum() / 2)


def _tempered(pmf: Array, factor: float) -> Array:
    q = pmf ** (1 / factor)
    return np.asarray(q / q.sum())


def _mean_wealth(gains: Array) -> Array:
    """The logarithm of the mean wealth after each token, (replicates, n), of gains (replicates, n, bets)."""
    logs = np.cumsum(gains, axis=1)
    largest = logs.max(axis=-1, keepdims=True)
    return np.asarray((largest + np.log(np.exp(logs - largest).mean(axis=-1, keepdims=True)))[..., 0])
