"""What a chain is tested with: each stage alone, then pairs, then whole chains and orders."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sampler.checks.conformance.optional_sets import optional_cells
from sampler.checks.conformance.pairs import greedy_cells, pair_cells
from sampler.checks.conformance.probes import Maker, Probe, ProbeSet, label
from sampler.checks.conformance.rows import FAR, FEW_KINDS, FINITE, KINDS
from sampler.checks.conformance.settings import ALL_ON, CHAINS, EXTREME, NEUTRAL, ORDERS, PAIRED, SCALED, SINGLE
from sampler.config import SamplingConfig
from sampler.stages import ALL_STAGES, STAGES, Stage

STEEP = 20.0
"""A penalty from here on, and a temperature up to its reciprocal, would move low scores to where masks may be."""


@functools.lru_cache(maxsize=2)
def all_cells(seed: int) -> tuple[ProbeSet, ...]:
    """Every cell of level `process`, in the order in which they run."""
    return (
        _nothing(seed),
        *_alone(seed),
        *_pairs(seed),
        *_chains(seed),
        *_orders(seed),
        *optional_cells(seed),
        *greedy_cells(seed),
        *pair_cells(seed),
    )


def _nothing(seed: int) -> ProbeSet:
    maker = Maker("nothing", seed)
    empty = replace(NEUTRAL, order=())
    every = replace(NEUTRAL, order=ALL_STAGES)
    return ProbeSet(
        "nothing",
        (),
        (
            *(maker.make(f"V={size}", NEUTRAL, size, KINDS) for size in (2, 17, 300)),
            *(maker.make(f"V={size}, weight 0", NEUTRAL, size, FINITE, guided=True) for size in (17, 300)),
            maker.make("no stage in the order, V=17", empty, 17, KINDS),
            maker.make("one row, V=17", NEUTRAL, 17, ("ordinary",)),
            *(maker.make(f"V={size}", NEUTRAL, size, ("ordinary", "removed")) for size in (8_194, 151_936)),
            maker.make("logits of 95, V=300", NEUTRAL, 300, FAR),
            *(maker.make(f"every stage in the order, V={size}", every, size, KINDS) for size in (17, 300)),
        ),
    )


def _alone(seed: int) -> Iterator[ProbeSet]:
    for stage, settings in SINGLE.items():
        maker = Maker(stage, seed)
        yield ProbeSet(stage, (stage,), (*_stage_alone(maker, stage, settings), *_extreme(maker, stage)))


def _stage_alone(maker: Maker, stage: Stage, settings: Sequence[Mapping[str, Any]]) -> Iterator[Probe]:
    for knobs in settings:
        config = replace(NEUTRAL, **knobs)
        yield maker.make(f"{label(knobs)}, V=300", config, 300, _kinds(config))
        yield maker.make(f"{label(knobs)}, V=17", config, 17, _kinds(config))
    first = replace(NEUTRAL, **settings[0])
    yield maker.make(f"{label(settings[0])}, V=2", first, 2, KINDS)
    yield maker.make(f"{label(settings[0])}, V=8194", first, 8_194, ("ordinary", "flat", "tied"))
    large = replace(NEUTRAL, **settings[1])
    yield maker.make(f"{label(settings[1])}, V=151936", large, 151_936, ("flat", "ordinary"))
    if stage == "top_k":  # larger than a kernel's buffer might be
        yield maker.make("top_k=5000, V=8194", replace(NEUTRAL, top_k=5_000), 8_194, ("ordinary", "flat"))
    if stage == "repetition_penalty":
        yield _long(maker, first)
    yield from _exact(maker, stage)


def _kinds(config: SamplingConfig) -> tuple[str, ...]:
    """The kinds of rows on which a config has an answer that does not depend on how tokens are removed."""
    if config.cfg_weight < 0:  # -inf minus -inf: the formula is undefined for a removed token
        return FINITE
    steep = config.repetition_penalty > STEEP or 0 < config.temperature < 1 / STEEP
    return tuple(kind for kind in KINDS if kind != "negative") if steep else KINDS


def _extreme(maker: Maker, stage: Stage) -> Iterator[Probe]:
    """Parameters near the ends of their ranges, and logits near +-100."""
    for knobs in EXTREME.get(stage, ()):
        config = replace(NEUTRAL, **knobs)
        yield maker.make(f"{label(knobs)}, V=300", config, 300, _kinds(config))
    first = SINGLE[stage][0]
    yield maker.make(f"{label(first)}, logits of 95, V=300", replace(NEUTRAL, **first), 300, FAR)
    if stage == "top_p":  # with few tokens float32 sums are exact enough
        yield maker.make("top_p=0.99999, V=17", replace(NEUTRAL, top_p=0.99999), 17, ("wide", "ordinary", "removed"))
    for temperature in SCALED if stage == "temperature" else ():
        config = replace(NEUTRAL, temperature=temperature)
        rows = maker.make("", config, 300, ("ordinary", "removed", "tied")).logits * np.float32(temperature)
        name = f"temperature={temperature}, logits in proportion, V=300"
        yield maker.make(name, config, 300, ("ordinary", "removed", "tied"), logits=rows)


def _long(maker: Maker, config: SamplingConfig) -> Probe:
    """A history as long as a long generation, with likely tokens only at both ends."""
    probe = maker.make("a history of 10,002 ids, V=300", config, 300, ("ordinary",))
    first, last, *others = np.argsort(-probe.logits[0], kind="stable").tolist()
    return replace(probe, history=[[first, *(others[50:150] * 100), last]])


def _exact(maker: Maker, stage: Stage) -> Iterator[Probe]:
    """Equal logits and powers of two: every sum is exact, and the answer is unique up to the choice among equals."""
    if stage == "top_p":
        for size, top_p, count in ((64, 0.5, 32), (64, 0.25, 16), (1_024, 0.75, 768), (64, 0.3, 20), (2, 0.5, 1)):
            yield _equal(maker, size, {"top_p": top_p}, count)
    if stage == "top_k":
        yield _equal(maker, 64, {"top_k": 5}, 64)
        kept = np.zeros((1, 12), dtype=np.bool_)
        kept[0, [1, 3, 4, 7]] = True
        row = np.where(kept, np.float32(1.5), np.float32(-0.5))
        row[0, 4] = 2.5
        yield replace(
            maker.make("ties with the second, top_k=2", replace(NEUTRAL, top_k=2), 12, ("tied",), logits=row), kept=kept
        )
    if stage == "min_p":
        yield _equal(maker, 64, {"min_p": 1.0}, 64)
        yield _equal(maker, 64, {"min_p": 0.5}, 64)
    if stage == "cfg":
        config = replace(NEUTRAL, cfg_weight=0.5)
        yield maker.make("no unconditional logits, V=17", config, 17, KINDS, guided=False)
    if stage == "temperature":
        row = np.array([[0.5, 2.0, -1.0, 2.0, 2.0], [-3.0, -3.0, -3.0, -3.0, -3.0]], dtype=np.float32)
        kept = np.zeros((2, 5), dtype=np.bool_)
        kept[0, 1] = kept[1, 0] = True
        config = replace(NEUTRAL, temperature=0.0)
        yield maker.make("ties, temperature=0", config, 5, ("tied", "tied"), logits=row, kept=kept)


def _equal(maker: Maker, size: int, knobs: Mapping[str, Any], count: int) -> Probe:
    """Equal logits, once over half of the vocabulary and once alternating with removed tokens."""
    whole = np.full(size, 0.25, dtype=np.float32)
    spread = np.full((2, 2 * size), -np.inf, dtype=np.float32)
    spread[0, :size] = whole
    spread[1, ::2] = whole
    config = replace(NEUTRAL, **knobs)
    counts = np.array([count, count])
    name = f"{size} equal logits, {label(knobs)}"
    return maker.make(name, config, 2 * size, ("equal", "equal"), logits=spread, counts=counts)


def _pairs(seed: int) -> Iterator[ProbeSet]:
    for first, second in itertools.combinations(PAIRED, 2):
        maker = Maker(f"{first}+{second}", seed)
        probes = []
        for edition in (0, 1):
            knobs = {**PAIRED[first][edition], **PAIRED[second][edition]}
            config = replace(NEUTRAL, **knobs)
            probes += [maker.make(f"{label(knobs)}, V={size}", config, size, FEW_KINDS) for size in (17, 300)]
        yield ProbeSet(maker.cell, (first, second), tuple(probes))


def _chains(seed: int) -> Iterator[ProbeSet]:
    for name, knobs in CHAINS.items():
        maker = Maker(f"chain:{name}", seed)
        config = replace(SamplingConfig(), **knobs)
        probes = [maker.make("V=300", config, 300, KINDS), maker.make("V=8194", config, 8_194, ("ordinary", "wide"))]
        yield ProbeSet(maker.cell, _stages(config), tuple(probes))
    for stage in SINGLE:
        maker = Maker(f"chain:all-but-{stage}", seed)
        config = SamplingConfig(**ALL_ON, order=ALL_STAGES).without([stage])
        yield ProbeSet(maker.cell, _stages(config), (maker.make("V=300", config, 300, FEW_KINDS),))


def _stages(config: SamplingConfig) -> tuple[Stage, ...]:
    return tuple(stage for stage in STAGES if stage in config.active_stages() or config.greedy)


def _orders(seed: int) -> Iterator[ProbeSet]:
    for name, order in ORDERS.items():
        maker = Maker(f"order:{name.replace(',', '').replace(' ', '-')}", seed)
        config = SamplingConfig(**ALL_ON, order=order)
        greedy = replace(config, temperature=0.0)
        probes = [maker.make("V=300", config, 300, FEW_KINDS), maker.make("greedy, V=300", greedy, 300, FEW_KINDS)]
        yield ProbeSet(maker.cell, order, tuple(probes))
