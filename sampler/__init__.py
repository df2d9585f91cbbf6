"""A stochastic-sampling and long-form regression suite for autoregressive token generators."""

from sampler import blas

blas.prepare()  # before anything imports mlx.core

from sampler.chain import NoiseKey, draw, pick, process  # noqa: E402
from sampler.config import STAGES, SamplingConfig, Stage  # noqa: E402
from sampler.version import __version__  # noqa: E402

__all__ = ["STAGES", "NoiseKey", "SamplingConfig", "Stage", "__version__", "draw", "pick", "process"]
