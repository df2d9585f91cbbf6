"""Bets on how tokens were drawn: evidence against one distribution a step that holds whenever one stops looking.

Under the null hypothesis token t is a draw from p_t, given everything before. A bet on another distribution q_t pays
f(x) = r(x) + 1 - sum p r with r = min(q / p, MOST), whose expectation under p is 1 exactly; staking a fraction of the
wealth multiplies it by 1 + fraction (f - 1). So the wealth, and the mean wealth of many bets, is a martingale, and it
ever reaches 1 / alpha with a probability of at most alpha (Ville 1939; Shafer 2021, "Testing by betting",
doi:10.1111/rssa.12647). Where rounding makes p uncertain, a bet is divided by its largest expectation under any
distribution that rounding may give: any within an error of each log-probability, or within a chi distance
(`sampler.statistics.chi`). Nothing here knows a model: distributions and tokens come from outside.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.statistics.chi import most_near
from sampler.statistics.judgement import MISS_RATE, Judgement, checked_rate
from sampler.statistics.thinned import Thinned

Array = NDArray[np.float64]

MOST = 50.0
"""The largest ratio that a bet pays, so that one token never decides alone."""

FRACTIONS = np.array([0.9, 0.3])
"""Staked parts of the wealth: below 1, so that no token ruins a bet."""

STAKES = np.array([0.03, 0.003])
"""Staked parts of the wealth in bets on rare events, which pay much."""

_POWERS = np.array([0.25, 0.5, 0.75])
"""Exponents of Chernoff's bound on the probability of a miss: multiples of the first."""

AT_ONCE = 16
"""Steps whose payoffs are computed together: few enough for a processor's cache."""

LEAST_ERROR = 1e-4
"""Errors of log-probabilities that are always allowed for, about ten times those of float32 chains."""


def payoffs(p: Array, q: Array) -> Array:
    """What bets on q (A, ..., K) pay for each of K tokens, which are all that p (..., K) can draw; expectation 1.

    q may sum to less than 1 over these tokens. Where p is 0, so must q be.
    """
    ratio = np.minimum(np.divide(q, p, out=np.zeros_like(q), where=p > 0), MOST)
    return np.asarray(ratio + 1 - (p * ratio).sum(axis=-1, keepdims=True))


def most_expected(p: Array, pays: Array, error: Array | float) -> Array:
    """The largest expectation of pays (A, ..., K) under any p' ~ p w with w from exp(-error) to exp(error); (A, ...).

    error: (..., K) or one number. The maximum of sum p w f / sum p w is reached where w is largest for the tokens that
    pay more than it and smallest for all others. Choosing w so for the ratio that the last choice gave raises the ratio
    until it is the maximum, after two or three rounds (Dinkelbach 1967, doi:10.1287/mnsc.13.7.492).
    """
    high, low = p * np.exp(error), p * np.exp(-error)
    most = (p * pays).sum(axis=-1) / p.sum(axis=-1)
    while True:
        weights = np.where(pays > most[..., None], high, low)
        higher = (weights * pays).sum(axis=-1) / weights.sum(axis=-1)
        if not (higher > most).any():
            return np.asarray(most)
        most = np.maximum(most, higher)


class Shares(NamedTuple):
    """How likely the tokens are that an alternative draws, (A, T) each or one number.

    own: that p can draw, among which q is normalised. unjudged: of others that may be right. The rest proves it wrong.
    """

    own: Array | float = 1.0
    unjudged: Array | float = 0.0


EVERYTHING = Shares()


@dataclass
class Bets:
    """The wealth of `count` bets, each with several fractions, and how surely each would have won.

    highs: the logarithm of the largest mean wealth that was ever reached, after each step. placed: steps of each bet.
    slack: nats by which the wealth begins below 1. rates: the largest probabilities of rare events; after the bets on
    distributions each of these has a bet that it comes more often. history: logarithms (count + 1,) of the wealth of
    each bet on a distribution and of the mean wealth after some of the steps, for pictures.
    """

    count: int
    slack: float = 0.0
    rates: tuple[float, ...] = ()
    highs: list[float] = field(default_factory=list)
    history: Thinned = field(default_factory=Thinned)
    placed: NDArray[np.int64] = field(init=False)
    _rare: float = 0.0
    logs: Array = field(init=False)
    _misses: Array = field(init=False)

    def __post_init__(self) -> None:
        self.logs = np.full((self.count + len(self.rates), len(FRACTIONS)), -self.slack)
        self.placed = np.zeros(len(self.logs), dtype=np.int64)
        self._misses = np.zeros((*self.logs.shape, len(_POWERS)))

    def place(
        self,
        p: Array,
        q: Array,
        drawn: int | NDArray[np.int64],
        error: Array | float = LEAST_ERROR,
        kappa: Array | float | None = None,
        *,
        shares: Shares = EVERYTHING,
        bets: Sequence[int] | None = None,
    ) -> None:
        """One step: the probabilities p (K,) > 0, those of the alternatives (A, K), the place of the drawn token.

        Or T steps in order: (T, K), (A, T, K), (T,); those of fewer tokens have p = q = 0 at their end. error: by how
        much rounding may change the logarithm of each probability, before they are normalised, as p or one number.
        kappa: (T,) or one number, in place of that the chi distance of what a right engine draws. shares: of what the
        alternatives draw. bets: the A that q is about, if not all; the others keep their wealth.
        """
        p, drawn = np.atleast_2d(p), np.atleast_1d(drawn)
        some = np.arange(self.count) if bets is None else np.asarray(bets, dtype=np.int64)
        q, error = q.reshape(len(some), *p.shape), np.broadcast_to(error, p.shape)
        kappa = None if kappa is None else np.broadcast_to(kappa, len(p))
        counts, gains = (p > 0).sum(axis=-1), np.zeros((self.count, len(FRACTIONS), len(p)))
        own, unjudged = (np.broadcast_to(share, q.shape[:2]) for share in shares)
        self.placed[some] += len(p)
        # Steps of about as many tokens at a time, so that few are empty.
        for rows in np.array_split(np.argsort(counts, kind="stable"), -(-len(p) // AT_ONCE)):
            real = slice(counts[rows].max())
            pays = payoffs(p[rows, real], q[:, rows, real])
            most = (
                most_expected(p[rows, real], pays, error[rows, real])
                if kappa is None
                else most_near(p[rows, real], pays, kappa[rows])
            )
            won, misses = _outcomes(q[:, rows, real], drawn[rows], pays, most)
            gains[some[:, None], :, rows] = won.transpose(0, 2, 1)
            with np.errstate(divide="ignore"):
                missed = own[:, None, rows, None] * misses + unjudged[:, None, rows, None]
                self._misses[some] += np.log(missed).sum(axis=2)
        logs = self.logs[: self.count, :, None] + np.cumsum(gains, axis=-1)
        self.logs[: self.count] = logs[..., -1]
        # Bets on rare events count for nothing until `happened` has the same steps.
        wealth = _mean_wealth(logs, self.logs.size)
        self.history.add(np.vstack([np.logaddexp.reduce(logs, axis=1) - math.log(len(FRACTIONS)), wealth]))
        self.highs += np.maximum(np.maximum.accumulate(wealth), self.highest).tolist()

    def happened(self, events: Sequence[int], steps: int) -> None:
        """How often each of the rare events came in so many steps, those of the last `place` among them.

        A bet pays 1 / rate or nothing, which has an expectation of at most 1 where the probability is at most the rate.
        """
        times, rates = np.array(events)[:, None], np.array(self.rates)[:, None]
        self.logs[self.count :] += times * np.log1p(STAKES * (1 / rates - 1)) + (steps - times) * np.log1p(-STAKES)
        self._rare = max(self._rare, self.wealth)
        if self.highs:
            self.highs[-1] = max(self.highs[-1], self._rare)

    @property
    def n(self) -> int:
        """The number of steps."""
        return len(self.highs)

    @property
    def highest(self) -> float:
        """The logarithm of the largest mean wealth, which was 1 at first, or less with a slack."""
        return max(self.highs[-1] if self.highs else 0.0, self._rare)

    @property
    def wealth(self) -> float:
        """The logarithm of the mean wealth of all bets now."""
        return float(_mean_wealth(self.logs, self.logs.size))

    @property
    def best(self) -> int:
        """The alternative with the largest wealth."""
        return int(self.logs.max(axis=-1).argmax())

    def judge(self, alpha: float) -> Judgement:
        """Rejected if the logarithm of the mean wealth ever exceeded ln(1 / alpha)."""
        return Judgement(self.highest, _bound(alpha), self.n, math.exp(-self.highest))

    def enough(self, alpha: float) -> int | None:
        """After how many steps it was rejected; None if it is not."""
        below = bisect_right(self.highs, _bound(alpha))
        return below + 1 if below < self.n else None

    def misses(self, alpha: float) -> Array:
        """For each alternative (A,) a bound on the probability that its own draws are not rejected.

        Chernoff's, for the histories that were seen: P(W < c) <= min over s of c^s E_q[W^-s], W the wealth of this one
        bet and c what it needs to lift the mean to 1 / alpha. Tokens that only q can draw count as seen at once.
        """
        if not self.n:
            return np.ones(len(self.logs))
        needed = self.slack + math.log(self.logs.size) + _bound(alpha)
        bounds = np.exp(np.minimum(self._misses + needed * _POWERS, 0.0)).min(axis=(-2, -1))
        return np.asarray(bounds)

    def needed(self, alpha: float, miss_rate: float = MISS_RATE) -> Array:
        """For each alternative (A,) how many steps like those that were seen it takes until `detected`, or inf."""
        needed = self.slack + math.log(self.logs.size) + _bound(alpha)
        a_step = -self._misses / np.maximum(self.placed, 1)[:, None, None]
        with np.errstate(divide="ignore"):
            steps = (needed * _POWERS - math.log(checked_rate("miss_rate", miss_rate))) / np.maximum(a_step, 0.0)
        return np.asarray(steps.min(axis=(-2, -1)))

    def detected(self, alpha: float, miss_rate: float = MISS_RATE) -> NDArray[np.bool_]:
        """Which alternatives would have been rejected with a probability of at least 1 - `miss_rate`: (A,)."""
        return np.asarray(self.misses(alpha) <= checked_rate("miss_rate", miss_rate))


def _bound(alpha: float) -> float:
    return -math.log(checked_rate("alpha", alpha))


def _outcomes(q: Array, drawn: NDArray[np.int64], pays: Array, most: Array) -> tuple[Array, Array]:
    """What T steps add to the logarithms of the wealth, (A, fractions, T), and E_q[W^-s] of each, (..., T, powers).

    most: the largest expectation of pays (A, T, K), (A, T).
    """
    stakes = FRACTIONS[:, None, None]
    most = np.maximum(most, 1.0)[:, None, :, None]
    won = (1 + stakes * (pays[:, None] - 1)) / (1 + stakes * (most - 1))
    gains = np.log(won[:, :, np.arange(len(drawn)), drawn])
    root = 1 / np.sqrt(np.sqrt(won))  # won ** -_POWERS[0], several times as fast
    weighted, misses = q[:, None] * root, []
    for _ in _POWERS:
        misses.append(weighted.sum(axis=-1))
        weighted *= root
    return gains, np.stack(misses, axis=-1)


def _mean_wealth(logs: Array, size: int) -> Array:
    """The logarithm of the mean wealth of `size` bets, of logarithms (A, fractions, ...); others have nothing."""
    largest = logs.max(axis=(0, 1))
    return np.asarray(largest + np.log(np.exp(logs - largest).sum(axis=(0, 1)) / size))
