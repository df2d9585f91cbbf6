"""Engines around a chain: what they offer, where their noise comes from, and how they choose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo

from .chain import LOWEST, STAGES, Array, Call, Stage, Stages, run

INFO = EngineInfo(name="miniature", version="1")
Rewrite = Callable[[SamplingConfig], SamplingConfig]
Noise = Callable[[int, int], Array]
Choose = Callable[[Array, Array], Array]


def uniforms(seed: int, count: int) -> Array:
    """Uniform numbers in [0, 1) that the seed alone decides: float64 (count,)."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def inverse_cdf(scores: Array, noise: Array) -> Array:
    """Where each uniform number falls in the cumulated probabilities: (V,), (n,) -> (n,)."""
    ids = np.flatnonzero(scores > LOWEST)
    cumulative = np.cumsum(np.exp((scores[ids] - scores[ids].max()).astype(np.float64)))
    place = np.searchsorted(cumulative, noise * cumulative[-1], side="right")
    return ids[np.minimum(place, len(ids) - 1)].astype(np.int64)


@dataclass
class Miniature:
    """Processes, draws and picks; every part can be exchanged."""

    stages: Stages = field(default_factory=lambda: STAGES)
    rewrite: Rewrite = lambda config: config
    noise: Noise = uniforms
    choose: Choose = inverse_cdf
    info: EngineInfo = INFO

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        return run(logits, Call(history, self.rewrite(config), uncond_logits), self.stages)

    def draw(self, logits, history, config, n, seed, uncond_logits=None) -> Array:
        uncond = None if uncond_logits is None else uncond_logits[None]
        scores = self.process(logits[None], [history], config, uncond)[0]
        return self.choose(scores, self.noise(seed, n))

    def pick(self, scores, gumbel) -> Array:
        left = np.where(scores > LOWEST, scores, 0.0) + gumbel
        return np.where(scores > LOWEST, left, LOWEST).argmax(axis=-1).astype(np.int64)


class Processing(Miniature):
    """process() is what `change` makes of the right one and of its inputs."""

    def __init__(self, change: Callable[..., Any]) -> None:
        super().__init__()
        self.change = change

    def process(self, logits, history, config, uncond_logits=None) -> Any:
        with np.errstate(all="ignore"):
            return self.change(super().process, logits, history, config, uncond_logits)


def with_memory(change: Callable[..., Any]) -> Processing:
    """process() is what `change` makes of a dict, empty at first, of the right process and of its inputs."""
    return Processing(partial(change, {}))


def with_stage(**stages: Stage) -> Miniature:
    """The right chain with stages of other meaning."""
    return Miniature({**STAGES, **stages})


def stage_at(name: str) -> Callable[[Stage], Miniature]:
    """What makes an engine of a wrong stage of this name, which runs where the config does not turn the stage off."""
    off = {"top_k": ("top_k", 0), "min_p": ("min_p", 0), "top_p": ("top_p", 1)}.get(name)

    def make(stage: Stage) -> Miniature:
        def at_work(scores: Array, call: Call) -> Array:
            return scores if off and getattr(call.config, off[0]) == off[1] else stage(scores, call)

        return with_stage(**{name: at_work})

    return make


def with_config(rewrite: Rewrite) -> Miniature:
    """The right chain, asked for something else than the caller asks for."""
    return Miniature(rewrite=rewrite)


def with_order(rearrange: Callable[[Sequence[str]], Sequence[str]]) -> Miniature:
    """The right stages in another order than the caller's."""
    return with_config(lambda config: replace(config, order=tuple(rearrange(config.order))))


def behind(stages: Sequence[str], moved: str, others: Sequence[str]) -> tuple[str, ...]:
    """An order in which one stage is moved behind the last of some others, unless it stands there."""
    rest = [stage for stage in stages if stage != moved]
    places = [rest.index(stage) for stage in others if stage in rest]
    if moved not in stages or not places:
        return tuple(stages)
    at = max([max(places) + 1, list(stages).index(moved)])
    return (*rest[:at], moved, *rest[at:])


@dataclass(frozen=True)
class OnlyProcesses:
    """An engine without draw() and pick()."""

    engine: Any

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def process(self, logits, history, config, uncond_logits=None) -> Array:
        return self.engine.process(logits, history, config, uncond_logits)


@dataclass(frozen=True)
class OnlyDraws:
    """An engine without process() and pick()."""

    engine: Any

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def draw(self, logits, history, config, n, seed, uncond_logits=None) -> Array:
        return self.engine.draw(logits, history, config, n, seed, uncond_logits)


@dataclass(frozen=True)
class WithoutPick(OnlyProcesses):
    """An engine whose noise cannot be given to it."""

    def draw(self, logits, history, config, n, seed, uncond_logits=None) -> Array:
        return self.engine.draw(logits, history, config, n, seed, uncond_logits)
