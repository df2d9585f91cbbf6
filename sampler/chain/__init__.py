"""logits -> scores -> token: pure functions on arrays, sampling parameters for every row."""

from sampler.chain.draw import draw, pick
from sampler.chain.noise import NoiseKey
from sampler.chain.pipeline import process

__all__ = ["NoiseKey", "draw", "pick", "process"]
