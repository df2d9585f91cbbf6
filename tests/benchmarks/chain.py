"""The chain with its noise, from logits to tokens, beside HuggingFace's processors and mlx-lm's: one step of sampling.

What does not change is made before. Every row has logits of its own and a history of 300 ids. Penalty 1.2, temperature
0.8, min-p 0.05 as Chatterbox has them, and a top-p; guidance is left out, because not every peer has it.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import mlx.core as mx
import numpy as np

from sampler import NoiseKey, SamplingConfig
from sampler.chain.draw import draw_rows
from sampler.chain.noise import RequestNoise
from sampler.chain.pipeline import find_problems, run_rows
from sampler.engines.mlx.lm import MlxLmEngine
from sampler.requests import Batch
from tests.benchmarks.clock import median_seconds
from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import Comparison

PAST = 300
PENALTY, TEMPERATURE, MIN_P = 1.2, 0.8, 0.05

Step = Callable[[], np.ndarray]  # draws one token for each row: (rows,)


def inputs(rows: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (rows, vocab), of which a chain leaves about five tokens, and histories int64 (rows, 300)."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (rows, vocab)).astype(np.float32), rng.integers(0, vocab, (rows, PAST))


def our_step(rows: int, vocab: int, top_p: float) -> Step:
    """The chain, noise, draw, measures and the search for problems: all that generation does with logits."""
    values, histories = inputs(rows, vocab)
    logits = mx.array(values)
    seen = np.zeros(values.shape, dtype=np.bool_)
    np.put_along_axis(seen, histories, values=True, axis=1)
    config = SamplingConfig(temperature=TEMPERATURE, min_p=MIN_P, repetition_penalty=PENALTY, top_p=top_p)
    batch = Batch(logits, (), [config] * rows, seen=seen)
    noises = [RequestNoise(NoiseKey(seed), vocab) for seed in range(rows)]
    greedy, steps = np.zeros(rows, dtype=np.bool_), itertools.count()
    mx.eval(logits)

    def step() -> np.ndarray:
        scores = run_rows(batch)
        drawn = draw_rows(scores, noises, [next(steps)] * rows, greedy)
        assert not find_problems(logits, scores.final).any()
        return drawn.tokens

    return step


def huggingface_step(rows: int, vocab: int, top_p: float) -> Step:
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as processors

    values, histories = inputs(rows, vocab)
    logits, ids = torch.from_numpy(values), torch.from_numpy(histories)
    chain = LogitsProcessorList(
        [
            processors.RepetitionPenaltyLogitsProcessor(PENALTY),
            processors.TemperatureLogitsWarper(TEMPERATURE),
            processors.MinPLogitsWarper(MIN_P),
            *([processors.TopPLogitsWarper(top_p)] if top_p < 1 else []),
        ]
    )

    def step() -> np.ndarray:
        with torch.inference_mode():
            scores = chain(ids, logits)
            return torch.multinomial(torch.softmax(scores, dim=-1), 1)[:, 0].numpy()

    return step


def mlx_lm_step(rows: int, vocab: int, top_p: float) -> Step:
    values, histories = inputs(rows, vocab)
    module, _ = MlxLmEngine.source.load()
    processors = module.make_logits_processors(repetition_penalty=PENALTY, repetition_context_size=PAST)
    sampler = module.make_sampler(temp=TEMPERATURE, top_p=top_p, min_p=MIN_P)
    logits, ids = mx.array(values), [mx.array(row) for row in histories]
    mx.eval(logits, ids)

    def step() -> np.ndarray:
        penalized = [logits[row : row + 1] for row in range(rows)]
        for processor in processors:
            penalized = [processor(past, row) for past, row in zip(ids, penalized, strict=True)]
        together = mx.concatenate(penalized)
        tokens = sampler(together - mx.logsumexp(together, axis=-1, keepdims=True))
        return np.array(tokens)

    return step


CASES = [(*shape, top_p) for shape in ((64, 8_194), (1, 8_194), (64, 151_936)) for top_p in (0.95, 1.0)]
GOALS = {(64, 8_194, 0.95): 3.0, (64, 8_194, 1.0): 1.0, (1, 8_194, 0.95): 1.0, (1, 8_194, 1.0): 1.0}
"""Beside HuggingFace."""


def _name(rows: int, vocab: int, top_p: float) -> str:
    return f"{rows} x {vocab:,}, top-p {top_p if top_p < 1 else 'off'}"


def _side(library: str, *, quick: bool) -> Iterator[tuple[str, float]]:
    make = STEPS[library]
    for case in CASES:
        yield _name(*case), 1_000 * median_seconds(make(*case), for_seconds=0.3 if quick else 2.0)


STEPS = {"ours": our_step, "huggingface": huggingface_step, "mlx_lm": mlx_lm_step}
SIDES = {library: partial(_side, library) for library in STEPS}


def _rows(peer: str, peer_name: str) -> Iterator[Row]:
    for case in CASES:
        measure = _name(*case)
        goal = GOALS.get(case) if peer == "huggingface" else None
        name = f"chain, {measure}" if peer == "huggingface" else f"chain, {measure}, {peer_name}"
        yield Row(name, Figure("ours", measure), "ms", Figure(peer, measure), peer_name, goal)


ROWS = (*_rows("huggingface", "HuggingFace"), *_rows("mlx_lm", "mlx-lm"))
COMPARISON = Comparison("chain", __name__, ("ours", "huggingface", "mlx_lm") * 3, ROWS)
