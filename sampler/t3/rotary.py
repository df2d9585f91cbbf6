"""Rotary positions with Llama 3's frequency scaling."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.t3.config import T3Config

GROWTH = 1024

Angles = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Cosines and sines of some positions, (N, head_size) each."""


def inverse_frequencies(config: T3Config) -> NDArray[np.float32]:
    """Angle per position of each pair of channels: float32 (head_size / 2,).

    Source: `_compute_llama3_parameters` in transformers `modeling_rope_utils.py`, float32 step by step, so that the
    tables agree with upstream's almost to the last bit.
    """
    size = config.head_size
    one = np.float32(1.0)
    plain = one / (np.float32(config.rope_theta) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size)))
    wavelength = np.float32(2 * np.pi) / plain
    low = np.float32(config.rope_original_length / config.rope_low_frequency_factor)
    high = np.float32(config.rope_original_length / config.rope_high_frequency_factor)
    slow = np.where(wavelength > low, plain / np.float32(config.rope_factor), plain)
    span = np.float32(config.rope_high_frequency_factor - config.rope_low_frequency_factor)
    smooth = (
        np.float32(config.rope_original_length) / wavelength - np.float32(config.rope_low_frequency_factor)
    ) / span
    blended = (one - smooth) * slow / np.float32(config.rope_factor) + smooth * slow
    medium = (wavelength >= high) & (wavelength <= low)
    return np.where(medium, blended, slow).astype(np.float32)


class RotaryTable:
    """Cosines and sines for every position, computed as needed."""

    def __init__(self, config: T3Config) -> None:
        self._frequencies = np.tile(inverse_frequencies(config), 2)
        self._length = 0
        self._grow(GROWTH)

    def _grow(self, length: int) -> None:
        self._length = -(-length // GROWTH) * GROWTH
        angles = np.arange(self._length, dtype=np.float32)[:, None] * self._frequencies
        self._cosine, self._sine = np.cos(angles), np.sin(angles)

    def rows(self, positions: NDArray[np.int64]) -> Angles:
        """Cosines and sines for given positions (N,): two arrays (N, head_size)."""
        if positions.max(initial=0) >= self._length:
            self._grow(int(positions.max()) + 1)
        return self._cosine[positions], self._sine[positions]


def rotate(rows: mx.array, cosine: mx.array, sine: mx.array) -> mx.array:
    """Rotate channel pairs (i, i + head_size / 2), the layout of `LlamaAttention`; float32, returned as `rows`."""
    half = rows.shape[-1] // 2
    turned = mx.concatenate([-rows[..., half:], rows[..., :half]], axis=-1)
    return (rows * cosine + turned * sine).astype(rows.dtype)
