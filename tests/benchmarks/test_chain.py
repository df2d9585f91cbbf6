"""One step of sampling for a batch, ours beside its peers', the same rows in the same process: compare the lines."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from tests.benchmarks import chain_work

SHAPES = ((64, 8_194), (64, 151_936), (1, 8_194))


@pytest.mark.benchmark(group="chain")
@pytest.mark.parametrize("engine", ["ours", "huggingface", "mlx_lm"])
@pytest.mark.parametrize("top_p", [0.95, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_chain(benchmark, engine, shape, top_p):
    torch.manual_seed(0)
    mx.random.seed(0)
    step = getattr(chain_work, engine)(*shape, top_p)
    tokens = benchmark(step)
    assert tokens.shape == shape[:1]
    assert ((tokens >= 0) & (tokens < shape[1])).all()
    draws = {step().tobytes() for _ in range(2 if shape[0] > 1 else 40)}
    assert len(draws) > 1, "the same draws again and again"


@pytest.mark.parametrize("peer", ["huggingface", "mlx_lm"])
def test_what_is_timed_is_the_same_chain(peer):
    """In many steps ours and the peer draw, of each row, tokens that the other draws as well."""
    drawn, others = (np.stack([step() for _ in range(300)]) for step in (work(peer), work("ours")))
    for theirs, own in zip(drawn.T, others.T, strict=True):
        assert theirs.shape == own.shape
        often = {int(token) for token in own if (own == token).mean() > 0.2}
        assert often <= set(theirs.tolist())
        assert {int(token) for token in theirs if (theirs == token).mean() > 0.2} <= set(own.tolist())


def work(engine: str) -> chain_work.Step:
    return getattr(chain_work, engine)(4, 500, 0.95)
