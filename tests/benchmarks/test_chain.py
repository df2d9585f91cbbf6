"""Our chain beside HuggingFace's processors, the same rows in the same process: compare the two lines."""

import numpy as np
import pytest

from sampler import SamplingConfig, process
from sampler.engines.huggingface import HuggingFaceEngine

CONFIG = SamplingConfig(top_p=0.95)


@pytest.fixture(params=[(64, 8_194), (1, 8_194)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def inputs(request):
    rng = np.random.default_rng(0)
    logits, uncond = (rng.normal(0, 3, request.param).astype(np.float32) for _ in range(2))
    return logits, [rng.integers(0, 8_194, 300).tolist() for _ in logits], CONFIG, uncond


@pytest.mark.benchmark(group="chain")
@pytest.mark.parametrize("engine", ["sampler", "huggingface"])
def test_chain(benchmark, engine, inputs):
    chain = process if engine == "sampler" else HuggingFaceEngine().process
    scores = np.array(benchmark(chain, *inputs))
    assert (scores > -np.inf).any(axis=-1).all()
