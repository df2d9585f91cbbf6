"""Where keys and values lie: prefixes in parts, both caches of a step, how rows are shared, memory."""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.generation.generator import Generator
from sampler.generation.prefix import BLANK_PART, Prefix, Prefixes
from sampler.requests import Request
from sampler.t3.backbone import AttentionRequest, Backbone
from sampler.t3.cache import KeyValueCache, SeparateCaches
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from sampler.t3.slot_cache import SlotCache
from tests.tools.mutation.cases.bench import Bench, near, needs, refuses, same

VOICE, BOS = 6, 2
LENGTHS = (35, 7, 64, 32, 33)  # ids of texts: around the parts of the unconditional row


def _texts() -> list[tuple[int, ...]]:
    """Each begins with another id, so that their order is not that of their lengths."""
    return [(3, 20 - place, *(5 + at % 9 for at in range(length - 3)), 0) for place, length in enumerate(LENGTHS)]


def prefixes(bench: Bench) -> None:
    """In parts as in one pass; voice and parts of the blank text are computed once; other texts change no bit."""
    model, voice = bench.llama.model, bench.llama.voice
    heads = AttentionRequest(model.config.aligned_heads)
    make = partial(Prefixes, model, voice, heads, guided=True, bos_count=None)
    together, counted, prefill = make(), [], Backbone.prefill_beside

    def counting(backbone: Backbone, stretches: Sequence[Any], *inputs: Any, **keywords: Any) -> Any:
        counted.extend(embeddings.shape[1] for embeddings, _ in stretches)
        return prefill(backbone, stretches, *inputs, **keywords)

    with mock.patch.object(Backbone, "prefill_beside", counting):
        found = [_arrays(together.of(text)) for text in _texts()]
    once = VOICE + max(LENGTHS) // BLANK_PART * BLANK_PART
    each = sum(length + length % BLANK_PART + 2 * BOS for length in LENGTHS)
    needs(sum(counted) == once + each, f"{counted} positions are computed")
    for text, arrays in zip(_texts(), found, strict=True):
        cache = KeyValueCache(model.config, 2)
        hidden, attention = model.backbone.prefill(model.prefix(text, voice), cache, heads)
        whole = Prefix(cache, (), model.logits(hidden[:, -1]), attention)
        needs(cache.length == len(text) + VOICE + BOS, "positions of a prefix")
        for left, right in zip(_arrays(whole), arrays, strict=True):
            near(left, right, "in parts")
        for left, right in zip(_arrays(make().of(text)), arrays, strict=True):
            same(left, right, "beside other texts")


def _arrays(prefix: Prefix) -> list[NDArray[np.float32]]:
    pairs = [np.array(array) for pair in prefix.cache.layers() for array in pair]
    return [*pairs, np.array(prefix.logits), *(np.array(rows) for rows in prefix.attention)]


def forgotten(bench: Bench) -> None:
    """A text that comes again is computed once, and nothing is kept of it when its last request has a slot."""
    asked, computed, prefix = bench.requests("en-0.1.2")[0], [], T3.prefix

    def counting(model: T3, text: Sequence[int], *inputs: Any, **keywords: Any) -> mx.array:
        computed.append(tuple(text))
        return prefix(model, text, *inputs, **keywords)

    for order in ((0, 1, 0, 1, 0), (1, 0, 1, 0, 1)):
        requests = [replace(asked, prompt=_texts()[place], noise=None, max_new_tokens=2) for place in order]
        for attention in ("auto", "mlx"):
            computed.clear()
            generator = Generator(bench.llama, width=1, attention=attention)
            block = generator._block(requests, generator.tokenize(requests), guided=True, analyzed=False)
            with mock.patch.object(T3, "prefix", counting):
                block.run(deque(range(len(requests))), lambda tokens, finished: None)
            texts = {request.prompt for request in requests}
            needs(sorted(computed) == sorted(texts), f"{len(computed)} texts computed")
            needs(not block.prefixes._whole, "prefixes are left")
            needs((block.cache is None) == (attention == "mlx"), "which cache is used")


class Written:
    """All keys and values of a layer in float64, and what attention makes of them: the definition."""

    def __init__(self, config: T3Config, sequences: int) -> None:
        self.config = config
        self.keys: list[list[NDArray[np.float64]]] = [[] for _ in range(sequences)]
        self.values: list[list[NDArray[np.float64]]] = [[] for _ in range(sequences)]

    def add(self, sequence: int, key: NDArray[Any], value: NDArray[Any]) -> None:
        self.keys[sequence].append(key.astype(np.float64))
        self.values[sequence].append(value.astype(np.float64))

    def attend(self, sequence: int, query: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What a query (heads, size) mixes, (heads, size), and its attention, (heads, length)."""
        keys, values = np.stack(self.keys[sequence], axis=1), np.stack(self.values[sequence], axis=1)
        scores = np.einsum("hd,hld->hl", query, keys) / np.sqrt(self.config.head_size)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("hl,hld->hd", weights, values), weights


def cache(bench: Bench) -> None:
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
                needs(store.length == whole.shape[-2], "length")
                shape = (2, config.num_heads, -(-store.length // 256) * 256, config.head_size)
                needs([each.shape for each in store.arrays()] == [shape] * 2 * config.num_layers, "arrays")


def decode_caches(bench: Bench) -> None:
    config = bench.llama.config
    for turned in (True, False):
        for slots in (SlotCache(config, 5, 2, 600), SlotCache(config, 5, 2, 600, threads=3), None):
            _steps(config, slots, turned=turned)


def _steps(config: T3Config, slots: SlotCache | None, *, turned: bool) -> None:
    rng = np.random.default_rng(8)
    heads, size = config.num_heads, config.head_size
    layers = [Written(config, 10) for _ in range(config.num_layers)]
    caches: list[KeyValueCache | None] = [None] * 5
    for slots_of, length in (((0,), 253), ((2, 4), 80), ((3,), 256)):
        prefix = KeyValueCache(config, 2)
        pairs = rng.normal(size=(config.num_layers, 2, 2, heads, length, size)).astype(np.float32)
        for layer, (keys, values) in enumerate(pairs):
            prefix.append(layer, mx.array(keys), mx.array(values))
            for slot, row, at in itertools.product(slots_of, range(2), range(length)):
                layers[layer].add(2 * slot + row, keys[row, :, at], values[row, :, at])
        prefix.advance(length)
        for slot in slots_of:
            caches[slot] = prefix.copy()
            if slots is not None:
                slots.fill(slot, prefix)
    for step in range(6):
        if step == 3:
            caches[2] = None
            if slots is not None:
                slots.release(2)
        cache = slots or SeparateCaches(config, caches, 2)
        lengths = np.array([-1 if each is None else len(layers[0].keys[2 * at]) for at, each in enumerate(caches)])
        same(cache.begin(), np.repeat(np.maximum(lengths, 0), 2), "positions")
        angles = rng.normal(size=(2, 10, size)).astype(np.float32) if turned else None
        for layer, written in enumerate(layers):
            joint = rng.normal(size=(10, 3, heads, size)).astype(np.float32)
            wanted = [1] if layer else []
            tables = None if angles is None else (angles[0], angles[1])
            mixed, kept = cache.attend(layer, mx.array(joint.reshape(10, -1)), tables, wanted)
            needs(mixed.shape == (10, heads * size), "one row for each sequence")
            needs(len(kept) == len(wanted), "the heads that were asked for")
            for row in range(10):
                of_row = np.array(mixed[row])
                if lengths[row // 2] < 0:
                    same(of_row, np.zeros_like(of_row), "an idle row")
                    continue
                query, key, value = joint[row]
                if angles is not None:
                    query, key = (_turned(each, angles[0, row], angles[1, row]) for each in (query, key))
                written.add(row, key, value)
                expected, weights = written.attend(row, query)
                near(of_row, expected.reshape(-1), "what is mixed")
                if row % 2 == 0 and wanted:
                    near(np.array(kept[0][row // 2]), weights[1][None], "attention")
            needs(all(rows[1] is None for rows in kept), "an idle slot has no attention")
        cache.advance()


def _turned(rows: NDArray[np.float32], cosine: NDArray[np.float32], sine: NDArray[np.float32]) -> NDArray[np.float32]:
    half = rows.shape[-1] // 2
    return rows * cosine + np.concatenate([-rows[..., half:], rows[..., :half]], axis=-1) * sine


def room(bench: Bench) -> None:
    """There is room up to the capacity, beyond which a step is refused."""
    config = bench.llama.config
    cache = SlotCache(config, 2, 1, 300)
    prefix = KeyValueCache(config, 1)
    shape = (1, config.num_heads, 299, config.head_size)
    for layer in range(config.num_layers):
        prefix.append(layer, mx.zeros(shape), mx.zeros(shape))
    prefix.advance(299)
    cache.fill(0, prefix)
    cache.begin()
    cache.advance()
    refuses(cache.begin, "301 positions", "300")


def shared_rows(bench: Bench) -> None:
    config = bench.llama.config
    for lengths in ([-1] * 40 + [3] * 10, [10] * 21 + [200], [5, 300, -1, 7, 7, 300], [1, 2, 3, 4, 5, 6, 7, 8]):
        for threads in (1, 2, 3, 4):
            cache = SlotCache(config, len(lengths), 1, 600, threads)
            cache._lengths[:] = lengths
            cache.begin()
            needs(len(cache._cuts) == threads - 1, "one part for each thread")
            work = np.array(lengths) + 1
            parts = [part.sum() for part in np.split(work, cache._cuts)]
            needs(sum(parts) == work.sum() and sorted(cache._cuts) == list(cache._cuts), "every row once")
            ends = np.cumsum(parts)[:-1]
            ideal = work.sum() * np.arange(1, threads) / threads
            needs((np.abs(ends - ideal) <= work.max()).all(), f"{lengths} on {threads}: {cache._cuts}")


def memory(bench: Bench) -> None:
    """Keys and values of all slots at the longest request, in their type, times the processes; the very limit."""
    config, asked = bench.llama.config, bench.requests("en-0.1.2")
    short, longer = asked[0], replace(asked[0], prompt=_texts()[2], max_new_tokens=50)
    unguided = replace(longer, config=replace(longer.config, cfg_weight=0.0))
    kinds = ([short, longer], 2, 0, 7), ([longer, short], 2, 3, 7), ([unguided], 1, 0, 7), ([unguided, short], 2, 0, 5)
    for requests, rows, beyond_cap, width in kinds:
        generator = Generator(bench.llama, width=width, beyond_cap=beyond_cap)
        longest = max(_longest(bench, each) for each in requests) + generator.beyond_cap
        for processes in (1, 2, 50_000):
            needed = 2 * processes * generator.width * rows * longest * config.num_layers * config.hidden_size * 4
            _limit(generator, requests, processes, needed, f"width = {generator.width} slots of {longest:,} positions")
    tensors = bench.questions.networks["llama"].tensors
    model = T3({name: mx.array(values).astype(mx.float16) for name, values in tensors.items()}, config)
    half = replace(bench.llama, model=model)
    needed = 2 * 7 * 2 * _longest(bench, longer) * config.num_layers * config.hidden_size * 2
    _limit(Generator(half, width=7), [longer], 1, needed, "width = 7")
    with _free(0):
        Generator(bench.llama).check_memory([], [])


def _longest(bench: Bench, asked: Request) -> int:
    return bench.llama.model.prefix(asked.prompt, bench.llama.voice).shape[1] + asked.max_new_tokens


def _limit(generator: Generator, requests: Sequence[Request], processes: int, needed: int, words: str) -> None:
    prompts = [each.prompt for each in requests]
    ask = partial(generator.check_memory, requests, prompts, *([processes] if processes > 1 else []))
    for enough in (needed, needed + 1):
        with _free(enough):
            ask()
    with _free(needed - 1):
        beside = f" in each of {processes} processes take" if processes > 1 else " positions take"
        refuses(ask, words, beside, f"take {needed / 1e9:.1f} GB", f"{(needed - 1) / 1e9:.1f} GB are free")


def _free(available: int) -> Any:
    return mock.patch("psutil.virtual_memory", return_value=SimpleNamespace(available=available))
