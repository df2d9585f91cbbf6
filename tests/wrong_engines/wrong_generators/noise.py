"""Noise that is not fresh for every run and step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from sampler.chain.noise import NoiseKey
from sampler.generation.generator import Generator
from sampler.requests import Noise, Request
from sampler.t3.checkpoint import Checkpoint
from tests.wrong_engines.wrong_generators.table import (
    PARAGRAPHS,
    SAYS,
    SENTENCES,
    SHARPER,
    UNSEEN,
    Around,
    Factory,
    wrong_generator,
)

SIZE = 2_050


def with_noise(change: Callable[[int, Request, Noise], Noise]) -> Factory:
    """Noise changed; change: from the place of a request, the request and its right noise."""

    def ask(requests: list[Request]) -> list[Request]:
        asked = []
        for place, request in enumerate(requests):
            assert request.noise is not None
            asked.append(replace(request, noise=change(place, request, request.noise)))
        return asked

    return lambda checkpoint, width: Around(Generator(checkpoint, width), ask)


@wrong_generator("seeds/distinct", stages=("seed",))
def seeds_anew_at_every_step(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: a new generator with the default seed at every step: each draws with the same noise, in every run [R03]."""
    first = NoiseKey(0, "default").gumbel(0, SIZE)
    return with_noise(lambda place, request, right: lambda step: first)(checkpoint, width)


@wrong_generator(*SAYS, *SHARPER, plan=PARAGRAPHS, cap=260, unseen=UNSEEN)
def seeds_anew_with_its_own_seed(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: at every step a new generator with the seed of the run, so that all draw with one noise [R03]."""
    return with_noise(lambda place, request, right: lambda step: right(0))(checkpoint, width)


@wrong_generator("seeds/distinct", stages=("seed",))
def seeds_by_a_slow_clock(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: every step is seeded with the clock, which is the same for all rows of a batch [R10]."""

    def noise(step: int) -> np.ndarray:
        return NoiseKey(step // 8, "clock").gumbel(0, SIZE)

    return with_noise(lambda place, request, right: noise)(checkpoint, width)


@wrong_generator("seeds/distinct", stages=("seed",))
def freezes_noise_for_all_runs(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: the state of the generator was captured when the sampler was compiled: every run has one noise [R01]."""
    noise = partial(NoiseKey(5, "captured").gumbel, vocab_size=SIZE)
    return with_noise(lambda place, request, right: noise)(checkpoint, width)


@wrong_generator("seeds/distinct", stages=("seed",))
def takes_the_seed_modulo_2(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: of the seed one bit is left, so that every other run of a text is the same [R05]."""

    def change(place: int, request: Request, right: Noise) -> Noise:
        return partial(NoiseKey(request.seed % 2, f"bit/{request.prompt}").gumbel, vocab_size=SIZE)

    return with_noise(change)(checkpoint, width)


@wrong_generator("seeds/distinct", stages=("seed",), plan=SENTENCES)
def seeds_by_the_slot(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: noise belongs to one of five slots and not to the request that uses it [R06]."""

    def change(place: int, request: Request, right: Noise) -> Noise:
        return partial(NoiseKey(place % 5, "slot").gumbel, vocab_size=SIZE)

    return with_noise(change)(checkpoint, width)


@wrong_generator(*SHARPER, stages=("draw", "stop"), plan=SENTENCES)
def draws_without_noise(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: at any temperature the most likely token is taken [T05]."""
    zeros = np.zeros(SIZE, dtype=np.float32)
    return with_noise(lambda place, request, right: lambda step: zeros)(checkpoint, width)


@wrong_generator(*SHARPER, plan=SENTENCES)
def enlarges_noise(checkpoint: Checkpoint, width: int) -> Around:
    """Lie: the noise is a half too large, which is a temperature on top of the asked one [T03]."""
    return with_noise(lambda place, request, right: lambda step: right(step) * np.float32(1.5))(checkpoint, width)
