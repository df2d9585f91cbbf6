"""Bets on how tokens were drawn: evidence against one distribution a step that holds whenever one stops looking.

Under the null hypothesis token t is a draw from p_t, given everything before. A bet on another distribution q_t pays
f(x) = r(x) + 1 - sum p r with r = min(q / p, MOST), whose expectation under p is 1 exactly; staking a fraction of the
wealth multiplies it by 1 + fraction (f - 1). So the wealth, and the mean wealth of many bets, is a martingale, and it
ever reaches 1 / alpha with a probability of at most alpha (Ville 1939; Shafer 2021, "Testing by betting",
doi:10.1111/rssa.12647). Where rounding makes p uncertain, a bet is divided by its largest expectation under any
distribution that rounding may give. Nothing here knows a model: distributions and tokens come from outside.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate

Array = NDArray[np.float64]

MOST = 50.0
"""The largest ratio that a bet pays, so that one token never decides alone."""

FRACTIONS = np.array([0.9, 0.3])
"""Staked parts of the wealth: below 1, so that no token ruins a bet."""

_POWERS = np.array([0.25, 0.5, 0.75])
"""Exponents of Chernoff's bound on the probability of a miss: multiples of the first."""

LEAST_ERROR = 1e-4
"""Errors of log-probabilities that are always allowed for, about ten times those of float32 chains."""


def payoffs(p: Array, q: Array) -> Array:
    """What bets on q (A, K) pay for each of K tokens, which are all that p (K,) can draw; (A, K), expectation 1.

    q may sum to less than 1 over these tokens.
    """
    ratio = np.minimum(q / p, MOST)
    return np.asarray(ratio + 1 - (p * ratio).sum(axis=-1, keepdims=True))


def most_expected(p: Array, pays: Array, error: Array | float) -> Array:
    """The largest expectation of pays (A, K) under any p' ~ p w with w from exp(-error) to exp(error); (A,).

    error: (K,) or one number. The maximum of sum p w f / sum p w is reached where w is largest for the tokens that pay
    most and smallest for all others, so each of the K places to divide them is tried.
    """
    order = np.argsort(-pays, axis=-1)
    paid = np.take_along_axis(pays, order, axis=-1)
    high, low = (np.broadcast_to(p * np.exp(sign * error), p.shape)[order] for sign in (1.0, -1.0))
    gained = np.cumsum((high - low) * paid, axis=-1) + (low * paid).sum(axis=-1, keepdims=True)
    mass = np.cumsum(high - low, axis=-1) + low.sum(axis=-1, keepdims=True)
    return np.asarray((gained / mass).max(axis=-1))


@dataclass
class Bets:
    """The wealth of `count` bets, each with several fractions, and how surely each would have won."""

    count: int
    n: int = 0
    highest: float = 0.0
    logs: Array = field(init=False)
    _misses: Array = field(init=False)

    def __post_init__(self) -> None:
        self.logs = np.zeros((self.count, len(FRACTIONS)))
        self._misses = np.zeros((self.count, len(FRACTIONS), len(_POWERS)))

    def place(self, p: Array, q: Array, drawn: int, error: Array | float = LEAST_ERROR) -> None:
        """One step: the probabilities p (K,) > 0, those of the alternatives (A, K), the place of the drawn token.

        error: by how much rounding may change the logarithm of each probability, before they are normalised.
        """
        pays = payoffs(p, q)
        won = 1 + FRACTIONS[None, :, None] * (pays[:, None, :] - 1)
        most = np.maximum(most_expected(p, pays, error), 1.0)
        won /= (1 + FRACTIONS * (most[:, None] - 1))[..., None]
        self.n += 1
        self.logs += np.log(won[..., drawn])
        root = won ** -_POWERS[0]
        powers, factor = np.empty(self._misses.shape), np.ones_like(root)
        for place in range(len(_POWERS)):
            factor *= root
            powers[..., place] = (q[:, None, :] * factor).sum(axis=-1)
        with np.errstate(divide="ignore"):
            self._misses += np.log(powers)
        self.highest = max(self.highest, self.wealth)

    @property
    def wealth(self) -> float:
        """The logarithm of the mean wealth of all bets now."""
        largest = self.logs.max()
        return float(largest + np.log(np.exp(self.logs - largest).mean()))

    @property
    def best(self) -> int:
        """The alternative with the largest wealth."""
        return int(self.logs.max(axis=-1).argmax())

    def judge(self, alpha: float) -> Judgement:
        """Rejected if the logarithm of the mean wealth ever exceeded ln(1 / alpha)."""
        bound = -math.log(checked_rate("alpha", alpha))
        return Judgement(self.highest, bound, self.n, math.exp(-self.highest))

    def misses(self, alpha: float) -> Array:
        """For each alternative (A,) a bound on the probability that its own draws are not rejected.

        Chernoff's, for the histories that were seen: P(W < c) <= min over s of c^s E_q[W^-s], W the wealth of this one
        bet and c what it needs to lift the mean to 1 / alpha. Tokens that only q can draw count as seen at once.
        """
        if not self.n:
            return np.ones(self.count)
        needed = math.log(self.logs.size) - math.log(checked_rate("alpha", alpha))
        bounds = np.exp(np.minimum(self._misses + needed * _POWERS, 0.0)).min(axis=(-2, -1))
        return np.asarray(bounds)

    def detected(self, alpha: float, miss_rate: float = MISS_RATE) -> NDArray[np.bool_]:
        """Which alternatives would have been rejected with a probability of at least 1 - `miss_rate`: (A,)."""
        return np.asarray(self.misses(alpha) <= checked_rate("miss_rate", miss_rate))
