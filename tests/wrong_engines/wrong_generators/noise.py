"""Noise that is not fresh for every run and step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from sampler.chain.noise import NoiseKey
from sampler.requests import Noise, Request

from .table import FEW, PARAGRAPHS, SAYS, SENTENCES, SHARPER, UNSEEN, Factory, asking, wrong_generators

SIZE = 2_050


def with_noise(change: Callable[[int, Request, Noise], Noise]) -> Factory:
    """Noise changed; change: from the place of a request, the request and its right noise."""

    def ask(requests: list[Request]) -> list[Request]:
        asked = []
        for place, request in enumerate(requests):
            assert request.noise is not None
            asked.append(replace(request, noise=change(place, request, request.noise)))
        return asked

    return asking(ask)


def of_key(seed: int, name: str) -> Noise:
    return partial(NoiseKey(seed, name).gumbel, vocab_size=SIZE)


SEED = {"questions": ("seeds/distinct",), "stages": ("seed",), "plan": FEW}

wrong_generators(
    SHARPER,
    "seeds_anew_at_every_step: "
    "a new generator with the default seed at every step: each draws with the same noise, in every run [R03].",
    with_noise(lambda place, request, right: lambda step: NoiseKey(0, "default").gumbel(0, SIZE)),
    SEED,
    "seeds_anew_with_its_own_seed: "
    "at every step a new generator with the seed of the run, so that all draw with one noise [R03].",
    with_noise(lambda place, request, right: lambda step: right(0)),
    {"questions": (*SAYS, *SHARPER), "plan": PARAGRAPHS, "cap": 260, "unseen": UNSEEN},
    "seeds_by_a_slow_clock: every step is seeded with the clock, which is the same for all rows of a batch [R10].",
    with_noise(lambda place, request, right: lambda step: NoiseKey(step // 8, "clock").gumbel(0, SIZE)),
    SEED,
    "freezes_noise_for_all_runs: "
    "the state of the generator was captured when the sampler was compiled: every run has one noise [R01].",
    with_noise(lambda place, request, right: of_key(5, "captured")),
    SEED,
    "takes_the_seed_modulo_2: of the seed one bit is left, so that every other run of a text is the same [R05].",
    with_noise(lambda place, request, right: of_key(request.seed % 2, f"bit/{request.prompt}")),
    SEED,
    "seeds_by_the_slot: noise belongs to one of five slots and not to the request that uses it [R06].",
    with_noise(lambda place, request, right: of_key(place % 5, "slot")),
    {**SEED, "plan": SENTENCES},
    "draws_without_noise: at any temperature the most likely token is taken [T05].",
    with_noise(lambda place, request, right: lambda step: np.zeros(SIZE, dtype=np.float32)),
    "enlarges_noise: the noise is a half too large, which is a temperature on top of the asked one [T03].",
    with_noise(lambda place, request, right: lambda step: right(step) * np.float32(1.5)),
    plan=SENTENCES,
)
