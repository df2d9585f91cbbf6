"""Finch scores upstream's shipped runs, beside upstream's forward pass over the same tokens: CPU time a token.

Scoring is all that `sampler check TOKENS.jsonl --against core` does for right tokens: teacher forcing, the reference's
chain, bets. The peer is what it could not do without: `LlamaModel` of transformers in upstream's T3, one run at a time,
conditional and unconditional row in one batch.

At the full size, random texts of 60 ids with 150 tokens each are put through the core together, beside the matrix
products of the tokens' rows alone; the rows of the texts have to be computed as well.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import load_matrix
from sampler.results.store.reference_runs import shipped_runs
from sampler.run.prompts import prompts_of
from sampler.run.scoring import Model, Scoring
from sampler.run.spoken import Spoken
from sampler.t3.config import CHATTERBOX_ENGLISH
from tests.benchmarks import endless, roofline
from tests.benchmarks.clock import threads
from tests.benchmarks.rows import UPSTREAM, Figure, Row
from tests.benchmarks.runner import Comparison
from tests.longform.right_sets import spoken_runs

COUNTS = {"sentences": 96, "longform": 8}
"""Runs of the cell `base` of each matrix."""

ALPHA, ROUNDS = 1e-6, 3
TEXTS, TEXT, TOKENS, QUICK_TEXTS = 32, 60, 150, 4


def runs(matrix: str) -> list[Spoken]:
    case = next(case for case in load_matrix(Path(f"matrices/{matrix}.toml")).cases if case.cell == "base")
    prompts = {prompt.id: prompt for prompt in prompts_of(case.workload)}
    return spoken_runs(shipped_runs(f"{matrix}/base")[: COUNTS[matrix]], prompts, case.config)


def cpu_milliseconds(work: Callable[[], object], given: Sequence[Spoken]) -> float:
    """The least of some rounds, a token; of all threads together."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return 1e3 * min(taken) / sum(len(run.tokens) for run in given)


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    model = Model(CoreEngine.load(width=1))
    for matrix in COUNTS:
        given = runs(matrix)

        def forward(given: Sequence[Spoken] = given) -> None:
            for run in model.scored(given):
                next(iter(run.steps(given[0].request.config)))

        yield f"forward, {matrix}", cpu_milliseconds(forward, given)
        yield f"scoring, {matrix}", cpu_milliseconds(Scoring(model, given, ALPHA).findings, given)
    yield "full size", _full_size(QUICK_TEXTS if quick else TEXTS)


def _full_size(count: int) -> float:
    """Tokens a second."""
    import mlx.core as mx

    from sampler.t3.model import Speech
    from tests.support import random_text

    config, tensors = endless.full_size_tensors()
    made, rng = endless.checkpoint(config, tensors), np.random.default_rng(0)
    tensors.clear()
    texts = [random_text(config, TEXT, seed) for seed in range(count)]
    drawn = rng.integers(0, config.bos_id, (count, TOKENS - 1)).tolist()
    start = time.perf_counter()
    prefixes = [made.model.prefix(text, made.voice) for text in texts]
    found = made.model.forced_together([Speech(*pair) for pair in zip(prefixes, drawn, strict=True)])
    mx.eval([logits for logits, _ in found])
    return count * TOKENS / (time.perf_counter() - start)


def upstreams(*, quick: bool) -> Iterator[tuple[str, float]]:
    import torch

    from tests.precision import their_logits

    torch.set_num_threads(threads())
    config, tensors = endless.finch_tensors()
    model, made = endless.upstream_model(config, tensors), endless.checkpoint(config, tensors)
    for matrix in COUNTS:
        given = runs(matrix)
        texts = [made.tokenizer.encode(str(run.request.prompt), run.request.language) for run in given]

        def forward(given: Sequence[Spoken] = given, texts: Sequence[Any] = texts) -> None:
            for run, text in zip(given, texts, strict=True):
                their_logits(model, config, made.voice, text, run.tokens[:-1])

        yield f"forward, {matrix}", cpu_milliseconds(forward, given)


def bound(*, quick: bool) -> Iterator[tuple[str, float]]:
    rows = 2 * TOKENS * (QUICK_TEXTS if quick else TEXTS)
    yield "full size", rows / 2 / roofline.products(CHATTERBOX_ENGLISH, rows, quick=quick)


SIDES = {"ours": ours, "upstream": upstreams, "roofline": bound}


def _rows() -> Iterator[Row]:
    row = partial(Row, unit="CPU ms/token", peer_name=f"{UPSTREAM}, forward alone")
    for matrix, count in COUNTS.items():
        peer = Figure("upstream", f"forward, {matrix}")
        yield row(f"Finch, {count} runs of {matrix}, forward", Figure("ours", f"forward, {matrix}"), peer=peer)
        yield row(f"Finch, {count} runs of {matrix}, scoring", Figure("ours", f"scoring, {matrix}"), peer=peer)
    best = Figure("roofline", "full size", "largest")
    name = f"full size, teacher forcing of {TEXTS} texts"
    yield Row(name, Figure("ours", "full size"), "tokens/s", best, "their tokens' products", better="more")


COMPARISON = Comparison("scoring", __name__, ("ours", "upstream", "roofline") * 2, tuple(_rows()))
