"""Noise that belongs to the suite: Gumbel noise for (seed, case, request, step, token id) from a counter.

The bits are Philox 4x64-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405) as NumPy computes them; what is ours is
the key, the counter and the conversion to floats, so that no framework's generator is involved and any language can
make the same noise:

- key: BLAKE2b-128 of the UTF-8 text `seed/case/request`, as two little-endian 64-bit words;
- counter: (1 + token // 4, step, 0, 0); token t takes word t % 4 of its block;
- u = (floor(word / 2^12) + 1/2) / 2^52, exact in float64 and never 0 or 1;
- gumbel = -ln(-ln u), computed in float64, rounded to float32: from -3.61 to 36.75;
- the coin of a step, for a stage that acts at random: u of the first word at counter (1, step, 1, 0), in float64.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NoiseKey:
    """Whose noise it is. seed: of the run; case: id of the cell; request: index within the cell."""

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

    def coin(self, step: int) -> float:
        """One uniform number in (0, 1) for a step, of which no token's noise knows."""
        return float(_uniform(random_words(self, step, 1, purpose=1))[0])


def random_words(key: NoiseKey, step: int, count: int, purpose: int = 0) -> NDArray[np.uint64]:
    """The first `count` random words of one step: uint64 (count,). NumPy adds one to the counter before each block.

    purpose: 0 for the noise of tokens, 1 for coins.
    """
    return np.random.Philox(key=key.words(), counter=[0, step, purpose, 0]).random_raw(count)


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def gumbel_rows(keys: Sequence[NoiseKey], steps: Sequence[int], vocab_size: int) -> NDArray[np.float32]:
    """Noise for one step of each of B rows: float32 (B, vocab_size)."""
    words = np.stack([random_words(key, step, vocab_size) for key, step in zip(keys, steps, strict=True)])
    noise: NDArray[np.float32] = (-np.log(-np.log(_uniform(words)))).astype(np.float32)
    return noise
