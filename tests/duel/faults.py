"""Faults that DiFR's paper measures, and noise in the weights, as generators of Finch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from sampler import finch
from sampler.chain.pipeline import Scores, run_rows
from sampler.generation.generator import Generator
from sampler.requests import Batch, Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3
from sampler.t3.weights import read_weights
from tests.wrong_engines.wrong_generators.memory import showing
from tests.wrong_engines.wrong_generators.noise import of_key, with_noise
from tests.wrong_engines.wrong_generators.table import Factory, asking, with_chain

GROUP = 64
"""Weights that share a scale, as mlx-lm has them."""


def with_parameters(**changes: Any) -> Factory:
    """Other parameters, unless the caller asks for temperature 0."""

    def ask(requests: list[Request]) -> list[Request]:
        return [one if one.config.greedy else replace(one, config=replace(one.config, **changes)) for one in requests]

    return asking(ask)


def with_another_seed() -> Factory:
    return with_noise(lambda place, request, right: of_key(request.seed, f"another/{request.prompt}"))


def second_best(share: float) -> Factory:
    """At this share of the steps the second most likely token is taken, if there is one."""
    rng = np.random.default_rng(0)

    def chain(batch: Batch) -> Scores:
        scores = np.array(run_rows(batch).final)
        for row in np.flatnonzero(rng.random(len(scores)) < share):
            second = scores[row].argsort()[-2]
            if scores[row, second] > -np.inf:
                scores[row, np.arange(scores.shape[1]) != second] = -np.inf
        return Scores(mx.array(scores), mx.array(scores))

    return with_chain(chain)


def with_weights(change: Callable[[mx.array], mx.array]) -> Factory:
    """Every matrix of the weights changed."""

    def generator(checkpoint: Checkpoint, width: int) -> Generator:
        tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
        changed = {name: change(tensor) if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
        return Generator(replace(checkpoint, model=T3(changed, checkpoint.config)), width)

    return generator


def quantized_weights(bits: int) -> Factory:
    def rounded(matrix: mx.array) -> mx.array:
        if matrix.shape[1] % GROUP:
            return matrix
        return mx.dequantize(*mx.quantize(matrix, GROUP, bits), group_size=GROUP, bits=bits)

    return with_weights(rounded)


def noisy_weights(size: float) -> Factory:
    """Gaussian noise, whose size is relative to the standard deviation of each matrix."""
    rng = np.random.default_rng(0)

    def noisy(matrix: mx.array) -> mx.array:
        values = np.array(matrix)
        return mx.array(values + size * values.std() * rng.standard_normal(values.shape, dtype=np.float32))

    return with_weights(noisy)


def rounded_cache(rounded: Callable[[mx.array], mx.array]) -> Factory:
    return showing(lambda cache, keys, values: (rounded(keys), rounded(values)))


def to_bfloat16(values: mx.array) -> mx.array:
    return values.astype(mx.bfloat16).astype(mx.float32)


def to_8_bits(values: mx.array) -> mx.array:
    """One scale for each head and position."""
    scale = mx.maximum(mx.abs(values).max(axis=-1, keepdims=True), 1e-12) / 127
    return mx.round(values / scale) * scale
