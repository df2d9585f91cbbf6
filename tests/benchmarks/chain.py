"""The chain with its noise, from logits to tokens, beside HuggingFace's processors and mlx-lm's."""

from collections.abc import Iterator
from functools import partial

from tests.benchmarks import chain_work
from tests.benchmarks.clock import median_seconds
from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import Comparison

SHAPES = ((64, 8_194), (1, 8_194), (64, 151_936))
TOP_P = (0.95, 1.0)
GOALS = {(64, 8_194, 0.95): 3.0, (64, 8_194, 1.0): 1.0, (1, 8_194, 0.95): 1.0, (1, 8_194, 1.0): 1.0}
"""Beside HuggingFace."""


def _name(rows: int, vocab: int, top_p: float) -> str:
    return f"{rows} x {vocab:,}, top-p {top_p if top_p < 1 else 'off'}"


def _side(library: str, *, quick: bool) -> Iterator[tuple[str, float]]:
    make = getattr(chain_work, library)
    for rows, vocab in SHAPES:
        for top_p in TOP_P:
            seconds = median_seconds(make(rows, vocab, top_p), for_seconds=0.3 if quick else 2.0)
            yield _name(rows, vocab, top_p), 1_000 * seconds


SIDES = {library: partial(_side, library) for library in ("ours", "huggingface", "mlx_lm")}


def _rows(peer: str, peer_name: str) -> Iterator[Row]:
    for rows, vocab in SHAPES:
        for top_p in TOP_P:
            measure = _name(rows, vocab, top_p)
            goal = GOALS.get((rows, vocab, top_p)) if peer == "huggingface" else None
            name = f"chain, {measure}" if peer == "huggingface" else f"chain, {measure}, {peer_name}"
            yield Row(name, Figure("ours", measure), "ms", Figure(peer, measure), peer_name, goal)


COMPARISON = Comparison(
    name="chain",
    module=__name__,
    turns=("ours", "huggingface", "mlx_lm") * 3,
    quick_turns=("ours", "huggingface", "mlx_lm"),
    rows=(*_rows("huggingface", "HuggingFace"), *_rows("mlx_lm", "mlx-lm")),
)
