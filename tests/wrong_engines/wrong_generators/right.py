"""Generators that look different and are right."""

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from sampler.checks.longform.runs import TokenRun
from sampler.generation.generator import Generator
from sampler.requests import Generation, Request
from sampler.t3.cache import KeyValueCache
from sampler.t3.checkpoint import Checkpoint

from .memory import Pair, with_cache
from .noise import SIZE, with_noise
from .penalties import only, seeing
from .table import Around, asking, right_generators


class Backwards(Around):
    """Serves requests in the opposite order, each in a slot that is named."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        width = self.generator.width
        turned = [replace(request, slot=place % width) for place, request in enumerate(requests)][::-1]
        return self.generator.generate(turned)[::-1]


def backwards(checkpoint: Checkpoint, width: int) -> Around:
    return Backwards(Generator(checkpoint, width))


def all_chunks(slot, active) -> np.ndarray:
    chunks = [slot.tokens[start : start + 50] for start in range(0, len(slot.tokens), 50)]
    return only(slot, [2_048, *(token for chunk in chunks for token in chunk)])


def own_noise(place, request, right):
    rng = np.random.default_rng([place, 77])
    return lambda step: rng.gumbel(size=SIZE).astype(np.float32)


def tempered_first(requests: list[Request]) -> list[Request]:
    order = ("cfg", "alignment", "temperature", "repetition_penalty", "top_k", "min_p", "top_p")
    return [replace(request, config=replace(request.config, order=order)) for request in requests]


class Half(KeyValueCache):
    """Keys and values are rounded to float16."""

    def append(self, layer: int, keys: mx.array, values: mx.array) -> Pair:
        rounded = [array.astype(mx.float16).astype(array.dtype) for array in (keys, values)]
        return super().append(layer, *rounded)


def tokens_alone(run: TokenRun) -> TokenRun:
    return replace(run, logprobs=None, entropy=None, rank=None, margin=None)


def rounded(run: TokenRun) -> TokenRun:
    scalars = {name: getattr(run, name).astype(np.float16).astype(np.float64) for name in ("logprobs", "entropy")}
    return replace(run, **scalars)


right_generators(
    "other_seeds: the core, with noise of its own.",
    Generator,
    "narrow_blocks: blocks of 7 slots, whose matrix products round otherwise.",
    lambda checkpoint, width: Generator(checkpoint, 7),
    "backwards: requests are served in the opposite order, each in a slot that is named.",
    backwards,
    "penalty_history_kept_in_chunks: "
    "the history is put together from chunks of 50 tokens at every step, and nothing is lost.",
    seeing(all_chunks),
    "noise_of_its_own_generator: PCG64 in place of the suite's noise.",
    with_noise(own_noise),
    "temperature_before_the_penalty: penalty and temperature commute, and 0.1.2 had them in the other order.",
    asking(tempered_first),
    "float16_cache: keys and values of the speech are kept in float16.",
    with_cache(Half),
    "writes_tokens_alone: a port that records nothing beside its tokens.",
    Generator,
    {"change": tokens_alone},
    "writes_float16: the recorded probabilities and entropies are rounded to float16.",
    Generator,
    {"change": rounded},
)
