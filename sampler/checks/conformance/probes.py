"""What a chain is tested with: each stage alone, then pairs, then whole chains and orders."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.rows import FEW_KINDS, FINITE, KINDS, histories, logit_rows, repeats
from sampler.checks.conformance.settings import (
    ALL_ON,
    CHAINS,
    LOOPING,
    NEUTRAL,
    OPTIONAL,
    ORDERS,
    PAIRED,
    SINGLE,
    WINDOWED,
)
from sampler.config import SamplingConfig
from sampler.requests import Batch, Logits
from sampler.stages import ALL_STAGES, OPTIONAL_STAGES, STAGES, Stage

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe(Batch):
    """One call of `process`. kinds: of each row.

    kept: bool (B, V), if there is exactly one right answer and float32 computes it exactly. counts: (B,), how many
    tokens are kept, if any of several equal ones may be.
    """

    cell: str
    name: str
    kinds: tuple[str, ...]
    eos_ids: tuple[int, ...] = ()
    kept: Mask | None = None
    counts: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        cell: str,
        name: str,
        config: SamplingConfig,
        logits: Logits,
        history: list[list[int]],
        kinds: Sequence[str],
        **known: Any,
    ) -> Self:
        """Rows that share a config; known: other fields of the probe."""
        return cls(logits, history, (config,) * len(logits), cell=cell, name=name, kinds=tuple(kinds), **known)

    def only(self, rows: Sequence[int]) -> Self:
        at = np.asarray(rows)
        return replace(
            super().only(rows),
            kinds=tuple(self.kinds[row] for row in rows),
            kept=None if self.kept is None else self.kept[at],
            counts=None if self.counts is None else self.counts[at],
        )

    def with_filled_histories(self) -> Self | None:
        """The same rows without empty histories, or None if there are none."""
        if all(self.history):
            return None
        return replace(self, name=f"{self.name}, no empty history", history=[ids or [0] for ids in self.history])

    def before(self, stage: Stage, scores: NDArray[np.float64]) -> Self:
        """The same rows with one stage alone, on the scores (B, V) before it."""
        return replace(super().before(stage, scores), kept=None, counts=None)


@dataclass(frozen=True)
class ProbeSet:
    """Probes that test one property together. stages: those that are on."""

    name: str
    stages: tuple[Stage, ...]
    probes: tuple[Probe, ...] = field(repr=False)
    optional: bool = False
    """Whether it tests stages that only some engines have."""


@dataclass(frozen=True)
class Maker:
    """Makes probes of one cell, each from its own random numbers."""

    cell: str
    seed: int

    def make(self, name: str, config: SamplingConfig, size: int, kinds: Sequence[str], **known: Any) -> Probe:
        """Rows of some kinds with matching histories and unconditional logits."""
        words = [self.seed, size, *f"{self.cell}/{name}".encode()]
        rng = np.random.default_rng(words)
        logits = known.pop("logits", None)
        rows = logit_rows(rng, size, kinds) if logits is None else logits
        uncond = None
        if known.pop("guided", "cfg" in config.active_stages()):
            noise = rng.normal(0, 1.5, rows.shape).astype(np.float32)
            uncond = (np.where(rows > -np.inf, rows, 0) * np.float32(0.7) + noise).astype(np.float32)
        history = histories(rng, rows)
        eos_ids = (0, rows.shape[1] - 1)
        return Probe.of(self.cell, name, config, rows, history, kinds, uncond_logits=uncond, eos_ids=eos_ids, **known)


@functools.lru_cache(maxsize=2)
def all_cells(seed: int) -> tuple[ProbeSet, ...]:
    """Every cell of level `process`, in the order in which they run."""
    return (_nothing(seed), *_alone(seed), *_pairs(seed), *_chains(seed), *_orders(seed), *_optional(seed))


def _nothing(seed: int) -> ProbeSet:
    maker = Maker("nothing", seed)
    empty = replace(NEUTRAL, order=())
    return ProbeSet(
        "nothing",
        (),
        (
            *(maker.make(f"V={size}", NEUTRAL, size, KINDS) for size in (2, 17, 300)),
            *(maker.make(f"V={size}, weight 0", NEUTRAL, size, FINITE, guided=True) for size in (17, 300)),
            maker.make("no stage in the order, V=17", empty, 17, KINDS),
            maker.make("one row, V=17", NEUTRAL, 17, ("ordinary",)),
            *(maker.make(f"V={size}", NEUTRAL, size, ("ordinary", "removed")) for size in (8_194, 151_936)),
        ),
    )


def _alone(seed: int) -> Iterator[ProbeSet]:
    for stage, settings in SINGLE.items():
        maker = Maker(stage, seed)
        yield ProbeSet(stage, (stage,), tuple(_stage_alone(maker, stage, settings)))


def _stage_alone(maker: Maker, stage: Stage, settings: Sequence[Mapping[str, Any]]) -> Iterator[Probe]:
    for knobs in settings:
        config = replace(NEUTRAL, **knobs)
        label = _label(knobs)
        # -inf minus -inf: with a negative weight the formula is undefined for a removed token.
        kinds = FINITE if config.cfg_weight < 0 else KINDS
        yield maker.make(f"{label}, V=300", config, 300, kinds)
        yield maker.make(f"{label}, V=17", config, 17, kinds)
    first = replace(NEUTRAL, **settings[0])
    yield maker.make(f"{_label(settings[0])}, V=2", first, 2, KINDS)
    yield maker.make(f"{_label(settings[0])}, V=8194", first, 8_194, ("ordinary", "flat", "tied"))
    large = replace(NEUTRAL, **settings[1])
    yield maker.make(f"{_label(settings[1])}, V=151936", large, 151_936, ("flat", "ordinary"))
    if stage == "top_k":  # larger than a kernel's buffer might be
        yield maker.make("top_k=5000, V=8194", replace(NEUTRAL, top_k=5_000), 8_194, ("ordinary", "flat"))
    if stage == "repetition_penalty":
        yield _long(maker, first)
    yield from _exact(maker, stage)


def _long(maker: Maker, config: SamplingConfig) -> Probe:
    """A history as long as a long generation, with likely tokens only at both ends."""
    probe = maker.make("a history of 10,002 ids, V=300", config, 300, ("ordinary",))
    first, last, *others = np.argsort(-probe.logits[0], kind="stable").tolist()
    return replace(probe, history=[[first, *(others[50:150] * 100), last]])


def _label(knobs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in knobs.items())


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
    name = f"{size} equal logits, {_label(knobs)}"
    return maker.make(name, config, 2 * size, ("equal", "equal"), logits=spread, counts=counts)


def _pairs(seed: int) -> Iterator[ProbeSet]:
    for first, second in itertools.combinations(PAIRED, 2):
        maker = Maker(f"{first}+{second}", seed)
        probes = []
        for edition in (0, 1):
            knobs = {**PAIRED[first][edition], **PAIRED[second][edition]}
            config = replace(NEUTRAL, **knobs)
            probes += [maker.make(f"{_label(knobs)}, V={size}", config, size, FEW_KINDS) for size in (17, 300)]
        yield ProbeSet(maker.cell, (first, second), tuple(probes))


def _chains(seed: int) -> Iterator[ProbeSet]:
    for name, knobs in CHAINS.items():
        maker = Maker(f"chain:{name}", seed)
        config = replace(SamplingConfig(), **knobs)
        probes = [maker.make("V=300", config, 300, KINDS), maker.make("V=8194", config, 8_194, ("ordinary", "wide"))]
        stages = tuple(stage for stage in STAGES if stage in config.active_stages() or config.greedy)
        yield ProbeSet(maker.cell, stages, tuple(probes))


def _optional(seed: int) -> Iterator[ProbeSet]:
    for stage, settings in OPTIONAL.items():
        maker = Maker(stage, seed)
        kinds = tuple(kind for kind in KINDS if kind != "single")  # no token would be left in such a row
        probes = [
            maker.make(f"{_label(knobs)}, V={size}", replace(NEUTRAL, **knobs), size, kinds)
            for knobs in settings
            for size in (300, 17)
        ]
        special = _optional_special(maker, stage, settings, kinds)
        yield ProbeSet(stage, (stage,), (*probes, *special), optional=True)
    maker = Maker("penalty_window", seed)
    probes = [maker.make(f"{_label(knobs)}, V=300", replace(NEUTRAL, **knobs), 300, KINDS) for knobs in WINDOWED]
    yield ProbeSet("penalty_window", ("repetition_penalty",), tuple(probes), optional=True)
    maker = Maker("chain:further", seed)
    knobs = {name: value for stage in OPTIONAL_STAGES for name, value in OPTIONAL[stage][0].items()}
    config = SamplingConfig(**{**ALL_ON, **knobs, "no_repeat_ngram_size": 3})
    probe = maker.make("V=300", config, 300, FEW_KINDS)
    stages = tuple(stage for stage in ALL_STAGES if stage in config.active_stages())
    yield ProbeSet("chain:further", stages, (probe,), optional=True)


def _optional_special(
    maker: Maker, stage: Stage, settings: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> Iterator[Probe]:
    """Probes with special histories, EOS ids or logits: repeats, ids outside the vocabulary, an exact threshold."""
    if stage in ("dry_multiplier", "no_repeat_ngram_size"):
        for knobs in settings:
            probe = maker.make(f"{_label(knobs)}, short repeats, V=17", replace(NEUTRAL, **knobs), 17, kinds)
            yield replace(probe, history=repeats(len(kinds)))
    if stage == "dry_multiplier":
        for knobs in LOOPING:
            probe = maker.make(f"{_label(knobs)}, a loop, V=17", replace(NEUTRAL, **knobs), 17, ("ordinary",))
            yield replace(probe, history=[[3, 5, 2] * 45])
    if stage == "min_new_tokens":
        probe = maker.make(f"{_label(settings[0])}, EOS outside", replace(NEUTRAL, **settings[0]), 17, kinds)
        yield replace(probe, eos_ids=(16, 17, 40))
    if stage == "top_n_sigma":
        row = np.array([[3, 1, 1, 3, 3, 1, 1, 3]], dtype=np.float32)  # mean 2, deviation 1
        yield replace(
            maker.make("exactly two deviations, V=8", replace(NEUTRAL, top_n_sigma=2.0), 8, ("tied",), logits=row),
            kept=np.ones((1, 8), dtype=np.bool_),
        )


def _orders(seed: int) -> Iterator[ProbeSet]:
    for name, order in ORDERS.items():
        maker = Maker(f"order:{name.replace(',', '').replace(' ', '-')}", seed)
        config = SamplingConfig(**ALL_ON, order=order)
        greedy = replace(config, temperature=0.0)
        probes = [maker.make("V=300", config, 300, FEW_KINDS), maker.make("greedy, V=300", greedy, 300, FEW_KINDS)]
        yield ProbeSet(maker.cell, order, tuple(probes))
