"""Generators that look different and are right."""

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from sampler.checks.longform.runs import TokenRun
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint
from tests.wrong_engines.wrong_generators.memory import Pair, with_cache
from tests.wrong_engines.wrong_generators.noise import SIZE
from tests.wrong_engines.wrong_generators.penalties import seeing
from tests.wrong_engines.wrong_generators.table import Around, right_generator


@right_generator()
def other_seeds(checkpoint: Checkpoint, width: int) -> Generator:
    """No lie: the core, with noise of its own."""
    return Generator(checkpoint, width)


@right_generator()
def narrow_blocks(checkpoint: Checkpoint, width: int) -> Generator:
    """No lie: blocks of 7 slots, whose matrix products round otherwise."""
    return Generator(checkpoint, 7)


@right_generator()
def backwards(checkpoint: Checkpoint, width: int) -> Around:
    """No lie: requests are served in the opposite order, each in a slot that is named."""
    generator = Generator(checkpoint, width)

    class Backwards(Around):
        def generate(self, requests: Sequence[Request]):
            turned = [replace(request, slot=place % width) for place, request in enumerate(requests)][::-1]
            return generator.generate(turned)[::-1]

    return Backwards(generator)


@right_generator()
def penalty_history_kept_in_chunks(checkpoint: Checkpoint, width: int) -> Generator:
    """No lie: the history is put together from chunks of 50 tokens at every step, and nothing is lost."""

    def all_chunks(slot, active):
        seen = np.zeros_like(slot.seen)
        seen[2_048] = True
        for start in range(0, len(slot.tokens), 50):
            seen[slot.tokens[start : start + 50]] = True
        return seen

    return seeing(all_chunks)(checkpoint, width)


@right_generator()
def noise_of_its_own_generator(checkpoint: Checkpoint, width: int) -> Around:
    """No lie: PCG64 in place of the suite's noise."""

    def ask(requests: list[Request]) -> list[Request]:
        asked = []
        for place, request in enumerate(requests):
            rng = np.random.default_rng([place, 77])
            asked.append(replace(request, noise=lambda step, rng=rng: rng.gumbel(size=SIZE).astype(np.float32)))
        return asked

    return Around(Generator(checkpoint, width), ask)


@right_generator()
def temperature_before_the_penalty(checkpoint: Checkpoint, width: int) -> Around:
    """No lie: penalty and temperature commute, and 0.1.2 had them in the other order."""
    order = ("cfg", "alignment", "temperature", "repetition_penalty", "top_k", "min_p", "top_p")

    def ask(requests: list[Request]) -> list[Request]:
        return [replace(request, config=replace(request.config, order=order)) for request in requests]

    return Around(Generator(checkpoint, width), ask)


class Half(KeyValueCache):
    """Keys and values are rounded to float16."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        rounded = [array.astype(mx.float16).astype(array.dtype) for array in (keys, values)]
        return super().append(layer, *rounded)


@right_generator()
def float16_cache(checkpoint: Checkpoint, width: int) -> Generator:
    """No lie: keys and values of the speech are kept in float16."""
    return with_cache(Half)(checkpoint, width)


def tokens_alone(run: TokenRun) -> TokenRun:
    return replace(run, logprobs=None, entropy=None, rank=None, margin=None)


def rounded(run: TokenRun) -> TokenRun:
    scalars = {name: getattr(run, name).astype(np.float16).astype(np.float64) for name in ("logprobs", "entropy")}
    return replace(run, **scalars)


@right_generator(change=tokens_alone)
def writes_tokens_alone(checkpoint: Checkpoint, width: int) -> Generator:
    """No lie: a port that records nothing beside its tokens."""
    return Generator(checkpoint, width)


@right_generator(change=rounded)
def writes_float16(checkpoint: Checkpoint, width: int) -> Generator:
    """No lie: the recorded probabilities and entropies are rounded to float16."""
    return Generator(checkpoint, width)
