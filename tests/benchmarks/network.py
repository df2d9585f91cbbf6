"""One step of the network in a batch, beside mlx-lm's Llama of the same sizes with a cache of the same length.

Both sides run embedding, layers and head of one new position of each row, in float32, on the same BLAS: no chain, no
noise, no records. Weights and caches are random. 128 rows of Finch's size are 64 requests with guidance, whose texts
have 112 ids, the mean of its texts for 150 tokens; 64 rows of the full size are 32 requests. What our rows have in
common is what those of a block have: the voice, and the unconditional rows as far as their texts go; with 8 runs a text
also the text. mlx-lm's rows have nothing in common that it knows of.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from sampler.t3.config import CHATTERBOX_ENGLISH
from tests.benchmarks import endless
from tests.benchmarks.clock import median_seconds, threads
from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import Comparison

FINCH_LENGTHS, FULL_LENGTH = (150, 300, 600), 300
FINCH_SLOTS, FULL_SLOTS, RUNS = 64, 32, 8
TEXT, BOS, SHARED_TEXT = 112, 2, 96
GOALS = {"150": 3.5, "300": 3.5, "600": 3.5, "8 runs a text, 600": 5.0}
FULL_GOAL, SECONDS, QUICK_SECONDS = 1.7, 3.0, 0.5


def _random_prefix(config: Any, length: int, rng: np.random.Generator) -> Any:
    import mlx.core as mx

    from sampler.t3.cache import KeyValueCache

    made = KeyValueCache(config, 2)
    for layer in range(config.num_layers):
        shape = (2, config.num_heads, length, config.head_size)
        made.append(layer, *(mx.array(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2)))
    made.advance(length)
    return made


def _filled(config: Any, slots: int, length: int, runs: int) -> Any:
    """A cache of slots with so many positions, `runs` of each text."""
    import mlx.core as mx

    from sampler.t3.slot_cache import SlotCache

    rng, begun = np.random.default_rng(4), config.conditioning_length
    cache = SlotCache(config, slots, 2, length + 512, threads())
    filled = length if runs == 1 else begun + TEXT + BOS
    made = _random_prefix(config, filled, rng)
    texts = [made.copy() for _ in range(-(-slots // runs))]
    for slot in range(slots):
        cache.fill(slot, texts[slot // runs], (begun, begun + SHARED_TEXT))
    joint = mx.array(rng.standard_normal((2 * slots, 3 * config.hidden_size), dtype=np.float32))
    for _ in range(length - filled):
        cache.begin()
        for layer in range(config.num_layers):
            cache.attend(layer, joint, None, [])
        cache.advance()
    return cache


def _our_step(model: Any, slots: int, length: int, runs: int, seconds: float) -> float:
    """Seconds of a step."""
    import mlx.core as mx

    cache = _filled(model.config, slots, length, runs)
    tokens, positions = [5] * (2 * slots), [7] * (2 * slots)

    def step() -> None:
        hidden, _ = model.backbone.step(model.embed_speech(tokens, positions), cache)
        mx.eval(model.logits(hidden))
        cache._lengths -= 1

    return median_seconds(step, for_seconds=seconds)


def ours(*, quick: bool) -> Iterator[tuple[str, float]]:
    from sampler.t3.model import T3

    seconds = QUICK_SECONDS if quick else SECONDS
    config, tensors = endless.finch_tensors()
    model = T3(tensors, config)
    for length in FINCH_LENGTHS:
        yield f"{length}", FINCH_SLOTS / _our_step(model, FINCH_SLOTS, length, 1, seconds)
    most = FINCH_LENGTHS[-1]
    yield f"{RUNS} runs a text, {most}", FINCH_SLOTS / _our_step(model, FINCH_SLOTS, most, RUNS, seconds)
    del model, tensors
    config, tensors = endless.full_size_tensors()
    yield "full size", FULL_SLOTS / _our_step(T3(tensors, config), FULL_SLOTS, FULL_LENGTH, 1, 3 * seconds)


def _their_step(config: Any, rows: int, length: int, seconds: float) -> float:
    import mlx.core as mx
    from mlx_lm.models import cache, llama

    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.num_heads,
        rms_norm_eps=config.rms_norm_eps,
        vocab_size=config.speech_vocab_size,
        head_dim=config.head_size,
        rope_theta=config.rope_theta,
        tie_word_embeddings=False,
    )
    model = llama.Model(arguments)
    mx.eval(model.parameters())
    caches = []
    for _ in range(config.num_layers):
        made, shape = cache.KVCache(), (rows, config.num_heads, length + 64, config.head_size)
        made.state = mx.random.normal(shape), mx.random.normal(shape), length
        mx.eval(made.keys, made.values)
        caches.append(made)
    tokens = mx.full((rows, 1), 5)

    def step() -> None:
        mx.eval(model(tokens, cache=caches))
        for each in caches:
            each.trim(1)

    return median_seconds(step, for_seconds=seconds)


def mlx_lm(*, quick: bool) -> Iterator[tuple[str, float]]:
    seconds = QUICK_SECONDS if quick else SECONDS
    config, _ = endless.finch_tensors()
    for length in FINCH_LENGTHS:
        yield f"{length}", FINCH_SLOTS / _their_step(config, 2 * FINCH_SLOTS, length, seconds)
    yield "full size", FULL_SLOTS / _their_step(CHATTERBOX_ENGLISH, 2 * FULL_SLOTS, FULL_LENGTH, 3 * seconds)


SIDES = {"ours": ours, "mlx-lm": mlx_lm}


def _rows() -> Iterator[Row]:
    row = partial(Row, unit="tokens/s", peer_name="mlx-lm's Llama in a batch", better="more")
    for measure, goal in GOALS.items():
        peer = Figure("mlx-lm", measure.split()[-1])
        name = f"Finch's network, 128 rows, {measure} positions"
        yield row(name, Figure("ours", measure), peer=peer, goal=goal)
    name = f"full-size network, 64 rows, {FULL_LENGTH} positions"
    yield row(name, Figure("ours", "full size"), peer=Figure("mlx-lm", "full size"), goal=FULL_GOAL)


COMPARISON = Comparison("network", __name__, ("ours", "mlx-lm") * 2, tuple(_rows()))
