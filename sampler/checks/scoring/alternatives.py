"""What an engine may do otherwise when it draws: distributions of the next token that bets are placed on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.checks.scoring.named import Named
from sampler.config import CfgConvention, SamplingConfig
from sampler.stages import Stage

Array = NDArray[np.float64]

FACTORS = (1.25, 1.5, 2.0)
"""By how much a temperature may be wrong, up and down."""

LIFTS = (1.0, 2.0, 4.0)
"""Nats by which EOS may be lifted or lowered."""

BINS = 64
"""Parts of the unit interval in which uniform numbers are counted."""


def other_configs(config: SamplingConfig) -> Iterator[tuple[Named, SamplingConfig]]:
    """The same chain with another value of one parameter."""
    on = config.active_stages()
    if "temperature" in config.order:
        for factor in FACTORS:
            for size in (1 / factor, factor):
                other = config.temperature * size
                named = Named("temperature", f"a temperature of {other:.3g}", "temperature", size)
                yield named, replace(config, temperature=other)
    if "repetition_penalty" in config.order:
        own = config.repetition_penalty
        for value in (1.0, own**0.5, own**2, own**3) if own != 1 else (1.1, 1.3):
            named = Named("repetition_penalty", f"a penalty of {value:.3g}")
            yield named, replace(config, repetition_penalty=float(value))
    if "cfg" in on:
        for weight in (0.0, config.cfg_weight / 2, config.cfg_weight * 2):
            yield Named("cfg", f"a guidance weight of {weight:.3g}"), replace(config, cfg_weight=weight)
        swapped: CfgConvention = "unconditional" if config.cfg_convention == "conditional" else "conditional"
        yield Named("cfg", f"guidance of the {swapped} convention"), replace(config, cfg_convention=swapped)
    if "temperature" in config.order and on & {"top_k", "top_p", "min_p"}:
        last = (*(stage for stage in config.order if stage != "temperature"), "temperature")
        yield Named("order", "the temperature after the filters"), replace(config, order=last)
    yield from _filters(config, {"top_p": (0.8, 0.6), "min_p": (2, 5), "top_k": (0.25,)})


def looser_configs(config: SamplingConfig) -> Iterator[tuple[Named, SamplingConfig]]:
    """The same chain with a filter that keeps more, or without one stage: among allowed tokens nothing is different."""
    yield from _filters(config, {"top_p": (1.1, 1.2), "min_p": (0.5, 0.2), "top_k": (2, 4)})
    for stage in sorted(config.active_stages()):
        yield Named(stage, f"no {stage}"), config.without([stage])


def _filters(
    config: SamplingConfig, factors: Mapping[Stage, Sequence[float]]
) -> Iterator[tuple[Named, SamplingConfig]]:
    for stage in (stage for stage in factors if stage in config.active_stages()):
        for factor in factors[stage]:
            own = factor * getattr(config, stage)
            changed: dict[str, Any] = {stage: max(1, int(own)) if stage == "top_k" else min(own, 1.0)}
            yield Named(stage, f"a {stage} of {changed[stage]:.3g}"), replace(config, **changed)


@dataclass
class Memory:
    """What the tokens so far say of the noise. drawn, expected: by id, how often it came and should have come.

    by_rank, by_id: how often the uniform number that an inverted distribution function takes lay in each bin, tokens in
    the order of their probability or of their ids.
    """

    drawn: dict[int, float] = field(default_factory=dict)
    expected: dict[int, float] = field(default_factory=dict)
    by_rank: Array = field(default_factory=lambda: np.zeros(BINS))
    by_id: Array = field(default_factory=lambda: np.zeros(BINS))

    def learn(self, step: "Step", drawn: int) -> None:
        ids = step.ids.tolist()
        self.drawn[ids[drawn]] = self.drawn.get(ids[drawn], 0.0) + 1
        for token, share in zip(ids, step.p.tolist(), strict=True):
            self.expected[token] = self.expected.get(token, 0.0) + share
        self.by_rank = self.by_rank + step.landed(step.rank_edges, drawn)
        self.by_id = self.by_id + step.landed(step.id_edges, drawn)

    def counts(self, step: "Step") -> tuple[Array, Array]:
        """How often each token of a step (K,) came so far, and should have come."""
        drawn, expected = (
            [kept.get(token, 0.0) for token in step.ids.tolist()] for kept in (self.drawn, self.expected)
        )
        return np.array(drawn), np.array(expected)


@dataclass
class Memories:
    """run: of this run. runs: of the same step of earlier runs. cell: of every step of every run."""

    run: Memory = field(default_factory=Memory)
    runs: Memory = field(default_factory=Memory)
    cell: Memory = field(default_factory=Memory)

    def learn(self, step: "Step", drawn: int) -> None:
        for memory in (self.run, self.runs, self.cell):
            memory.learn(step, drawn)


@dataclass(frozen=True)
class Step:
    """The tokens that one step can draw: ids (K,) in ascending order, p (K,), and which of them is EOS.

    error: by how much rounding may change the logarithms of p, (K,) or one number.
    """

    ids: NDArray[np.int64]
    p: Array
    is_eos: NDArray[np.bool_]
    error: Array | float = 0.0

    @cached_property
    def id_edges(self) -> tuple[Array, Array]:
        """Where the interval of each token begins and ends, tokens in the order of their ids: two (K,)."""
        ends = np.cumsum(self.p)
        return ends - self.p, ends

    @cached_property
    def rank_edges(self) -> tuple[Array, Array]:
        """The same, the likeliest token first."""
        order = np.argsort(-self.p, kind="stable")
        ends = np.empty_like(self.p)
        ends[order] = np.cumsum(self.p[order])
        return ends - self.p, ends

    def landed(self, edges: tuple[Array, Array], drawn: int) -> Array:
        """For each bin the probability that the uniform number of a drawn token lay in it: (BINS,)."""
        begin, end = (edge[drawn : drawn + 1] for edge in edges)
        return np.asarray(_shares(begin, end)[0] / self.p[drawn])

    def shares(self, edges: tuple[Array, Array]) -> Array:
        """How much of each token's interval lies in each bin: (K, BINS)."""
        return _shares(*edges)


def _shares(begin: Array, end: Array) -> Array:
    borders = np.arange(BINS + 1) / BINS
    low, high = begin[:, None], end[:, None]
    return np.asarray(np.maximum(np.minimum(high, borders[1:]) - np.maximum(low, borders[:-1]), 0.0))


def _tilted(p: Array, by: Array) -> Array:
    q = p * np.exp(by)
    return np.asarray(q / q.sum())


def _density(step: Step, edges: tuple[Array, Array], seen: Array, prior: float) -> Array:
    """The probabilities if uniform numbers come where they came before: (K,)."""
    density = (prior + seen) * BINS / (BINS * prior + seen.sum())
    q = step.shares(edges) @ density
    return np.asarray(q / q.sum())


Tilt = Callable[[Step, Memories], Array]
"""From a step and what came before it to probabilities (K,)."""


def _surplus(memory: Memory, step: Step) -> Array:
    drawn, expected = memory.counts(step)
    return np.asarray(np.clip(drawn - expected, -3, 3))


def _other_odds(step: Step, before: Memories) -> Array:
    """Each token as much more or less likely as it was so far."""
    drawn, expected = before.cell.counts(step)
    return _tilted(step.p, np.log((drawn + 2) / (expected + 2)))


def _ranked(power: int, edges: Callable[[Step], tuple[Array, Array]], *, low: bool) -> Tilt:
    """The uniform number has the density of the smallest or the largest of `power` uniform ones."""

    def tilt(step: Step, before: Memories) -> Array:  # noqa: ARG001
        begin, end = (np.clip(edge, 0, 1) for edge in edges(step))
        q = (1 - begin) ** power - (1 - end) ** power if low else end**power - begin**power
        return np.asarray(q / q.sum())

    return tilt


def _lift(size: float) -> Tilt:
    return lambda step, before: _tilted(step.p, size * step.is_eos.astype(np.float64))


def _sometimes_best(step: Step, before: Memories) -> Array:  # noqa: ARG001
    return np.asarray(0.9 * step.p + 0.1 * (np.arange(len(step.p)) == step.p.argmax()))


TILTS: tuple[tuple[Named, Tilt], ...] = (
    *(
        (Named("stop", f"EOS {'lifted' if size > 0 else 'lowered'} by {abs(size):g} nats", "EOS", size), _lift(size))
        for lift in LIFTS
        for size in (-lift, lift)
    ),
    (Named("draw", "likely tokens too often"), _ranked(2, lambda step: step.rank_edges, low=True)),
    (Named("draw", "rare tokens too often"), _ranked(2, lambda step: step.rank_edges, low=False)),
    (Named("draw", "low ids too often"), _ranked(2, lambda step: step.id_edges, low=True)),
    (Named("draw", "high ids too often"), _ranked(2, lambda step: step.id_edges, low=False)),
    (Named("draw", "the likeliest token in place of one draw in ten"), _sometimes_best),
    (Named("draw", "other odds of the tokens that came too often or too rarely before"), _other_odds),
    (Named("draw", "the noise of the steps before"), lambda step, before: _tilted(step.p, _surplus(before.run, step))),
    (
        Named("seed", "the noise of other requests"),
        lambda step, before: _tilted(step.p, 2 * _surplus(before.runs, step)),
    ),
    (
        Named("draw", "the uniform numbers of the steps before"),
        lambda step, before: _density(step, step.rank_edges, before.run.by_rank, 0.5),
    ),
    (
        Named("draw", "the uniform numbers of the steps before, by id"),
        lambda step, before: _density(step, step.id_edges, before.run.by_id, 0.5),
    ),
    (
        Named("seed", "the uniform numbers of other requests"),
        lambda step, before: _density(step, step.rank_edges, before.runs.by_rank, 1 / BINS),
    ),
    (
        Named("seed", "the uniform numbers of other requests, by id"),
        lambda step, before: _density(step, step.id_edges, before.runs.by_id, 1 / BINS),
    ),
)
"""Alternatives that need no other chain: they tilt the probabilities of the tokens that may be drawn."""
