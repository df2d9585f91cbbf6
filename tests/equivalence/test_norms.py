"""Every layer norm of the core beside torch's, both against the definition in float64: on ordinary and on hard rows."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch

from sampler.t3 import norms
from sampler.t3.conditioning import LAYER_NORM_EPS
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from sampler.t3.norms import blocked_mean, layer_norm
from tests.support import TINY, TURBO_TINY, random_weights

MOST = 1.1
"""The core's error over torch's, as root mean square over all values of a case."""
EPSILON = 1e-5
ROWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ordinary": lambda rows: rows,
    "small": lambda rows: 1e-3 * rows,
    "large": lambda rows: 1e4 * rows,
    "mean 10": lambda rows: rows + 10,
    "mean 1,000": lambda rows: rows + 1000,
    "mean 1, deviation 0.001": lambda rows: 1e-3 * rows + 1,
    "mean 100, deviation 0.01": lambda rows: 1e-2 * rows + 100,
    "positive": np.abs,
    "one of 300": lambda rows: rows + 300 * (np.arange(rows.shape[1]) == 3),  # trained models: arXiv:2402.17762
    "two that hide the rest": lambda rows: 0.02 * rows + np.eye(1, rows.shape[1], 3) * 50 - np.eye(1, rows.shape[1], 7),
}
Norm = Callable[[mx.array, mx.array, mx.array], mx.array]


def of_gpt2(place: str) -> Norm:
    def norm(rows: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
        name = {"first": "tfmr.h.0.ln_1", "second": "tfmr.h.0.ln_2", "last": "tfmr.ln_f"}[place]
        backbone = model(TURBO_TINY, name, weight, bias).backbone
        layer = backbone.layers[0]
        return {"first": layer.ln_1, "second": layer.ln_2, "last": backbone.norm}[place](rows)

    return norm


def of_the_perceiver(rows: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    return model(TINY, "cond_enc.perceiver.attn.norm", weight, bias)._conditioning._norm(rows)


def model(config: T3Config, name: str, weight: mx.array, bias: mx.array) -> T3:
    tensors = random_weights(config, 0) | {f"{name}.weight": weight, f"{name}.bias": bias}
    return T3(tensors, config)


OF_THE_CORE = {
    "layer_norm": lambda *arrays: layer_norm(*arrays, EPSILON),
    "perceiver": of_the_perceiver,
    **{f"GPT-2, {place}": of_gpt2(place) for place in ("first", "second", "last")},
}


def one_mean(rows: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """Fault: centred once, in float32, as it was."""
    centred = rows - blocked_mean(rows)
    return centred / mx.sqrt(blocked_mean(centred * centred) + EPSILON) * weight + bias


def difference_of_squares(rows: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """Fault: the variance as the mean of squares less the square of the mean."""
    mean = blocked_mean(rows)
    return (rows - mean) / mx.sqrt(blocked_mean(rows * rows) - mean * mean + EPSILON) * weight + bias


def unbiased(rows: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """Fault: the variance of a sample, with D - 1."""
    size = rows.shape[-1]
    return layer_norm(rows, weight * mx.array(((size - 1) / size) ** 0.5), bias, EPSILON * (size - 1) / size)


WRONG: dict[str, Norm] = {
    "MLX's, one number after the other": lambda *arrays: mx.fast.layer_norm(*arrays, EPSILON),
    "one mean": one_mean,
    "difference of squares": difference_of_squares,
    "variance of a sample": unbiased,
    "epsilon of 1e-6": lambda *arrays: layer_norm(*arrays, 1e-6),
    "epsilon of 1.01e-5": lambda *arrays: layer_norm(*arrays, 1.01e-5),
    "no bias": lambda rows, weight, bias: layer_norm(rows, weight, 0 * bias, EPSILON),
}


def ratio(norm: Norm, width: int, kind: str, count: int = 128) -> float:
    """Error of a norm over that of torch's float32."""
    rng = np.random.default_rng(width)
    rows = ROWS[kind](rng.standard_normal((count, width))).astype(np.float32)
    weight, bias = (rng.normal(mean, 0.1, width).astype(np.float32) for mean in (1, 0))
    wide = rows.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * weight + bias
    ours = norm(*(mx.array(array) for array in (rows, weight, bias)))
    tensors = [torch.from_numpy(array) for array in (rows, weight, bias)]
    theirs = torch.nn.functional.layer_norm(tensors[0], (width,), *tensors[1:], EPSILON)
    one, other = (np.sqrt(np.mean((np.asarray(array) - exact) ** 2)) for array in (ours, theirs))
    return float(one / other)


@pytest.mark.parametrize("width", [31, 192, 768, 1_024])
def test_the_layer_norm_is_at_most_as_far_from_float64_as_torchs(width, record_property):
    found = {kind: ratio(OF_THE_CORE["layer_norm"], width, kind) for kind in ROWS}
    record_property("errors over torch's", f"{min(found.values()):.2g} to {max(found.values()):.2g} (width {width})")
    assert max(found.values()) <= MOST, found


def test_a_row_of_one_value_is_the_bias():
    bias = mx.array([0.25])
    np.testing.assert_array_equal(layer_norm(mx.array([[3.0], [-1e4]]), mx.array([1.5]), bias, EPSILON), 0.25)


@pytest.mark.parametrize("where", OF_THE_CORE)
def test_every_layer_norm_of_the_core_is_that_one(where):
    assert max(ratio(OF_THE_CORE[where], 32, kind) for kind in ROWS) <= MOST


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layer_norm_is_farther(wrong):
    assert max(ratio(WRONG[wrong], 1_024, kind) for kind in ROWS) > MOST


@pytest.mark.parametrize("width", [31, 192, 768, 1_024])
def test_on_other_devices_it_is_about_as_far_as_torchs(width, monkeypatch):
    """MLX's own operations in float32: no hard row makes them worse, as a mean that is rounded once does."""
    monkeypatch.setattr(norms, "compiled", lambda rows: False)
    assert max(ratio(OF_THE_CORE["layer_norm"], width, kind) for kind in ROWS) <= 1.5


@pytest.mark.parametrize("through_mlx", [False, True])
def test_what_is_no_number_stays_in_its_row(through_mlx, monkeypatch):
    if through_mlx:
        monkeypatch.setattr(norms, "compiled", lambda rows: False)
    rows = np.random.default_rng(0).standard_normal((4, 3, 64)).astype(np.float32)
    rows[1, 2, 3], rows[2, 0, 5] = np.nan, np.inf
    normed = np.array(layer_norm(mx.array(rows), mx.ones(64), mx.zeros(64), EPSILON))
    lost = np.isnan(normed).all(-1)
    assert np.argwhere(lost).tolist() == [[1, 2], [2, 0]]
    assert np.isfinite(normed[~lost]).all()


def test_epsilon_is_torchs_default():
    assert torch.nn.LayerNorm(4).eps == LAYER_NORM_EPS == EPSILON
