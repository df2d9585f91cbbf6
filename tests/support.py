"""Small models, random weights and chain inputs that several tests share."""

import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st

from sampler import STAGES, SamplingConfig
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Batch
from sampler.t3.cache import KeyValueCache, SeparateCaches
from sampler.t3.conditioning import Voice
from sampler.t3.config import CHATTERBOX_ENGLISH, CHATTERBOX_TURBO, T3Config
from sampler.t3.slot_cache import SlotCache
from sampler.t3.weights import expected_shapes

REFERENCE = ReferenceEngine()


def kept_bounds(logits, history, config, uncond=None, context=None) -> tuple[np.ndarray, np.ndarray]:
    """What must be kept and what may be kept of rows that share a config, by the reference."""
    return REFERENCE.bounds(Batch(logits, history, (config,) * len(history), uncond, context))[:2]


SLICE = replace(CHATTERBOX_ENGLISH, name="slice", num_layers=2, aligned_heads=((0, 3), (1, 11)))
"""Two layers of the English model at its full width: 1024/4096, vocabulary 8,194, perceiver on."""

TINY = replace(
    CHATTERBOX_ENGLISH,
    name="tiny",
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=2,
    text_vocab_size=40,
    speech_vocab_size=66,
    max_text_tokens=64,
    max_speech_tokens=128,
    start_text_id=3,
    bos_id=64,
    eos_id=65,
    prompt_length=20,
    perceiver_queries=4,
    perceiver_heads=2,
    aligned_heads=((0, 1), (1, 0)),
)
"""Small enough for a test of machinery; nothing about speech is to be learnt from it."""


TURBO_SLICE = replace(
    CHATTERBOX_TURBO, name="turbo-slice", num_layers=2, text_vocab_size=2_000, aligned_heads=((0, 3), (1, 11))
)
"""Two layers of Turbo at its full width, prompt and speech vocabulary; 2,000 rows of the table of texts."""

TURBO_SMALL = replace(
    TURBO_SLICE,
    name="turbo-small",
    hidden_size=192,
    intermediate_size=768,
    num_layers=6,
    num_heads=4,
    prompt_length=50,
    aligned_heads=((0, 3), (4, 0)),
)
"""As Finch is to the English model: the whole speech vocabulary on a narrow network."""

TURBO_TINY = replace(
    TINY, name="turbo-tiny", backbone="gpt2", tokenizer="turbo", positions=21 + 64 + 1 + 132, max_text_tokens=64
)
"""Tiny with the other backbone."""


def random_weights(config: T3Config, seed: int, deviation: float | None = None) -> dict[str, mx.array]:
    """Weights of the right names and shapes, drawn at random, with activations of ordinary size.

    With GPT-2 logits have a standard deviation of 2.5, so that a softmax over 6,563 of them has an entropy of 5 to 6
    nats: neither one token nor the uniform distribution. The positions are as large as the embeddings. deviation: of
    all weights but those of norms at a width of 1,024, and in proportion to 1 / sqrt(width); 0.08 makes attention
    sharp.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(
            _scale(name, shape, config) if deviation is None else deviation * math.sqrt(1024 / config.hidden_size)
        )
        if ("norm" in name or ".ln_" in name) and name.endswith("weight"):
            values = 1 + np.float32(0.1) * rng.standard_normal(shape, dtype=np.float32)
        tensors[name] = mx.array(values)
    return tensors


def _scale(name: str, shape: tuple[int, ...], config: T3Config) -> float:
    if name.endswith(("_emb.weight", "wpe.weight")):
        return 1.0
    if config.backbone == "gpt2" and name == "speech_head.weight":
        return 2.5 / math.sqrt(shape[-1])
    return 1.0 / math.sqrt(shape[0] if ".h." in name and name.endswith("weight") else shape[-1])


def random_voice(config: T3Config, seed: int) -> Voice:
    """A voice with a full prompt."""
    rng = np.random.default_rng(seed)
    speaker = np.abs(rng.standard_normal(config.speaker_size)).astype(np.float32) / 16
    return Voice(speaker, rng.integers(0, config.bos_id, config.prompt_length), 0.5)


def random_text(config: T3Config, length: int, seed: int) -> list[int]:
    """Ids of a text, with start and stop."""
    middle = np.random.default_rng(seed).integers(1, config.text_vocab_size, length)
    middle[middle == config.start_text_id] = 1
    return [config.start_text_id, *middle.tolist(), config.stop_text_id]


def configs(*, exact_only: bool = False) -> st.SearchStrategy[SamplingConfig]:
    """Any valid config; `exact_only` leaves out what depends on how ties are broken."""
    orders = st.permutations(STAGES).flatmap(lambda order: st.integers(0, len(order)).map(lambda n: tuple(order[:n])))
    return st.builds(
        SamplingConfig,
        temperature=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.2, 3.0)),
        top_k=st.sampled_from([0, 0, 1, 2, 5, 40]),
        top_p=st.one_of(st.just(1.0), st.floats(0.05, 1.0)),
        min_p=st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
        repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 3.0)),
        cfg_weight=st.one_of(st.just(0.0), st.floats(-1.0, 3.0)),
        min_tokens_to_keep=st.just(1) if exact_only else st.sampled_from([1, 1, 2, 3]),
        order=st.one_of(st.just(STAGES), orders),
        cfg_convention=st.sampled_from(["conditional", "unconditional"]),
    )


@st.composite
def chain_inputs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Logits (B, V), unconditional logits and histories: both signs, duplicates, some tied, some -inf, some empty."""
    rows, size = draw(st.integers(1, 4)), draw(st.sampled_from([2, 3, 17, 64, 300]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    logits, uncond = (rng.normal(0, scale, (rows, size)).astype(np.float32) for _ in range(2))
    if draw(st.booleans()):
        logits, uncond = (np.round(2 * values) / 2 + np.float32(0) for values in (logits, uncond))
    if draw(st.booleans()):
        removed = rng.random((rows, size)) < 0.3
        removed[:, rng.integers(size)] = False
        logits[removed] = -np.inf
    lengths = rng.integers(0, 2 * size, rows) * rng.integers(0, 2, rows)
    return logits, uncond, [rng.integers(0, size, length).tolist() for length in lengths]


CACHES = ("separate", "slots")
"""MLX's own attention for each slot, and the kernel for the CPU."""


def decode_cache(kind: str, config: T3Config, filled: KeyValueCache, steps: int) -> SeparateCaches | SlotCache:
    """A cache of one slot that goes on from a prefix for so many steps."""
    if kind == "separate":
        return SeparateCaches(config, [filled.copy()], filled.rows)
    cache = SlotCache(config, 1, filled.rows, filled.length + steps)
    cache.fill(0, filled)
    return cache
