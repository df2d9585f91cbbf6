"""Right scores and right frequencies, wrong use of the seed."""

import threading
import time

import numpy as np

from .chain import Array
from .draws import FILTERED, chosen, drawing
from .engines import uniforms
from .tables import DRAW, wrong


@wrong("seed", FILTERED, seen=DRAW, also=("draw",))
def noise_is_frozen():
    """Lie: a compiled function captured the noise; every draw uses the same number, whatever the seed [R01]."""
    return chosen(noise=lambda seed, n: np.full(n, 0.37))


@wrong("draw", FILTERED, seen=DRAW, also=("seed",))
def noise_is_frozen_for_a_seed():
    """Lie: each of n draws starts from the seed again, and all of them are equal [R03]."""
    return chosen(noise=lambda seed, n: np.repeat(uniforms(seed, 1), n))


@wrong("seed", FILTERED, seen=DRAW, also=("draw", "purity"))
def noise_is_frozen_in_other_threads():
    """Lie: outside the thread that loaded the engine noise stands still, and one token comes out [R02]."""
    home = threading.get_ident()
    return chosen(noise=lambda seed, n: uniforms(seed, n) if threading.get_ident() == home else np.full(n, 0.37))


@wrong("seed", FILTERED, seen=DRAW)
def seed_is_the_clock():
    """Lie: every call is seeded with the time; nothing can be repeated [R03]."""
    return chosen(noise=lambda seed, n: uniforms(time.perf_counter_ns(), n))


@wrong("seed", FILTERED, seen=DRAW)
def seed_is_not_used():
    """Lie: the seed is read and dropped; one generator serves all calls [R08]."""
    generator = np.random.default_rng()
    return chosen(noise=lambda seed, n: generator.random(n))


@wrong("seed", FILTERED, seen=DRAW)
def seed_is_always_zero():
    """Lie: whatever the seed, draws are those of seed 0 [R05]."""
    return chosen(noise=lambda seed, n: uniforms(0, n))


@wrong("seed", FILTERED, seen=DRAW)
def seed_counts_once():
    """Lie: the first seed is used, and later ones go on from there [R10]."""
    streams: list[np.random.Generator] = []

    def noise(seed: int, n: int) -> Array:
        if not streams:
            streams.append(np.random.Generator(np.random.Philox(seed)))
        return streams[0].random(n)

    return chosen(noise=noise)


@wrong("seed", FILTERED, seen=DRAW)
def seed_of_the_call_before():
    """Lie: seeds stand in slots, and a call reads that of the call before [R06]."""
    slots = [0]

    def noise(seed: int, n: int) -> Array:
        slots.append(seed)
        return uniforms(slots[-2], n)

    return chosen(noise=noise)


@wrong("seed", FILTERED, seen=DRAW)
def seed_has_three_bits():
    """Lie: seeds are taken modulo 8 [R08]."""
    return chosen(noise=lambda seed, n: uniforms(seed % 8, n))


@wrong("seed", FILTERED, seen=DRAW)
def seed_is_even():
    """Lie: the lowest bit of the seed is lost, and two neighbours give the same [R08]."""
    return chosen(noise=lambda seed, n: uniforms(seed // 2, n))


@wrong("seed", FILTERED, seen=DRAW)
def seeds_overlap():
    """Lie: the draws of seed s + 1 are those of seed s, moved by one [R06]."""

    def noise(seed: int, n: int) -> Array:
        return uniforms(seed // 4_096, 4_096 + n)[seed % 4_096 :][:n]

    return chosen(noise=noise)


@wrong("seed", FILTERED, seen=(), also=("purity",))
def seed_resets_the_global_generator():
    """Lie: draws are right, and NumPy's global generator is seeded for everyone on the way [R10]."""

    def change(draw, logits, history, config, n, seed, uncond=None):
        np.random.seed(seed % 2**32)  # noqa: NPY002
        return draw(logits, history, config, n, seed, uncond)

    return drawing(change)


@wrong("seed", FILTERED, seen=DRAW, also=("purity",))
def seed_is_forgotten_by_the_second_draw():
    """Lie: a cache gives the second call with one seed the number after the first call's last [R15]."""
    used: dict[int, int] = {}

    def noise(seed: int, n: int) -> Array:
        start = used.get(seed, 0)
        used[seed] = start + n
        return uniforms(seed, start + n)[start:]

    return chosen(noise=noise)
