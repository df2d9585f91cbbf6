"""The MLX chain against float64 from the definition and against HuggingFace's processors."""

import threading

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from sampler import STAGES, SamplingConfig, process
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.errors import LogitsError
from sampler.statistics.distance import total_variation
from tests.support import REFERENCE, chain_inputs, configs, kept_bounds

HUGGINGFACE = HuggingFaceEngine()


def scores_of(logits, history, config, uncond=None) -> np.ndarray:
    return np.array(process(logits, history, config, uncond))


def assert_equal_up_to_rounding(left, right, must, may):
    """Kept sets within the grey zone's bounds; where there is none, probabilities within 1e-6."""
    for scores in (left, right):
        kept = scores > -np.inf
        assert not (must & ~kept).any()
        assert not (kept & ~may).any()
    decided = (must == may).all(axis=-1)
    difference = np.abs(softmax(left.astype(np.float64), -1) - softmax(right.astype(np.float64), -1))
    assert difference[decided].max(initial=0) < 1e-6


@given(chain_inputs(), configs(), st.booleans())
def test_chain_equals_the_definition(inputs, config, guided):
    logits, uncond, history = inputs
    uncond = uncond if guided else None
    expected = REFERENCE.process(logits, history, config, uncond)
    must, may = kept_bounds(logits, history, config, uncond)
    assert_equal_up_to_rounding(scores_of(logits, history, config, uncond), expected, must, may)


@given(chain_inputs(), configs(exact_only=True), st.booleans())
def test_chain_equals_huggingface(inputs, config, guided):
    logits, uncond, history = inputs
    uncond = uncond if guided else None
    expected = HUGGINGFACE.process(logits, history, config, uncond)
    must, may = kept_bounds(logits, history, config, uncond)
    assert_equal_up_to_rounding(scores_of(logits, history, config, uncond), expected, must, may)


@given(chain_inputs(), st.lists(configs(), min_size=4, max_size=4))
def test_a_row_has_its_own_knobs_and_ignores_its_neighbours(inputs, configurations):
    logits, uncond, history = inputs
    chosen = configurations[: len(logits)]
    together = scores_of(logits, history, chosen, uncond)
    for row, config in enumerate(chosen):
        alone = scores_of(logits[row : row + 1], history[row : row + 1], config, uncond[row : row + 1])
        np.testing.assert_array_equal(together[row], alone[0])


@given(chain_inputs(), configs())
def test_process_is_pure(inputs, config):
    logits, uncond, history = inputs
    saved = logits.copy(), uncond.copy(), [list(row) for row in history]
    array = mx.array(logits)
    first, second = scores_of(array, history, config, uncond), scores_of(array, history, config, uncond)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.array(array), saved[0])
    np.testing.assert_array_equal(uncond, saved[1])
    assert history == saved[2]


@given(chain_inputs(), configs(), st.randoms(use_true_random=False))
def test_renaming_the_tokens_renames_the_scores(inputs, config, random):
    logits, uncond, history = inputs
    names = list(range(logits.shape[1]))
    random.shuffle(names)
    renamed = [[names[token] for token in row] for row in history]
    moved, moved_uncond = np.empty_like(logits), np.empty_like(uncond)
    moved[:, names], moved_uncond[:, names] = logits, uncond
    must, may = kept_bounds(logits, history, config, uncond)
    expected = scores_of(logits, history, config, uncond)
    assert_equal_up_to_rounding(scores_of(moved, renamed, config, moved_uncond)[:, names], expected, must, may)


@given(chain_inputs(), configs())
def test_the_two_conventions_of_guidance_meet_at_one_plus_the_weight(inputs, config):
    logits, uncond, history = inputs
    chatterbox = SamplingConfig(order=("cfg",), cfg_weight=config.cfg_weight)
    musicgen = SamplingConfig(order=("cfg",), cfg_weight=1 + config.cfg_weight, cfg_convention="unconditional")
    left, right = (scores_of(logits, history, each, uncond) for each in (chatterbox, musicgen))
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-4)


@given(chain_inputs())
def test_neutral_knobs_are_the_identity(inputs):
    logits, uncond, history = inputs
    neutral = SamplingConfig(temperature=1, top_p=1, min_p=0, top_k=0, repetition_penalty=1, cfg_weight=0)
    np.testing.assert_array_equal(scores_of(logits, history, neutral, uncond), logits)
    np.testing.assert_array_equal(scores_of(logits, history, SamplingConfig(order=()), uncond), logits)


@given(chain_inputs(), configs())
def test_history_is_a_set(inputs, config):
    logits, _, history = inputs
    shuffled = [sorted(row, reverse=True) + row for row in history]
    np.testing.assert_array_equal(scores_of(logits, history, config), scores_of(logits, shuffled, config))


@pytest.mark.parametrize(
    ("config", "logits", "history", "expected"),
    [
        # Worked by hand. Penalty 2: once per distinct id, negative scores times 2, positive ones halved, zero stays.
        (
            SamplingConfig(order=("repetition_penalty",), repetition_penalty=2.0),
            [4.0, -1.0, 0.0, 3.0],
            [0, 0, 1, 2],
            [2.0, -2.0, 0.0, 3.0],
        ),
        # An id beyond the vocabulary penalises nothing, token 0 least of all; nor does an empty history.
        (SamplingConfig(order=("repetition_penalty",), repetition_penalty=2.0), [4.0, 3.0], [7], [4.0, 3.0]),
        (SamplingConfig(order=("repetition_penalty",), repetition_penalty=2.0), [4.0, 3.0], [7, 1], [4.0, 1.5]),
        (SamplingConfig(order=("repetition_penalty",), repetition_penalty=2.0), [4.0, 3.0], [], [4.0, 3.0]),
        # p = (.5, .3, .2) at temperature 1: .5 does not reach .6, .5 + .3 does, and the crossing token stays.
        (SamplingConfig(order=("top_p",), top_p=0.6), np.log([0.5, 0.3, 0.2]), [], [np.log(0.5), np.log(0.3), -np.inf]),
        # Four equal tokens, mass exactly at the edge: half of them, whichever.
        (SamplingConfig(order=("top_p",), top_p=0.5), [0.0, 0.0, 0.0, 0.0], [], [0.0, 0.0, -np.inf, -np.inf]),
        # The nucleus is that of what min-p left, renormalised: (.6, .3) becomes (2/3, 1/3).
        (
            SamplingConfig(order=("min_p", "top_p"), min_p=0.2, top_p=0.65),
            np.log([0.6, 0.3, 0.1]),
            [],
            [np.log(0.6), -np.inf, -np.inf],
        ),
        # top-k keeps ties with the k-th score.
        (SamplingConfig(order=("top_k",), top_k=2), [3.0, 2.0, 2.0, 1.0], [], [3.0, 2.0, 2.0, -np.inf]),
        # Temperature before min-p keeps less than after: .2 x .5 at T = .5 is a ratio of .16.
        (
            SamplingConfig(order=("temperature", "min_p"), temperature=0.5, min_p=0.2),
            np.log([0.5, 0.2]),
            [],
            [2 * np.log(0.5), -np.inf],
        ),
        (
            SamplingConfig(order=("min_p", "temperature"), temperature=0.5, min_p=0.2),
            np.log([0.5, 0.2]),
            [],
            [2 * np.log(0.5), 2 * np.log(0.2)],
        ),
        # Temperature 0 keeps the lowest id among the maxima, after the last stage: the penalty moves the maximum.
        (
            SamplingConfig(order=("temperature", "repetition_penalty"), temperature=0, repetition_penalty=4.0),
            [8.0, 4.0, 4.0],
            [0],
            [-np.inf, 4.0, -np.inf],
        ),
        # min_tokens_to_keep spares the most likely ones.
        (
            SamplingConfig(order=("min_p",), min_p=1.0, min_tokens_to_keep=2),
            [3.0, 2.0, 1.0],
            [],
            [3.0, 2.0, -np.inf],
        ),
    ],
)
def test_worked_examples_on_three_implementations(config, logits, history, expected):
    logits = np.array([logits], dtype=np.float32)
    for engine in (scores_of, REFERENCE.process, HUGGINGFACE.process):
        scores = engine(logits, [history], config, None)[0]
        if config.order == ("top_p",) and len(set(logits[0].tolist())) == 1:
            scores = np.sort(scores)[::-1]  # any subset of the right size is right
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_temperature_after_truncation_is_another_distribution():
    """At T = 5, p = (.5, .3, .2), top-p .45: two tokens are left in HuggingFace's order, one in mlx-lm's."""
    logits = np.log([[0.5, 0.3, 0.2]]).astype(np.float32)
    temper_first = SamplingConfig(order=("temperature", "top_p"), temperature=5, top_p=0.45)
    truncate_first = SamplingConfig(order=("top_p", "temperature"), temperature=5, top_p=0.45)
    assert (scores_of(logits, [[]], temper_first) > -np.inf).sum() == 2
    assert (scores_of(logits, [[]], truncate_first) > -np.inf).sum() == 1


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
    found = []
    worker = threading.Thread(target=lambda: found.append(scores_of(logits, [[1]] * 4, SamplingConfig())))
    worker.start()
    worker.join()
    np.testing.assert_array_equal(found[0], scores_of(logits, [[1]] * 4, SamplingConfig()))


@pytest.mark.parametrize(
    ("logits", "history", "config", "expected"),
    [
        ([[0.0, np.nan]], [[]], SamplingConfig(), "the logits of row 0 contain NaN or +inf"),
        ([[0.0, 1.0], [0.0, np.inf]], [[], []], SamplingConfig(), "the logits of row 1 contain NaN or +inf"),
        ([[-np.inf, -np.inf]], [[]], SamplingConfig(), "no token is left in row 0 after the chain"),
        (
            [[0.0, 1e30]],
            [[]],
            SamplingConfig(temperature=1e-30),
            "no token is left in row 0 after the chain, or a score",
        ),
        ([[0.0, 1.0]], [[-1]], SamplingConfig(), "the history of row 0 contains -1 (token ids are 0 or more)"),
        ([[0.0, 1.0]], [[2**70, -(2**70)]], SamplingConfig(), "the history of row 0 contains -1 (token ids"),
        ([[0.0, 1.0]], [[1.7]], SamplingConfig(), "the history of row 0 contains 1.7 (token ids are integers)"),
        ([[0.0, 1.0]], [[True]], SamplingConfig(), "the history of row 0 contains True (token ids are integers)"),
        ([[0.0, 1e300]], [[]], SamplingConfig(), "the logits of row 0 contain NaN or +inf"),
        ([[0.0, 1.0]], [], SamplingConfig(), "history has 0 rows (the logits have 1)"),
        ([[0.0, 1.0]], [[]], [SamplingConfig()] * 2, "config has 2 rows (the logits have 1)"),
        ([0.0, 1.0], [[]], SamplingConfig(), "logits have shape (2,) (expected (rows, vocabulary)"),
        (np.zeros((1, 0)), [[]], SamplingConfig(), "logits have shape (1, 0)"),
    ],
)
def test_logits_that_cannot_be_drawn_from_are_refused(logits, history, config, expected):
    with pytest.raises(LogitsError) as error:
        process(np.array(logits), history, config)
    assert str(error.value).startswith(expected)


def test_what_is_no_array_is_refused():
    with pytest.raises(LogitsError, match=r"logits of type str are no array of numbers"):
        process("abc", [[]], SamplingConfig())
    with pytest.raises(LogitsError, match=r"logits of type Tensor are no array .* turn others to float32 first"):
        process(torch.zeros((1, 3), dtype=torch.bfloat16), [[]], SamplingConfig())


def test_ids_beyond_64_bits_are_beyond_the_vocabulary():
    np.testing.assert_array_equal(
        scores_of(np.zeros((1, 2)), [[2**70]], SamplingConfig()), scores_of(np.zeros((1, 2)), [[]], SamplingConfig())
    )


def test_unconditional_logits_must_fit():
    with pytest.raises(
        LogitsError, match=r"uncond_logits have shape \(1, 3\) \(expected that of the logits, \(1, 2\)\)"
    ):
        process(np.zeros((1, 2)), [[]], SamplingConfig(), np.zeros((1, 3)))
    with pytest.raises(LogitsError, match="contain NaN or"):
        process(np.zeros((1, 2)), [[]], SamplingConfig(), np.array([[0, np.nan]]))


def test_every_stage_of_the_contract_is_known():
    assert STAGES == ("cfg", "alignment", "repetition_penalty", "temperature", "top_k", "min_p", "top_p")
