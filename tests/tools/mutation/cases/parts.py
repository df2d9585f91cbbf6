"""The cache by itself, what is refused, what does not change, and what is so unless one says otherwise."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from sampler.alignment import AlignmentStreamAnalyzer, AnalyzerConfig
from sampler.config import SamplingConfig
from sampler.generation.generator import Generator
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.config import T3Config
from tests.tools.mutation.cases.bench import Bench, needs, refuses, same


def refusals(bench: Bench) -> None:
    """What cannot be served is refused before anything is generated, at the very limits."""
    asked, generator = bench.requests("en-0.1.2")[0], Generator(bench.llama, width=4)
    config = bench.llama.config
    most = config.speech_positions

    def ask(by: Generator = generator, **changes: Any) -> Callable[[], Any]:
        return partial(by.tokenize, [asked, replace(asked, **changes)])

    for cap in (1, most):
        needs(ask(max_new_tokens=cap)() == [asked.prompt] * 2, f"a cap of {cap}")
    for cap in (0, -1, most + 1, most + 2):
        refuses(ask(max_new_tokens=cap), f"max_new_tokens = {cap}", f"1 to {most},")
    turbo = Generator(bench.llama, beyond_cap=1)
    ask(turbo, max_new_tokens=most - 1)()
    refuses(ask(turbo, max_new_tokens=most), f"1 to {most - 1},")
    for slot in (0, 3, None):
        ask(slot=slot)()
    for slot in (-1, 4, 5):
        refuses(ask(slot=slot), f"slot = {slot}", "0 to 3")
    refuses(ask(prompt=()), "the prompt has no ids")
    refuses(ask(prompt=(3, 99, 0)), "text id 99 is no token")
    refuses(ask(config=SamplingConfig(suppressed_tokens=(66,))), "66")
    for width in (0, -1):
        refuses(partial(Generator, bench.llama, width=width), f"width = {width}")
    for count in (0, 3):
        refuses(partial(Generator, bench.llama, bos_count=count), f"bos_count = {count}")
    for count in (None, 1, 2):
        Generator(bench.llama, width=1, bos_count=count)
    bare = bench.checkpoint("llama", aligned_heads=())
    refuses(lambda: Generator(bare, analyzer=AnalyzerConfig()), "no aligned heads")
    Generator(bare)


def frozen(bench: Bench) -> None:
    """What says that it does not change does not."""
    decisions = AlignmentStreamAnalyzer(AnalyzerConfig(), 0, 1)
    needs(decisions.eos_id == 1, "the id of EOS")
    for each, name in (
        (Generator(bench.llama), "width"),
        (AnalyzerConfig(), "jump_back"),
        (AttentionRequest(), "queries"),
    ):
        try:
            setattr(each, name, 1)
        except FrozenInstanceError:
            continue
        needs(False, f"{name} can be changed")
    needs(hash(AnalyzerConfig()) == hash(AnalyzerConfig()), "equal constants are equal")


def defaults(bench: Bench) -> None:
    """A generator that is told nothing: sixteen slots, nothing kept, no analyzer."""
    plain = Generator(bench.llama)
    needs(
        (plain.width, plain.keep_logits, plain.keep_attention, plain.analyzer) == (16, False, False, None), "defaults"
    )
    needs((plain.penalty_history, plain.first_token_ends, plain.beyond_cap) == ("bos_and_generated", True, 0), "rules")
    needs(AttentionRequest() == AttentionRequest((), 1), "no attention, of one query")


def cache(bench: Bench) -> None:
    """What comes back is everything that was written, in its order and type, across every growth."""
    config, rng = bench.llama.config, np.random.default_rng(3)
    for lengths in ((5, 250, 1, 1, 1), (256, 1), (300, 212, 1), (512, 1), (1, 255, 256, 1), (600,)):
        for dtype in (mx.float32, mx.float16):
            store = KeyValueCache(config, 2)
            needs((store.rows, store.length) == (2, 0), "empty at first")
            written: list[np.ndarray] = []
            for length in lengths:
                shape = (2, config.num_layers, 2, config.num_heads, length, config.head_size)
                written.append(rng.normal(size=shape).astype(np.float16))
                whole = np.concatenate(written, axis=-2)
                for layer in range(config.num_layers):
                    keys, values = (mx.array(part).astype(dtype) for part in written[-1][:, layer])
                    for found, part in zip(store.append(layer, keys, values), whole[:, layer], strict=True):
                        needs(found.dtype == dtype, "the type that was written")
                        same(found.astype(mx.float32), part.astype(np.float32), "what was written")
                store.advance(length)
                _holds(store, whole.shape[-2], config)


def _holds(store: KeyValueCache, length: int, config: T3Config) -> None:
    """Length and arrays of a filled cache: keys, then values, of every layer, a multiple of 256 positions."""
    needs(store.length == length, "length")
    shape = (2, config.num_heads, -(-length // 256) * 256, config.head_size)
    needs([each.shape for each in store.arrays()] == [shape] * 2 * config.num_layers, "arrays")
