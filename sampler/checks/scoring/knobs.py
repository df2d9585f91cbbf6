"""Sampling parameters estimated from tokens alone: what an engine did, whatever it was asked for.

By maximum likelihood over the chain cfg, penalty, temperature, edge of min_p. Where the edge lies depends on guidance
and penalty, so that the likelihood jumps as they change. It is therefore fitted twice: with a soft edge, for a first
estimate; and given that each token is one that every plausible value of the parameters keeps. This conditional
likelihood is smooth and knows no edge, and its intervals are ordinary ones. The edge comes last (edge.py).

Each interval holds the truth in 95 % of all cases, so that one of five excludes it more often: they explain a verdict,
and are none. Rules that an engine declares (engines/rules.py) are not regarded.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from sampler.checks.scoring.candidates import PENALTY, TEMPERATURE, WEIGHT, Candidates, asked_values
from sampler.checks.scoring.edge import Edge, edge_of
from sampler.checks.scoring.likelihood import Fit, Likelihood
from sampler.config import SamplingConfig
from sampler.requests import Steps
from sampler.stages import OPTIONAL_STAGES

Array = NDArray[np.float64]

LIMITS = np.array([[-5.0, math.log(0.25), math.log(0.02)], [5.0, math.log(4), math.log(50)]])
"""The least and largest values, (2, 3)."""

NAMES = {WEIGHT: "CFG weight", PENALTY: "penalty", TEMPERATURE: "temperature"}

SOFTNESS = (0.4, 0.1)
"""Nats over which the soft edge falls, in turn."""

FIRST_STEPS = 500
"""Steps from which the first estimate comes."""

EDGE = len(NAMES)
"""The place of the soft edge in the values of the first fit."""

REFINED = 2
"""How often the tokens that are surely kept are chosen anew."""

PLAUSIBLE = 3.5
"""Standard errors around an estimate."""


@dataclass(frozen=True)
class Knob:
    """A parameter: what was asked for, the likeliest value and a 95 % interval, whose ends may be infinite.

    An edge of infinity is none.
    """

    name: str
    asked: float
    estimate: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval excludes what was asked for."""
        return not self.low <= self.asked <= self.high

    @property
    def range(self) -> str:
        """The interval in words: `temperature 0.72 to 0.78`."""
        low, high = f"{self.low:.2f}", f"{self.high:.2f}"
        if self.low in (-math.inf, 0) or self.high == math.inf:
            return f"{self.name} below {high}" if self.high < math.inf else f"{self.name} above {low}"
        return f"{self.name} {low}" if low == high else f"{self.name} {low} to {high}"

    def __str__(self) -> str:
        return f"{self.range} (asked {_asked(self)})"


def _asked(knob: Knob) -> str:
    return f"{knob.asked:.3g}" if math.isfinite(knob.asked) else "for none"


def differing(knobs: Iterable[Knob]) -> tuple[Knob, ...]:
    """Those whose interval excludes what was asked for."""
    return tuple(knob for knob in knobs if knob.differs)


def difference(knobs: Iterable[Knob]) -> str:
    """Them in one sentence: `temperature 0.72 to 0.78, penalty 1.00; asked 0.8 and 1.2`. Empty if none differs."""
    found = differing(knobs)
    if not found:
        return ""
    *first, last = map(_asked, found)
    asked = f"{', '.join(first)} and {last}" if first else last
    return f"{', '.join(knob.range for knob in found)}; asked {asked}"


def estimated(config: SamplingConfig, runs: Iterable[Steps]) -> tuple[Knob, ...]:
    """CFG weight, penalty, temperature, edge and the temperature that it gives: those that the tokens tell of.

    config: what the runs were asked for; top_k and top_p are taken as it says. runs: steps with tokens, in any parts.
    Without unconditional logits there is no CFG weight, and of temperature 0 no edge; of a chain with an optional stage
    nothing is estimated.
    """
    candidates = None if config.active_stages() & set(OPTIONAL_STAGES) else Candidates.of(config, runs)
    if candidates is None:
        return ()
    told = {WEIGHT: candidates.guidance.any(), PENALTY: candidates.seen.any(), TEMPERATURE: True}
    free = [place for place, on in told.items() if on]
    fit = _first(candidates, free)
    for _ in range(REFINED):
        some = _surely_kept(candidates, fit, free) if fit else candidates
        if fit is None or not len(some):
            return ()
        likelihood = Likelihood(some, _Energies(some), LIMITS)
        fit = likelihood.fit(fit.values[: len(NAMES)], free)
    assert fit is not None  # noqa: S101 - for the type
    edge = None if config.greedy else edge_of(candidates, fit, free)
    return (*_smooth(config, likelihood, fit, free), *(_of_edge(config, edge) if edge else ()))


@dataclass(frozen=True, eq=False)
class _Energies:
    """Scores over the temperature, (K,). softness: of the edge at values[3], in nats; 0 for none."""

    candidates: Candidates
    softness: float = 0.0

    def __call__(self, values: Array) -> Array:
        temperature = np.exp(values[TEMPERATURE])
        if not self.softness:
            return np.asarray(self.candidates.scores(values) / temperature)
        scores, depths = self.candidates.scores_and_depths(values)
        return np.asarray(scores / temperature + log_expit((values[EDGE] - depths) / self.softness))


def _first(candidates: Candidates, free: Sequence[int]) -> Fit | None:
    """The fit with a soft edge, of which every step counts that top_k and top_p as asked explain; None without one."""
    asked = np.clip(asked_values(candidates.config), *LIMITS)
    some = candidates.even(FIRST_STEPS)
    some = some.among(some.likely & some.kept(asked, np.inf))
    if not len(some):
        return None
    limits = np.column_stack([LIMITS, [0.01, 1e3]])
    values = np.array([*asked, some.deepest(asked)])
    for softness in SOFTNESS:
        fit = Likelihood(some, _Energies(some, softness), limits).fit(values, [*free, EDGE], enough=0.01)
        values = fit.values
    return fit


def _surely_kept(candidates: Candidates, fit: Fit, free: Sequence[int]) -> Candidates:
    """The tokens that every plausible value keeps, and the steps at which one of them was drawn.

    A token that for the true values is no deeper than the deepest drawn one lies within the true edge, wherever it is.
    """
    kept = candidates.likely.copy()
    for move in product(*((-PLAUSIBLE, 0.0, PLAUSIBLE) if place in free else (0.0,) for place in NAMES)):
        values = np.clip(fit.values[: len(NAMES)] + np.array(move) * fit.errors[: len(NAMES)], *LIMITS)
        kept &= candidates.kept(values, candidates.deepest(values))
    return candidates.among(kept)


def _smooth(config: SamplingConfig, likelihood: Likelihood, fit: Fit, free: Sequence[int]) -> Iterator[Knob]:
    """Guidance, penalty and temperature, without those of which the tokens tell nothing."""
    for place in free:
        ends = np.array(likelihood.interval(fit, free, place))
        open_ends = np.isclose(ends, LIMITS[:, place])
        if open_ends.all():
            continue
        of = np.asarray if place == WEIGHT else np.exp
        low, high = np.where(open_ends, [-math.inf if place == WEIGHT else 0.0, math.inf], of(ends)).tolist()
        yield Knob(NAMES[place], _asked_of(config, place), float(of(fit.values[place])), low, high)


def _asked_of(config: SamplingConfig, place: int) -> float:
    if place == TEMPERATURE and config.greedy:
        return 0.0
    value = float(asked_values(config)[place])
    return value if place == WEIGHT else round(math.exp(value), 12)


def _of_edge(config: SamplingConfig, edge: Edge) -> Iterator[Knob]:
    """The edge, and the temperature that it gives if min_p comes behind it."""
    on, order = "min_p" in config.active_stages(), config.order
    behind = on and "temperature" in order[: order.index("min_p")]
    nats = -math.log(config.min_p) if on else math.inf
    asked = nats * config.temperature if behind else nats
    yield Knob("edge of the support", asked, *edge)
    if behind and math.isfinite(edge.high):
        yield Knob("temperature by the edge", config.temperature, *(value / nats for value in edge))
