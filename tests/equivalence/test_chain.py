"""The MLX chain against float64 from the definition and against HuggingFace's processors."""

from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampler import SamplingConfig, process
from sampler.errors import LogitsError
from sampler.statistics.distance import total_variation
from tests.equivalence.test_processors import HUGGINGFACE, disagreement, scores_of
from tests.support import REFERENCE, chain_inputs, configs, kept_bounds

TWICE = {"order": ("repetition_penalty",), "repetition_penalty": 2.0}
COLD = {"temperature": 0.5, "min_p": 0.2}
INF = np.inf


@pytest.mark.parametrize("engine", [REFERENCE, HUGGINGFACE], ids=["definition", "huggingface"])
@given(data=st.data(), inputs=chain_inputs(), guided=st.booleans())
def test_chain_equals_the_definition_and_huggingface(engine, data, inputs, guided):
    logits, uncond, history = inputs
    config = data.draw(configs(exact_only=engine is HUGGINGFACE))
    arguments = logits, history, config, uncond if guided else None
    assert disagreement(scores_of(*arguments), engine.process(*arguments), kept_bounds(*arguments), 1e-6) == ""


@given(chain_inputs())
def test_neutral_knobs_are_the_identity(inputs):
    logits, uncond, history = inputs
    neutral = SamplingConfig(temperature=1, top_p=1, min_p=0, top_k=0, repetition_penalty=1, cfg_weight=0)
    np.testing.assert_array_equal(scores_of(logits, history, neutral, uncond), logits)
    np.testing.assert_array_equal(scores_of(logits, history, SamplingConfig(order=()), uncond), logits)


EXAMPLES = [
    # Worked by hand. Penalty 2: once per distinct id, negative scores times 2, positive ones halved, zero stays.
    (TWICE, [4.0, -1.0, 0.0, 3.0], [0, 0, 1, 2], [2.0, -2.0, 0.0, 3.0]),
    # An id beyond the vocabulary penalises nothing, token 0 least of all; nor does an empty history.
    (TWICE, [4.0, 3.0], [7], [4.0, 3.0]),
    (TWICE, [4.0, 3.0], [7, 1], [4.0, 1.5]),
    (TWICE, [4.0, 3.0], [], [4.0, 3.0]),
    # p = (.5, .3, .2) at temperature 1: .5 does not reach .6, .5 + .3 does, and the crossing token stays.
    ({"order": ("top_p",), "top_p": 0.6}, np.log([0.5, 0.3, 0.2]), [], [np.log(0.5), np.log(0.3), -INF]),
    # Four equal tokens, mass exactly at the edge: half of them, whichever.
    ({"order": ("top_p",), "top_p": 0.5}, [0.0, 0.0, 0.0, 0.0], [], [0.0, 0.0, -INF, -INF]),
    # The nucleus is that of what min-p left, renormalised: (.6, .3) becomes (2/3, 1/3).
    ({"order": ("min_p", "top_p"), "min_p": 0.2, "top_p": 0.65},
     np.log([0.6, 0.3, 0.1]), [], [np.log(0.6), -INF, -INF]),
    # top-k keeps ties with the k-th score.
    ({"order": ("top_k",), "top_k": 2}, [3.0, 2.0, 2.0, 1.0], [], [3.0, 2.0, 2.0, -INF]),
    # Temperature before min-p keeps less than after: .2 x .5 at T = .5 is a ratio of .16.
    ({"order": ("temperature", "min_p"), **COLD}, np.log([0.5, 0.2]), [], [2 * np.log(0.5), -INF]),
    ({"order": ("min_p", "temperature"), **COLD}, np.log([0.5, 0.2]), [], [2 * np.log(0.5), 2 * np.log(0.2)]),
    # Temperature 0 keeps the lowest id among the maxima, after the last stage: the penalty moves the maximum.
    ({"order": ("temperature", "repetition_penalty"), "temperature": 0, "repetition_penalty": 4.0},
     [8.0, 4.0, 4.0], [0], [-INF, 4.0, -INF]),
    # min_tokens_to_keep spares the most likely ones.
    ({"order": ("min_p",), "min_p": 1.0, "min_tokens_to_keep": 2}, [3.0, 2.0, 1.0], [], [3.0, 2.0, -INF]),
]  # fmt: skip


@pytest.mark.parametrize(("knobs", "logits", "history", "expected"), EXAMPLES)
def test_worked_examples_on_three_implementations(knobs, logits, history, expected):
    logits, config = np.array([logits], dtype=np.float32), SamplingConfig(**knobs)
    for engine in (scores_of, REFERENCE.process, HUGGINGFACE.process):
        scores = engine(logits, [history], config, None)[0]
        if config.order == ("top_p",) and len(set(logits[0].tolist())) == 1:
            scores = np.sort(scores)[::-1]  # any subset of the right size is right
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [8_194, 151_936])
def test_large_vocabularies_keep_their_precision(size):
    """A flat distribution over many tokens: a float32 running sum without care is off by 1e-4 of the mass and more."""
    logits = np.random.default_rng(size).normal(0, 0.01, (1, size)).astype(np.float32)
    for top_p in (0.5, 0.95):
        config = SamplingConfig(order=("top_p",), top_p=top_p)
        ours, exact = (engine(logits, [[]], config, None) for engine in (scores_of, REFERENCE.process))
        assert abs(int((ours > -np.inf).sum()) - int((exact > -np.inf).sum())) <= 2e-6 * size + 1
        assert total_variation(ours, exact)[0] < 1e-5


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    logits = mx.random.normal((3, 500), key=mx.random.key(1)).astype(dtype)
    history = [[1, 2, 3]] * 3
    config = SamplingConfig(top_p=0.9)
    expected = REFERENCE.process(np.array(logits.astype(mx.float32)), history, config)
    scores = process(logits, history, config)
    assert scores.dtype == mx.float32
    assert total_variation(np.array(scores), expected).max() < 1e-5


def test_a_worker_thread_gets_the_same_scores():
    logits = np.random.default_rng(0).normal(0, 3, (4, 100)).astype(np.float32)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(scores_of, logits, [[1]] * 4, SamplingConfig()).result()
    np.testing.assert_array_equal(found, scores_of(logits, [[1]] * 4, SamplingConfig()))


def test_what_is_no_array_is_refused():
    with pytest.raises(LogitsError, match=r"logits of type str are no array of numbers"):
        process("abc", [[]], SamplingConfig())
    with pytest.raises(LogitsError, match=r"logits of type Tensor are no array .* turn others to float32 first"):
        process(torch.zeros((1, 3), dtype=torch.bfloat16), [[]], SamplingConfig())
