"""Whether the tokens are those that win with the noise which the engine was given: for engines that take it.

Drawing is argmax(score + noise). On the reference's scores for the run's own earlier tokens another token wins only by
as much as the engine's scores are off, so that each step is judged, whatever the engine drew before. In float32 a token
that cannot have won is a proof. Let p' be what an engine of half precision draws, p the reference's distribution and
m the margin by which the reference's winner leads. Of independent exponential times, divided by p and by p',

    P(m > x) = 1 - sum_j p'_j / sum_i max(p'_i, e^-x p_i p'_j / p_j),

which is 0 where no log-probability is off by x / 2. So the class declares how many tokens are lost on logits that are
off by its edges (`Beyond.lost`), and bets that there are more are won by right engines with a probability of at most
alpha (`Bets.happened`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.bounds import Mask, seen_bounds
from sampler.checks.scoring.race import Race
from sampler.checks.scoring.tolerance import Tolerance
from sampler.checks.verdict import Finding
from sampler.engines.base import Explains
from sampler.requests import Steps
from sampler.statistics.bets import Bets

NoiseOf = Callable[[NDArray[np.int64], Mask], NDArray[np.float32]]
"""From the numbers of steps (T,) and the tokens that it is asked for (T, V) to Gumbel noise (T, V)."""

LIKELY = 3.0
"""Standard deviations that the number of winners of other noise stays within."""


class Lost(NamedTuple):
    """A token that cannot have won. winner: that of the reference; lead: in nats, inf if the token is removed."""

    run: str
    step: int
    token: int
    winner: int
    lead: float

    def __str__(self) -> str:
        margin = f"margin {self.lead:.2g} nats" if np.isfinite(self.lead) else "the chain removes the engine's"
        return f"token {self.step} of {self.run} should have been {self.winner} ({margin}), the engine has {self.token}"


@dataclass
class Margins:
    """The tokens of runs beside the winners with their noise.

    lost: those beyond the last edge of the tolerance. beyond: how many are beyond each edge, the narrowest first. won,
    expected, spread: how many are the reference's winner, how many would be with other noise, and the variance of that.
    proof: the number of tokens up to the first lost one.
    """

    alpha: float
    tolerance: Tolerance
    tokens: int = 0
    lost: list[Lost] = field(default_factory=list)
    proof: int | None = None
    won: int = 0
    expected: float = 0.0
    spread: float = 0.0
    beyond: NDArray[np.int64] = field(init=False)
    bets: Bets = field(init=False)

    def __post_init__(self) -> None:
        self.beyond = np.zeros(len(self.tolerance.edges), dtype=np.int64)
        self.bets = Bets(0, self.tolerance.slack, tuple(each.lost for each in self.tolerance.beyond))

    def add(self, run: str, noise: NoiseOf, steps: Steps, must: Mask, may: Mask, edges: Sequence[Explains]) -> None:
        """Further steps of a run. must, may: the bounds of the first of the references, which have the edges."""
        assert steps.context is not None  # noqa: S101 - teacher forcing counts its steps
        wanted, count = must.copy(), len(steps.tokens)
        wanted[np.arange(count), steps.tokens] = True
        left, lost = replace(steps, gumbel=noise(steps.context.step, wanted)), np.zeros(len(edges), dtype=np.int64)
        for place, reference in enumerate(edges):
            race = Race.of(reference, left, must, may)
            if not place:
                self._compare(race, left)
            rows = np.flatnonzero(race.lost)
            lost[place] = len(rows)
            if not len(rows):
                break
            winners, leads = race.best[rows].tolist(), race.gap[rows].tolist()
            left = left.only(rows.tolist())
            if place + 1 < len(edges):
                must, may = seen_bounds(edges[place + 1], left)
        if lost[-1]:
            assert left.context is not None  # noqa: S101 - as above
            found = zip(left.context.step.tolist(), left.tokens.tolist(), winners, leads, strict=True)
            self.lost += [Lost(run, *one) for one in found]
            if self.proof is None:
                self.proof = self.tokens + int(np.flatnonzero(steps.context.step == self.lost[0].step)[0]) + 1
        self.tokens += count
        self.beyond += lost
        if self.tolerance.beyond:
            self.bets.happened(lost[:-1].tolist(), count)

    def _compare(self, race: Race, steps: Steps) -> None:
        self.won += int((race.best == steps.tokens).sum())
        self.expected += float(race.chance.sum())
        self.spread += float((race.chance * (1 - race.chance)).sum())

    @property
    def other_noise(self) -> bool:
        """Whether no more tokens are the winners than with other noise."""
        return self.won <= self.expected + LIKELY * math.sqrt(self.spread)

    def finding(self) -> Finding:
        judged = self.bets.judge(self.alpha)
        figures: dict[str, Any] = {"statistic": len(self.lost), "bound": 0}
        if self.lost:
            figures["p_value"] = 0.0
        elif self.tolerance.beyond:
            figures = {"statistic": judged.statistic, "bound": judged.bound, "p_value": judged.p_value}
        if self.tolerance.beyond:
            figures["alpha"] = self.alpha
        shares = ", ".join(
            f"{count / max(1, self.tokens):.2g} on logits {each.edge:g} nats off (at most {each.lost:g} may)"
            for count, each in zip(self.beyond.tolist(), self.tolerance.beyond, strict=False)
        )
        note = f"{self.tolerance.note}; a share of {shares}" if shares else ""
        if not (self.lost or judged.rejected):
            message = f"with the suite's noise each of the {self.tokens:,} tokens can have won{note}"
            return Finding("generate", "draw", "passed", self.tokens, message, **figures)
        first = f"with the suite's noise {self.lost[0]}; " if self.lost else "with the suite's noise "
        message = f"{first}{len(self.lost)} of {self.tokens:,} tokens cannot have won{note}"
        if self.other_noise:
            message += f"; no more are the winners than with other noise ({self.won:,})"
        stage = "seed" if self.other_noise else "draw"
        return Finding("generate", stage, "failed", self.tokens, message, **figures)
