"""A stochastic-sampling and long-form regression suite for autoregressive token generators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sampler.config import SamplingConfig
from sampler.loops import LoopGuard
from sampler.runtime import blas
from sampler.stages import STAGES, Stage
from sampler.version import __version__

if TYPE_CHECKING:
    from sampler.chain import NoiseKey, draw, pick, process
    from sampler.conformance import run_conformance

__all__ = [
    "STAGES",
    "LoopGuard",
    "NoiseKey",
    "SamplingConfig",
    "Stage",
    "__version__",
    "draw",
    "pick",
    "process",
    "run_conformance",
]

blas.prepare()  # before anything imports mlx.core


def __getattr__(name: str) -> Any:
    """Import what needs MLX only on first use: a LoopGuard works in a token loop without it."""
    if name in ("NoiseKey", "draw", "pick", "process"):
        return getattr(import_module("sampler.chain"), name)
    if name == "run_conformance":
        return import_module("sampler.conformance").run_conformance
    raise AttributeError(f"module 'sampler' has no attribute {name!r}")
