"""The checks of `sampler doctor`: versions, device, BLAS, and the speed of matrix products for a second."""

import importlib.metadata
import platform
import time
from dataclasses import dataclass

import mlx.core as mx

from sampler.runtime import blas
from sampler.version import __version__

PACKAGES = ("mlx", "numpy", "scipy", "safetensors", "tokenizers", "torch", "transformers")
SLOW_GIGAFLOPS = 15.0
"""The BLAS in MLX's wheel computes 1 to 6 billion operations a second on one core, OpenBLAS 40 and more."""


@dataclass(frozen=True)
class Diagnosis:
    """facts: name and value, in order. gigaflops: of float32 products. hints: possible improvements."""

    facts: tuple[tuple[str, str], ...]
    gigaflops: float
    hints: tuple[str, ...]


def diagnose(seconds: float = 1.0) -> Diagnosis:
    """Examine this machine for about `seconds`."""
    current = blas.prepare()
    facts = [("sampler", __version__), ("python", platform.python_version()), ("platform", platform.platform())]
    facts += [(name, _version(name)) for name in PACKAGES]
    facts += [("device", str(mx.default_device())), ("BLAS of MLX", current.name)]
    speed = measure_speed(seconds)
    hints = [current.hint] if current.hint else []
    if speed < SLOW_GIGAFLOPS and not hints:
        hints.append("matrix products are slow here: is another program using the cores?")
    if _version("torch") == "not installed":
        hints.append("pip install 'sampler-suite[reference]' lets `sampler run` compare with HuggingFace")
    return Diagnosis(tuple(facts), speed, tuple(hints))


def measure_speed(seconds: float) -> float:
    """Billions of float32 operations per second, in products of the shape of a step of 32 rows."""
    rows, weights = mx.random.normal((32, 1024)), mx.random.normal((4096, 1024))
    mx.eval(rows, weights)
    mx.eval(rows @ weights.T)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        mx.eval(rows @ weights.T)
        count += 1
    return count * 2 * 32 * 1024 * 4096 / (time.perf_counter() - start) / 1e9


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
