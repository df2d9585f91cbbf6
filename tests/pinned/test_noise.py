"""The suite's noise, bit by bit: another language must be able to make it, and it must never change unnoticed."""

import hashlib
import math
import struct

import numpy as np
import pytest

from sampler import NoiseKey
from sampler.chain.noise import gumbel_rows

MASK = 2**64 - 1


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox 4x64-10 in plain integers, from section 2 of Salmon et al. 2011 (doi:10.1145/2063384.2063405)."""
    first, second, third, fourth = counter
    for step in range(10):
        left, right = key[0] + step * 0x9E3779B97F4A7C15, key[1] + step * 0xBB67AE8584CAA73B
        low, high = first * 0xD2E7470EE14C6C93, third * 0xCA5A826395121157
        first, third = (high >> 64) ^ second ^ left & MASK, (low >> 64) ^ fourth ^ right & MASK
        second, fourth = high & MASK, low & MASK
    return first, second, third, fourth


def test_philox_is_the_published_one():
    """Known answers of the Random123 library (`kat_vectors`, philox4x64, 10 rounds)."""
    zeros, ones = philox((0,) * 4, (0,) * 2), philox((MASK,) * 4, (MASK,) * 2)
    assert zeros == (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
    assert ones == (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)


@pytest.mark.parametrize(("seed", "case", "request_index", "step"), [(0, "", 0, 0), (7, "smoke/top_k:0.8", 3, 250)])
def test_noise_and_uniform_follow_their_description(seed, case, request_index, step):
    """Key, counter and conversion as the module's docstring has them, in plain Python."""
    digest = hashlib.blake2b(f"{seed}/{case}/{request_index}".encode(), digest_size=16).digest()
    words, key = struct.unpack("<QQ", digest), NoiseKey(seed, case, request_index)
    noise = key.gumbel(step, 10)
    for token in range(10):
        uniform = ((philox((1 + token // 4, step, 0, 0), words)[token % 4] >> 12) + 0.5) / 2**52
        assert noise[token] == np.float32(-math.log(-math.log(uniform)))
    assert key.uniform(step) == ((philox((1, step, 1, 0), words)[0] >> 12) + 0.5) / 2**52


def test_pinned_values():
    key = NoiseKey(0, "pinned", 0)
    noise = key.gumbel(0, 4)
    assert noise.dtype == np.float32
    assert noise.tolist() == [0.2891041934490204, -0.7206623554229736, -0.91219562292099, 0.8871517181396484]
    assert [key.uniform(at) for at in range(3)] == [0.19051838364577323, 0.15636641199072054, 0.9352340672005927]


def test_noise_of_a_token_does_not_depend_on_the_vocabulary_or_the_neighbours():
    key = NoiseKey(3, "case", 1)
    np.testing.assert_array_equal(key.gumbel(5, 100), key.gumbel(5, 8_194)[:100])
    rows = gumbel_rows([NoiseKey(3, "case", 0), key], [9, 5], 100)
    np.testing.assert_array_equal(rows[1], key.gumbel(5, 100))


@pytest.mark.parametrize("word", [0, 1, 2**12, 2**63, MASK - 1, MASK])
def test_extreme_words_give_finite_noise(word, monkeypatch):
    """The noise of the least and of the greatest word is finite, so a removed token can never be drawn."""
    same = lambda key, step, count: np.full(count, word, dtype=np.uint64)  # noqa: E731 - shorter than a function
    monkeypatch.setattr("sampler.chain.noise.random_words", same)
    noise = NoiseKey(0).gumbel(0, 3)
    assert np.isfinite(noise).all()
    assert -3.62 < noise.min() <= noise.max() < 36.8
