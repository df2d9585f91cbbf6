"""Right scores and right frequencies, wrong use of the seed."""

import threading
import time
from functools import partial

import numpy as np

from .draws import FILTERED, drawing, noisy
from .engines import uniforms
from .tables import DRAW, wrong_rows


def in_other_threads():
    home = threading.get_ident()
    return noisy(lambda seed, n: uniforms(seed, n) if threading.get_ident() == home else np.full(n, 0.37))


def remembering(noise):
    """The noise is made from a list, empty at first, the seed and n."""
    memory: list = []
    return noisy(lambda seed, n: noise(memory, seed, n))


def of_the_first_seed(streams, seed, n):
    if not streams:
        streams.append(np.random.Generator(np.random.Philox(seed)))
    return streams[0].random(n)


def of_the_seed_before(slots, seed, n):
    slots.append(seed)
    return uniforms(slots[-2] if len(slots) > 1 else 0, n)


def seeding_numpy(draw, logits, history, config, n, seed, uncond=None):
    np.random.seed(seed % 2**32)  # noqa: NPY002
    return draw(logits, history, config, n, seed, uncond)


def going_on(calls, seed, n):
    start = sum(count for earlier, count in calls if earlier == seed)
    calls.append((seed, n))
    return uniforms(seed, start + n)[start:]


wrong_rows(
    "seed",
    "noise_is_frozen: a compiled function captured the noise; every draw uses one number, whatever the seed [R01].",
    lambda: noisy(lambda seed, n: np.full(n, 0.37)),
    {"also": ("draw",)},
    "noise_is_frozen_for_a_seed: each of n draws starts from the seed again, and all of them are equal [R03].",
    lambda: noisy(lambda seed, n: np.repeat(uniforms(seed, 1), n)),
    {"also": ("seed",), "stage": "draw"},
    "noise_is_frozen_in_other_threads: outside the thread that loaded the engine the noise stands still [R02].",
    in_other_threads,
    {"also": ("draw", "purity")},
    "seed_is_the_clock: every call is seeded with the time; nothing can be repeated [R03].",
    lambda: noisy(lambda seed, n: uniforms(time.perf_counter_ns(), n)),
    "seed_is_not_used: the seed is read and dropped; one generator serves all calls [R08].",
    lambda: noisy(partial(lambda generator, seed, n: generator.random(n), np.random.default_rng())),
    "seed_is_always_zero: whatever the seed, draws are those of seed 0 [R05].",
    lambda: noisy(lambda seed, n: uniforms(0, n)),
    "seed_counts_once: the first seed is used, and later ones go on from there [R10].",
    lambda: remembering(of_the_first_seed),
    "seed_of_the_call_before: seeds stand in slots, and a call reads that of the call before [R06].",
    lambda: remembering(of_the_seed_before),
    "seed_has_three_bits: seeds are taken modulo 8 [R08].",
    lambda: noisy(lambda seed, n: uniforms(seed % 8, n)),
    "seed_is_even: the lowest bit of the seed is lost, and two neighbours give the same [R08].",
    lambda: noisy(lambda seed, n: uniforms(seed // 2, n)),
    "seeds_overlap: the draws of seed s + 1 are those of seed s, moved by one [R06].",
    lambda: noisy(lambda seed, n: uniforms(seed // 4_096, 4_096 + n)[seed % 4_096 :][:n]),
    "seed_resets_the_global_generator: draws are right, and seed NumPy's global generator on the way [R10].",
    lambda: drawing(seeding_numpy),
    {"seen": (), "also": ("purity",)},
    "seed_is_forgotten_by_the_second_draw: a second call with one seed goes on after the first call's last [R15].",
    lambda: remembering(going_on),
    {"also": ("purity",)},
    seen=DRAW,
    shows=FILTERED,
)
