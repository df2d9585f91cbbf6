"""The suite's own noise: Gumbel noise for (seed, case, request, step, token id) from a counter.

The bits are Philox 4x64-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405) as NumPy computes them. Key, counter and
conversion to floats are defined here, so that the noise depends on no framework's generator and any language can
reproduce it:

- key: BLAKE2b-128 of the UTF-8 text `seed/case/request`, as two little-endian 64-bit words;
- counter: (1 + token // 4, step, 0, 0); token t takes word t % 4 of its block;
- u = (floor(word / 2^12) + 1/2) / 2^52, exact in float64 and never 0 or 1;
- gumbel = -ln(-ln u), computed in float64, rounded to float32: from -3.61 to 36.75;
- the uniform of a step, for a stage that acts at random: u of the first word at counter (1, step, 1, 0), in float64.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sampler.chain.survivors import Left, left_of
from sampler.runtime.compiled import compiled


@dataclass(frozen=True)
class NoiseKey:
    """The key of one request's noise. seed: of the run; case: id of the cell; request: index within the cell."""

    seed: int
    case: str = ""
    request: int = 0

    def words(self) -> NDArray[np.uint64]:
        """The two words of the Philox key: uint64 (2,)."""
        digest = hashlib.blake2b(f"{self.seed}/{self.case}/{self.request}".encode(), digest_size=16).digest()
        return np.array(np.frombuffer(digest, dtype="<u8"), dtype=np.uint64)

    def gumbel(self, step: int, vocab_size: int) -> NDArray[np.float32]:
        """Noise for every token id of one step: float32 (vocab_size,)."""
        row: NDArray[np.float32] = gumbel_rows([self], [step], vocab_size)[0]
        return row

    def uniform(self, step: int) -> float:
        """One uniform number in (0, 1) for a step, independent of every token's noise."""
        return float(_uniform(random_words(self, step, 1, purpose=1))[0])


def random_words(key: NoiseKey, step: int, count: int, purpose: int = 0) -> NDArray[np.uint64]:
    """The first `count` random words of one step: uint64 (count,). NumPy increments the counter before each block.

    purpose: 0 for the noise of tokens, 1 for uniforms.
    """
    return np.random.Philox(key=key.words(), counter=[0, step, purpose, 0]).random_raw(count)


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _gumbel(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = (-np.log(-np.log(_uniform(words)))).astype(np.float32)
    return noise


def gumbel_rows(keys: Sequence[NoiseKey], steps: Sequence[int], vocab_size: int) -> NDArray[np.float32]:
    """Noise for one step of each of B rows: float32 (B, vocab_size)."""
    words = np.stack([random_words(key, step, vocab_size) for key, step in zip(keys, steps, strict=True)])
    return _gumbel(words)


@dataclass(frozen=True)
class RequestNoise:
    """Noise of one request, step -> float32 (vocab_size,); with its key `gumbel_left` computes only what it needs."""

    key: NoiseKey
    vocab_size: int

    def __call__(self, step: int) -> NDArray[np.float32]:
        """Noise for every token id of a step."""
        return self.key.gumbel(step, self.vocab_size)

    @cached_property
    def words(self) -> NDArray[np.uint64]:
        return self.key.words()


def gumbel_left(
    noises: Sequence[Callable[[int], NDArray[np.float32]]], steps: Sequence[int], left: Left
) -> NDArray[np.float32]:
    """Noise for the tokens that are left in B rows: float32 (n,), bit for bit equal to `noise(step)[token]`.

    A noise that is no RequestNoise is called, since its values are unknown.
    """
    few = np.array([isinstance(noise, RequestNoise) for noise in noises])
    few &= np.diff(left.starts) <= MANY
    keys = np.stack([noise.words if isinstance(noise, RequestNoise) else _UNKNOWN for noise in noises])
    words = _words_at(keys, np.array(steps, dtype=np.uint64), left, few)
    values = np.empty(len(words), dtype=np.float32)
    own = np.repeat(few, np.diff(left.starts))
    values[own] = _gumbel(words[own])
    for noise, step, (start, end), computed in zip(noises, steps, pairwise(left.starts), few, strict=True):
        if not computed:
            values[start:end] = noise(step)[left.tokens[start:end]]
    return values


MANY = 1024
"""For more tokens per row than this, NumPy's own generator for the whole row is faster."""


_UNKNOWN = np.zeros(2, dtype=np.uint64)


def gumbel_where(keys: Sequence[NoiseKey], steps: Sequence[int], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As `gumbel_rows` where kept, bool (B, V), and 0 elsewhere, where noise makes no difference."""
    return noise_where([RequestNoise(key, kept.shape[1]) for key in keys], steps, kept)


def noise_where(
    noises: Sequence[Callable[[int], NDArray[np.float32]]], steps: Sequence[int], kept: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """As `gumbel_where`, for any noise of each row."""
    left = left_of(np.where(kept, np.float32(0), np.float32(-np.inf)))
    noise = np.zeros(kept.shape, dtype=np.float32)
    noise[kept] = gumbel_left(noises, steps, left)
    return noise


LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ONE, OTHER = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
WEYL, OTHER_WEYL = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
"""Philox's multipliers, and the increments of the words of its key in each round."""


@compiled
def _words_at(
    keys: NDArray[np.uint64], steps: NDArray[np.uint64], left: Left, wanted: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """The random word of each token that is left in the wanted rows, uint64 (n,), from its block of Philox 4x64-10."""

    def upper_half(one: np.uint64, other: np.uint64) -> np.uint64:
        """The upper 64 of the 128 bits of a product, from products of 32 bits."""
        cross = (one >> HALF) * (other & LOW) + ((one & LOW) * (other & LOW) >> HALF)
        middle = (one & LOW) * (other >> HALF) + (cross & LOW)
        return (one >> HALF) * (other >> HALF) + (cross >> HALF) + (middle >> HALF)

    words, block = np.empty(len(left.tokens), dtype=np.uint64), np.empty(4, dtype=np.uint64)
    for row in np.flatnonzero(wanted):
        index = np.int64(-1)
        for place in range(left.starts[row], left.starts[row + 1]):
            if left.tokens[place] // 4 != index:
                index = left.tokens[place] // 4
                a, b, c, d = np.uint64(index + 1), steps[row], np.uint64(0), np.uint64(0)
                for turn in range(10):
                    key, other_key = keys[row, 0] + np.uint64(turn) * WEYL, keys[row, 1] + np.uint64(turn) * OTHER_WEYL
                    a, b, c, d = upper_half(c, OTHER) ^ b ^ key, c * OTHER, upper_half(a, ONE) ^ d ^ other_key, a * ONE
                block[0], block[1], block[2], block[3] = a, b, c, d
            words[place] = block[left.tokens[place] % 4]
    return words
