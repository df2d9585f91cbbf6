"""The core at its full size (520M, random float32 weights), 32 requests with guidance, beside upstream one at a time.

A generation of 500 tokens would take an hour, so the mean over them is made of steps. A step's time is linear in the
length of the cache: products do not depend on it, attention reads every key and value once. Steps are timed at speech
lengths 50, 300 and 600 over a filled cache (`endless.py` says how it is filled), chain, noise and records included; a
line a + b s is fitted by least squares, and a + 249.5 b is the mean step of s = 0 to 499. Tokens a second are
requests over that mean, for upstream one. Prefill is left out on both sides. The roofline of the step is taken at the
same mean length.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from sampler.generation.generator import Generator
from sampler.t3.config import CHATTERBOX_ENGLISH
from tests.benchmarks import endless, roofline
from tests.benchmarks.child import PEAK_MEMORY
from tests.benchmarks.clock import threads
from tests.benchmarks.rows import UPSTREAM, Figure, Row
from tests.benchmarks.runner import Comparison
from tests.support import random_voice

REQUESTS = 32
LENGTHS, FIRST = (50, 300, 600), 500
OUR_STEPS, THEIR_STEPS = 8, 16
OUR_QUICK_STEPS, THEIR_QUICK_STEPS = 5, 8
BOS_ROWS = 2
GOAL, SHARE, CEILING = 8.0, 0.6, 1.1


def mean_rate(step_at: Callable[[int], float], requests: int) -> Iterator[tuple[str, float]]:
    """Tokens a second at each length, and their mean over the first 500 tokens; step_at: seconds at a length."""
    seconds = []
    for length in LENGTHS:
        seconds.append(step_at(length))
        yield f"at {length}", requests / seconds[-1]
    slope, start = np.polyfit(LENGTHS, seconds, 1)
    yield "mean", requests / float(start + slope * (FIRST - 1) / 2)


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    config, tensors = endless.full_size_tensors()
    made = endless.checkpoint(config, tensors, fill_beyond=2 * REQUESTS)
    tensors.clear()
    generator = Generator(made, width=REQUESTS)
    steps = endless.STEPS_TO_WARM_UP + (OUR_QUICK_STEPS if quick else OUR_STEPS)

    yield from mean_rate(
        lambda length: endless.our_step(generator, endless.filled(config, REQUESTS, length, steps)), REQUESTS
    )


def upstreams(*, quick: bool) -> Iterator[tuple[str, float]]:
    import torch

    torch.set_num_threads(threads())
    config, tensors = endless.full_size_tensors()
    model, voice = endless.upstream_model(config, tensors), random_voice(config, 3)
    tensors.clear()
    steps = endless.STEPS_TO_WARM_UP + (THEIR_QUICK_STEPS if quick else THEIR_STEPS)

    def step_at(length: int) -> float:
        return endless.upstream_step(model, voice, endless.filled(config, 1, length, steps)[0].prompt, steps)

    yield from mean_rate(step_at, 1)


def bound(*, quick: bool) -> Iterator[tuple[str, float]]:
    config = CHATTERBOX_ENGLISH
    length = config.conditioning_length + endless.TEXT + BOS_ROWS + (FIRST - 1) / 2
    for name, value in roofline.measures(config, 2 * REQUESTS, {"mean": length}, quick=quick):
        yield name, value * REQUESTS if name == "mean" else value


SIDES = {"ours": ours, "upstream": upstreams, "roofline": bound}


def _rows() -> Iterator[Row]:
    row = partial(Row, unit="tokens/s", better="more")
    name, peer_name = "full size, 32 requests", UPSTREAM
    mean = Figure("ours", "mean")
    yield row(f"{name}, first 500 tokens", mean, peer=Figure("upstream", "mean"), peer_name=peer_name, goal=GOAL)
    best = Figure("roofline", "mean", "largest")
    share = f"{name}, share of the roofline"
    yield row(share, mean, peer=best, peer_name="roofline", goal=SHARE, ceiling=CEILING)
    for length in LENGTHS:
        measure = f"at {length}"
        yield row(f"{name}, {measure}", Figure("ours", measure), peer=Figure("upstream", measure), peer_name=peer_name)
    yield Row("full size, peak memory", Figure("ours", PEAK_MEMORY), "MiB", Figure("upstream", PEAK_MEMORY), peer_name)
    yield row("full size, products", Figure("roofline", "products", "largest"), unit="GFLOP/s")
    yield row("memory, read", Figure("roofline", "bandwidth", "largest"), unit="GB/s")


COMPARISON = Comparison("full-size", __name__, ("roofline", "ours", "upstream", "ours", "roofline"), tuple(_rows()))
