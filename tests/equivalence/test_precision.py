"""float16 and bfloat16: as far from float32 as upstream's torch in the same type, and one type all the way through.

How far that is on Finch stands in docs/decisions.md ("Half precision"); `python -m tests.precision` measures it.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from sampler import SamplingConfig, finch
from sampler.engines.core import CoreEngine
from sampler.errors import WeightsError
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache, SeparateCaches
from sampler.t3.checkpoint import Checkpoint, load_checkpoint
from sampler.t3.model import T3
from sampler.t3.norms import layer_norm, rms_norm
from sampler.t3.weights import read_weights
from sampler.variants import variant
from tests import precision
from tests.precision import cast, held_out_runs, measure
from tests.support import TINY, TURBO_SMALL, TURBO_TINY, random_text, random_voice, random_weights

HALVES = ("float16", "bfloat16")
OTHER = pytest.mark.nightly("the other type of each backbone takes seconds more")


def finch_distances(dtype: str):
    checkpoint = finch.load()
    tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
    return measure(tensors, checkpoint.config, checkpoint.voice, held_out_runs(2), dtype, [SamplingConfig()])[0]


def gpt2_distances(dtype: str):
    runs = [(random_text(TURBO_SMALL, 40, 3), np.random.default_rng(4).integers(0, TURBO_SMALL.bos_id, 120).tolist())]
    weights, voice = random_weights(TURBO_SMALL, 1), random_voice(TURBO_SMALL, 2)
    return measure(weights, TURBO_SMALL, voice, runs, dtype, [variant("turbo").config])[0]


@pytest.mark.parametrize(
    ("distances", "dtype"),
    [
        (finch_distances, "float16"), pytest.param(finch_distances, "bfloat16", marks=OTHER),
        (gpt2_distances, "bfloat16"), pytest.param(gpt2_distances, "float16", marks=OTHER),
    ],
)  # fmt: skip
def test_each_backbone_is_as_far_from_float32_as_torch_is(distances, dtype, record_property):
    ours, theirs = distances(dtype)
    medians = float(np.median(ours)), float(np.median(theirs))
    figures = f"core {medians[0]:.1e}, torch {medians[1]:.1e} ({dtype}, {distances.__name__})"
    record_property("median total variation from float32", figures)
    assert len(ours) > 100
    ratio = medians[0] / medians[1]
    assert 0.5 < ratio < 2, f"{ratio:.2g} times torch's distance"


def rounds_weights_only(tensors: dict[str, mx.array], dtype: str) -> dict[str, mx.array]:
    """Fault: it computes in float32 with rounded weights."""
    return {name: value.astype(mx.float32) for name, value in cast(tensors, dtype).items()}


def says_float16(tensors: dict[str, mx.array], dtype: str) -> dict[str, mx.array]:
    """Fault: it computes in bfloat16."""
    return cast(tensors, "bfloat16")


@pytest.mark.parametrize("wrong", [rounds_weights_only, says_float16])
def test_a_wrong_type_is_detected(wrong, monkeypatch):
    monkeypatch.setattr(precision, "cast", wrong)
    with pytest.raises(AssertionError, match="times torch's distance"):
        test_each_backbone_is_as_far_from_float32_as_torch_is(gpt2_distances, "float16", lambda name, value: None)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("config", [TINY, TURBO_TINY], ids=lambda config: config.name)
def test_everything_between_weights_and_logits_has_that_type(config, dtype):
    half, rows = getattr(mx, dtype), 2 if config.guidance else 1
    model, voice = T3(cast(random_weights(config, 5), dtype), config), random_voice(config, 6)
    seen: dict[str, mx.Dtype] = {}
    cache = KeyValueCache(config, rows)
    request = AttentionRequest(((0, 1),))
    prefix = model.prefix(random_text(config, 7, 1), voice)
    hidden, attention = model.backbone.prefill(prefix, cache, request, lambda name, value: seen.update({name: value}))
    assert {value.dtype for value in [prefix, hidden, *seen.values(), *cache.arrays()]} == {half}
    logits = [model.logits(hidden[:, -1])]
    embedded = model.embed_speech([7] * rows * 2, [1] * rows * 2)
    hidden, step_attention = model.backbone.step(embedded, SeparateCaches(config, [None, cache], rows), request)
    assert {value.dtype for value in [hidden, *cache.arrays()]} == {half}
    logits.append(model.logits(hidden))
    assert {value.dtype for value in [*logits, *attention, *step_attention[1]]} == {mx.float32}
    assert model.dtype == dtype


@pytest.mark.parametrize("dtype", HALVES)
def test_norms_accumulate_in_float32(dtype):
    """Rows of 4,096 equal squares: a sum in half precision would stop growing, or overflow."""
    rows = mx.full((2, 4_096), 200.0).astype(getattr(mx, dtype))
    ones, zeros = mx.ones(4_096).astype(rows.dtype), mx.zeros(4_096).astype(rows.dtype)
    normed = rms_norm(rows, ones, 1e-5)
    assert normed.dtype == rows.dtype
    np.testing.assert_array_equal(np.array(normed.astype(mx.float32)), 1)
    alternating = rows * mx.array([1.0, -1.0] * 2_048).astype(rows.dtype)
    np.testing.assert_array_equal(np.abs(np.array(layer_norm(alternating, ones, zeros, 1e-5).astype(mx.float32))), 1)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("config", [TINY, TURBO_TINY], ids=lambda config: config.name)
def test_a_request_depends_on_no_neighbour_in_half_precision_either(config, dtype):
    model = T3(cast(random_weights(config, 5), dtype), config)
    checkpoint = Checkpoint(model, None, random_voice(config, 6), "")
    texts = [tuple(random_text(config, 4 + index, index)) for index in range(5)]
    requests = [Request(text, SamplingConfig(), seed, 6 + seed) for seed, text in enumerate(texts)]
    generator = Generator(checkpoint, width=2, keep_logits=True)
    together = generator.generate(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = generator.generate([replace(request, slot=answer.record.slot)])
        assert alone.tokens == answer.tokens
        np.testing.assert_array_equal(alone.record.logits, answer.record.logits)


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_the_engine_says_what_it_computes_in(dtype):
    engine = CoreEngine.load(dtype=dtype)
    assert engine.info.dtype == dtype
    assert engine.predict("Hi.", [1, 2]).dtype == np.float32


def test_a_type_that_is_none_and_a_value_beyond_float16_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"dtype = 'int8' \(expected float32, float16, bfloat16\)"):
        load_checkpoint(finch.folder(), "int8")
    weights = random_weights(TINY, 0)
    weights["speech_emb.weight"][3, 5] = 7e4
    mx.save_safetensors(str(tmp_path / "weights.safetensors"), weights)
    read_weights(tmp_path / "weights.safetensors", TINY, "bfloat16")
    expected = r"'speech_emb.weight' has 1 of 2112 values beyond float16 \(load it as float32\)"
    with pytest.raises(WeightsError, match=expected):
        read_weights(tmp_path / "weights.safetensors", TINY, "float16")
