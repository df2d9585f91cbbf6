"""One step of sampling on rows of logits, as three libraries do it: chain, noise, and the tokens on the host.

Repetition penalty over 300 ids, temperature 0.8, min-p 0.05, top-p (1: off). Every function makes its inputs and
returns a callable that does one step, from logits in its framework to the ids of the tokens.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

HISTORY = 300
TEMPERATURE, MIN_P, PENALTY = 0.8, 0.05, 1.2

Step = Callable[[], NDArray[np.int64]]


def _inputs(rows: int, vocab: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (rows, vocab)).astype(np.float32), rng.integers(0, vocab, (rows, HISTORY))


def ours(rows: int, vocab: int, top_p: float) -> Step:
    """As `sampler.generation` draws: `run_rows`, noise of each row's own key, `pick`."""
    import itertools

    import sampler  # noqa: F401 - a fast BLAS is loaded before MLX
    import mlx.core as mx  # isort: skip

    from sampler.chain.draw import pick
    from sampler.chain.noise import NoiseKey, gumbel_rows
    from sampler.chain.pipeline import run_rows
    from sampler.config import SamplingConfig

    values, ids = _inputs(rows, vocab)
    logits, steps = mx.array(values), itertools.count()
    seen = np.zeros((rows, vocab), dtype=np.bool_)
    np.put_along_axis(seen, ids, values=True, axis=1)
    config = SamplingConfig(temperature=TEMPERATURE, min_p=MIN_P, repetition_penalty=PENALTY, top_p=top_p)
    keys = [NoiseKey(0, "bench", row) for row in range(rows)]

    def step() -> NDArray[np.int64]:
        scores = run_rows(logits, mx.array(seen), [config] * rows)
        noise = mx.array(gumbel_rows(keys, [next(steps)] * rows, vocab))
        return np.array(pick(scores.final, noise), dtype=np.int64)

    return step


def huggingface(rows: int, vocab: int, top_p: float) -> Step:
    """The processors of transformers in their own order, softmax and `torch.multinomial`."""
    import torch
    from transformers.generation import logits_process as processors

    values, ids = _inputs(rows, vocab)
    logits, history = torch.from_numpy(values), torch.from_numpy(ids)
    chain = processors.LogitsProcessorList(
        [
            processors.RepetitionPenaltyLogitsProcessor(PENALTY),
            processors.TemperatureLogitsWarper(TEMPERATURE),
            processors.MinPLogitsWarper(MIN_P),
            *([processors.TopPLogitsWarper(top_p)] if top_p < 1 else []),
        ]
    )

    @torch.inference_mode()
    def step() -> NDArray[np.int64]:
        probabilities = torch.softmax(chain(history, logits), dim=-1)
        return torch.multinomial(probabilities, num_samples=1)[:, 0].numpy()

    return step


def mlx_lm(rows: int, vocab: int, top_p: float) -> Step:
    """mlx-lm's logits processors row by row, as its batches call them, and its sampler on the batch."""
    import sampler  # noqa: F401 - a fast BLAS is loaded before MLX
    import mlx.core as mx  # isort: skip

    from sampler.engines.mlx_lm import MlxLmEngine

    module, _ = MlxLmEngine.source.load()
    values, ids = _inputs(rows, vocab)
    logits, history = mx.array(values), [mx.array(row) for row in ids]
    penalize = module.make_logits_processors(repetition_penalty=PENALTY, repetition_context_size=HISTORY)
    draw = module.make_sampler(temp=TEMPERATURE, top_p=top_p if top_p < 1 else 0.0, min_p=MIN_P)

    def step() -> NDArray[np.int64]:
        penalized = []
        for row in range(rows):
            scores = logits[row : row + 1]
            for processor in penalize:
                scores = processor(history[row], scores)
            penalized.append(scores)
        scores = mx.concatenate(penalized)
        return np.array(draw(scores - mx.logsumexp(scores, axis=-1, keepdims=True)), dtype=np.int64)

    return step
