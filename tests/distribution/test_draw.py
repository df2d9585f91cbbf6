"""Drawing: Gumbel-max over the scores, n equal rows, and frequencies with a stated error rate.

The frequencies are tested with the Dvoretzky-Kiefer-Wolfowitz inequality in Massart's form: the largest distance
between the empirical and the true distribution function of n draws exceeds e with probability at most 2 exp(-2 n e^2).
A discrepancy of more than 2 e is then missed with at most the same probability.
"""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from sampler import NoiseKey, SamplingConfig, draw, process
from sampler.chain import pick
from sampler.errors import ConfigError, LogitsError

ALPHA = 1e-9
DRAWS = 20_000
ENVELOPE = float(np.sqrt(np.log(2 / ALPHA) / (2 * DRAWS)))


def largest_distance(tokens: np.ndarray, probabilities: np.ndarray) -> float:
    counts = np.bincount(tokens, minlength=len(probabilities))
    return float(np.abs(np.cumsum(counts) / len(tokens) - np.cumsum(probabilities)).max())


@given(st.integers(0, 2**32 - 1))
def test_draw_is_the_argmax_of_score_and_noise(seed):
    logits = np.random.default_rng(seed).normal(0, 3, 50).astype(np.float32)
    config = SamplingConfig(top_p=0.9)
    scores = np.array(process(logits[None], [[1, 2]], config))[0]
    expected = [int(np.argmax(scores + NoiseKey(seed, "", index).gumbel(0, 50))) for index in range(3)]
    assert np.array(draw(logits, [1, 2], config, 3, seed)).tolist() == expected


def test_frequencies_follow_the_distribution():
    """False alarm 1e-9; a wrong distribution 0.047 away in distribution function is missed with 1e-9."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1.5, 40).astype(np.float32)
    config = SamplingConfig(temperature=0.8, min_p=0.02, repetition_penalty=1.3)
    probabilities = softmax(np.array(process(logits[None], [[3, 4]], config))[0].astype(np.float64))
    tokens = np.array(draw(logits, [3, 4], config, DRAWS, seed=6))
    assert largest_distance(tokens, probabilities) < ENVELOPE
    assert set(tokens.tolist()) <= set(np.flatnonzero(probabilities > 0).tolist())


def test_a_wrong_sampler_is_detected():
    logits = np.random.default_rng(5).normal(0, 1.5, 40).astype(np.float32)
    right, wrong = (SamplingConfig(temperature=t, min_p=0, repetition_penalty=1) for t in (0.5, 1.0))
    ours, other = (softmax(np.array(process(logits[None], [[]], each))[0].astype(float)) for each in (right, wrong))
    assert np.abs(np.cumsum(ours) - np.cumsum(other)).max() > 2 * ENVELOPE
    assert largest_distance(np.array(draw(logits, [], wrong, DRAWS, seed=6)), ours) > ENVELOPE


def test_ties_go_to_the_lowest_id_removed_tokens_stay_removed_and_misuse_is_named():
    scores = mx.array([[1.0, 2.0, 2.0], [-mx.inf, 0.0, -mx.inf]])
    gumbel = mx.array([[0.0, 0.0, 0.0], [36.7, -3.6, 36.7]])
    assert np.array(pick(scores, gumbel)).tolist() == [1, 1]
    with pytest.raises(ConfigError, match=r"n = -1 draws \(expected 0 or more\)"):
        draw(np.zeros(3), [], SamplingConfig(), -1, 0)
    with pytest.raises(LogitsError, match=r"logits have shape \(1, 3\) \(draw takes one row"):
        draw(np.zeros((1, 3)), [], SamplingConfig(), 1, 0)
