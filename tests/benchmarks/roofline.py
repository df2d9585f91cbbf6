"""What this machine could do at best: a step is its matrix products, and one reading of the keys and values.

Roofline of a step = time of its products at the rate that the BLAS in use reaches at their shapes, measured one after
the other with MLX, plus the bytes of keys and values over the bandwidth at which all threads together read memory.
Reading the weights is part of the products. Attention's arithmetic, norms, the chain and prefill are not counted:
their time is what keeps the share below 1. Source of the model: Williams, Waterman and Patterson 2009,
doi:10.1145/1498765.1498785.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.benchmarks.clock import threads, times_of

FLOATS = 2**28  # 1 GiB, far beyond the caches
LAYERS = 8
"""So many layers' weights are made, no more: those of the full size are then 0.5 GB, beyond the caches as well."""


def shapes(config: Any) -> list[tuple[int, int]]:
    width, inner = config.hidden_size, config.intermediate_size
    return [(width, 3 * width), (width, width), (width, 2 * inner), (inner, width)]


def product_seconds(rows: int, inner: int, outer: int, count: int, for_seconds: float) -> float:
    """Seconds of one product (rows, inner) @ (outer, inner).T, each of `count` matrices in turn; the least of many."""
    import mlx.core as mx

    rng = np.random.default_rng(0)
    hidden = mx.array(rng.standard_normal((rows, inner), dtype=np.float32))
    weights = [mx.array(rng.standard_normal((outer, inner), dtype=np.float32)) for _ in range(count)]
    return min(times_of(lambda: mx.eval([hidden @ each.T for each in weights]), for_seconds=for_seconds)) / count


def products(config: Any, rows: int, *, quick: bool) -> float:
    for_seconds = 0.5 if quick else 2.0
    count = min(LAYERS, config.num_layers)
    layer = sum(product_seconds(rows, *shape, count, for_seconds) for shape in shapes(config))
    return config.num_layers * layer + product_seconds(
        rows, config.hidden_size, config.speech_vocab_size, 1, for_seconds
    )


def multiplications(config: Any, rows: int) -> int:
    layer = sum(inner * outer for inner, outer in shapes(config))
    return rows * (config.num_layers * layer + config.hidden_size * config.speech_vocab_size)


def read_bandwidth() -> float:
    import numba

    @numba.njit(nogil=True, fastmath=True)
    def total(values: Any) -> float:
        found = np.float32(0)
        for place in range(values.size):  # a loop over the values themselves does not become vector instructions
            found += values[place]
        return found

    parts = np.array_split(np.ones(FLOATS, dtype=np.float32), threads())
    total(parts[0][:16])
    times = []
    with ThreadPoolExecutor(threads()) as pool:
        for _ in range(5):
            start = time.perf_counter()
            sums = list(pool.map(total, parts))
            times.append(time.perf_counter() - start)
    if sum(sums) <= 0:
        raise RuntimeError("the sum of ones is not positive")
    return 4 * FLOATS / min(times)


def cache_bytes(config: Any, rows: int, length: float) -> float:
    return 4.0 * 2 * rows * length * config.hidden_size * config.num_layers


def measures(config: Any, rows: int, lengths: dict[str, float], *, quick: bool) -> Iterator[tuple[str, float]]:
    """Steps a second at the roofline for each named length of the cache, and the two rates that it is made of."""
    seconds, bandwidth = products(config, rows, quick=quick), read_bandwidth()
    yield "products", 2e-9 * multiplications(config, rows) / seconds
    yield "bandwidth", bandwidth / 1e9
    for name, length in lengths.items():
        yield name, 1 / (seconds + cache_bytes(config, rows, length) / bandwidth)
