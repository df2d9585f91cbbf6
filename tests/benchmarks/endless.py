"""Generations of exactly N tokens on both sides, and the time of a step at a given length of the cache.

Nothing is taken out of either chain: the token that ends a run is another one, BOS, which no model draws. Upstream
gets it as `stop_speech_token`, our core as `eos_id`; the former EOS is a token like others. What is drawn does not
change the time.

A cache is filled through the text: a request of T text ids and s more of them attends, at its first speech tokens, to
as many keys as one of T ids does after s tokens. Where our core prefills such a text, `Filler` puts random rows in
place of each layer's products: only the keys and values are needed, and the products of 32 texts would take minutes.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from sampler import finch
from sampler.config import SamplingConfig
from sampler.requests import Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.config import CHATTERBOX_ENGLISH, T3Config
from sampler.t3.model import T3
from sampler.t3.weights import read_weights
from tests.support import random_text, random_voice, random_weights

STEPS_TO_WARM_UP = 2
TEXT = 60
TEXT_TABLE = "text_pos_emb.emb.weight"
HEAD = "speech_head.weight"


def without_end(config: Any) -> Any:
    return replace(config, name=f"{config.name}-endless", eos_id=config.bos_id)


def finch_tensors(text_positions: int = 0) -> tuple[Any, dict[str, Any]]:
    """Config without an end and weights of Finch; with more text positions, its table is repeated."""
    config = T3Config.read(finch.folder() / "config.json")
    tensors = read_weights(finch.folder() / "weights.safetensors", config)
    if text_positions > config.text_positions:
        config = replace(config, max_text_tokens=text_positions - 2)
        table = tensors[TEXT_TABLE]
        times = -(-text_positions // table.shape[0])
        tensors[TEXT_TABLE] = mx.concatenate([table] * times)[:text_positions]
    return without_end(config), tensors


def full_size_tensors() -> tuple[Any, dict[str, Any]]:
    """Config without an end of the English model, and random weights; the logit of BOS is 0, far below the largest."""
    tensors = random_weights(CHATTERBOX_ENGLISH, 1)
    row = mx.arange(CHATTERBOX_ENGLISH.speech_vocab_size)[:, None] == CHATTERBOX_ENGLISH.bos_id
    tensors[HEAD] = mx.where(row, 0.0, tensors[HEAD])
    mx.eval(tensors[HEAD])
    return without_end(CHATTERBOX_ENGLISH), tensors


class Filler:
    """A layer whose products are left out for more rows than a step has: fixed random rows stand in their place."""

    def __init__(self, layer: Any, rows_of_a_step: int, table: Any) -> None:
        self._layer, self._most, self._table = layer, rows_of_a_step, table

    def projections(self, hidden: Any) -> Any:
        count, size = hidden.shape[0], self._table.shape[0]
        if count <= self._most:
            return self._layer.projections(hidden)
        return self._table[:count] if count <= size else self._table[mx.arange(count) % size]

    def rest(self, hidden: Any, mixed: Any) -> Any:
        return hidden if hidden.shape[0] > self._most else self._layer.rest(hidden, mixed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def checkpoint(config: Any, tensors: dict[str, Any], *, fill_beyond: int | None = None) -> Any:
    """Our core with these weights and a random voice. fill_beyond: rows of a step, above which `Filler` steps in."""
    model = T3(tensors, config)
    if fill_beyond is not None:
        rows = np.random.default_rng(2).standard_normal((4_096, 3 * config.hidden_size), dtype=np.float32)
        table = mx.array(rows)
        model.backbone.layers = [Filler(layer, fill_beyond, table) for layer in model.backbone.layers]
    return Checkpoint(model, finch.load().tokenizer, random_voice(config, 3), "none")


def upstream_model(config: Any, tensors: dict[str, Any]) -> Any:
    """Upstream's T3 with these weights, its own choice of attention and no bar of progress."""
    from tests import upstream

    sizes = upstream.module("chatterbox.models.t3.llama_configs")
    model = upstream.build(config, tensors, sizes.LLAMA_520M_CONFIG_DICT["attn_implementation"])
    tick(lambda: None)
    return model


def tick(on_step: Callable[[], None]) -> None:
    """Have upstream's loop call this at the beginning of every step, where it moves its bar of progress."""
    from tests import upstream

    def steps(counts: Iterable[int], **_: object) -> Iterator[int]:
        for count in counts:
            on_step()
            yield count

    upstream.module("chatterbox.models.t3.t3").tqdm = steps


def upstream_run(model: Any, voice: Any, text: Sequence[int], tokens: int) -> None:
    import torch

    from tests import upstream

    names = ("temperature", "top_p", "min_p", "repetition_penalty", "cfg_weight")
    knobs = {name: getattr(SamplingConfig(), name) for name in names}
    ids = torch.tensor([list(text)] * 2)
    made = model.inference(t3_cond=upstream.conditions(voice), text_tokens=ids, max_new_tokens=tokens, **knobs)
    if made.shape[-1] != tokens:
        raise RuntimeError(f"upstream drew {made.shape[-1]} tokens of {tokens}")


def filled(config: Any, count: int, length: int, steps: int) -> list[Any]:
    """So many requests, each with a text of its own, whose caches are as long as after `length` tokens of 60 ids."""
    texts = [tuple(random_text(config, TEXT + length - 2, seed)) for seed in range(count)]
    return [Request(text, SamplingConfig(), seed, steps) for seed, text in enumerate(texts)]


def our_step(generator: Any, requests: Sequence[Any]) -> float:
    drawn, marks = 0, []

    def on_step(tokens: int, finished: int) -> None:
        nonlocal drawn
        drawn += tokens
        if drawn >= (len(marks) + 1) * len(requests):
            marks.append(time.perf_counter())

    check_lengths(generator.generate(requests, on_step), requests)
    return statistics.median(np.diff(marks[STEPS_TO_WARM_UP:]).tolist())


def check_lengths(generations: Sequence[Any], requests: Sequence[Any]) -> None:
    for each, request in zip(generations, requests, strict=True):
        if each.stop_reason != "length" or len(each.tokens) != request.max_new_tokens:
            reason = each.record.error if each.record else ""
            raise RuntimeError(f"{len(each.tokens)} tokens of {request.max_new_tokens}: {each.stop_reason} {reason}")


def upstream_step(model: Any, voice: Any, text: Sequence[int], steps: int) -> float:
    marks: list[float] = []
    tick(lambda: marks.append(time.perf_counter()))
    upstream_run(model, voice, text, steps)
    return statistics.median(np.diff(marks[STEPS_TO_WARM_UP:]).tolist())
