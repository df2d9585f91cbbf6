"""Networks with one fault each: all are farther from upstream in float64 than the bound of `test_t3.py` allows.

Small networks with sharp attention. Most faults are far below 1e-4 in ordinary networks, or show only in one place.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from sampler.t3 import backbone, conditioning, gpt2, llama
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Conditioning
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from sampler.t3.slot_cache import SlotCache
from tests.equivalence.pairs import SHARP, Pair, beyond, ratios
from tests.support import TINY, TURBO_TINY

STEPS = 12
Tensors = dict[str, mx.array]
Fault = Callable[[pytest.MonkeyPatch, Tensors, T3Config], T3]


def constant(**changes: Any) -> Fault:
    return lambda patch, tensors, config: T3(tensors, replace(config, **changes))


def patched(owner: Any, name: str, change: Callable[[Any], Any]) -> Fault:
    """A function of the core replaced by what `change` makes of it."""

    def fault(patch: pytest.MonkeyPatch, tensors: Tensors, config: T3Config) -> T3:
        patch.setattr(owner, name, change(getattr(owner, name)))
        return T3(tensors, config)

    return fault


def weights(names: str, change: Callable[[mx.array], mx.array]) -> Fault:
    """All weights whose name contains `names`, changed."""

    def fault(patch: pytest.MonkeyPatch, tensors: Tensors, config: T3Config) -> T3:
        chosen = {name: change(value) for name, value in tensors.items() if names in name}
        assert chosen, names
        return T3(tensors | chosen, config)

    return fault


def exchanged(one: str, other: str) -> Fault:
    def fault(patch: pytest.MonkeyPatch, tensors: Tensors, config: T3Config) -> T3:
        pairs = {name: name.replace(one, other) for name in tensors if one in name}
        return T3(
            tensors | {a: tensors[b] for a, b in pairs.items()} | {b: tensors[a] for a, b in pairs.items()}, config
        )

    return fault


def rounded(to: mx.Dtype) -> Callable[[mx.array], mx.array]:
    return lambda values: values.astype(to).astype(values.dtype)


def tf32(values: mx.array) -> mx.array:
    """Ten bits of mantissa, as the tensor cores of some devices multiply."""
    bits = np.array(values).view(np.uint32)
    return mx.array(((bits + 0x1000) & 0xFFFFE000).view(np.float32))


def attention(*, scale: float = 1.0, ahead: int = 0, softmax: Callable[[mx.array], mx.array] | None = None) -> Fault:
    """Causal attention of a prefix with another scale, another mask or another softmax."""

    def causal(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        rows, heads, count, size = queries.shape
        length = keys.shape[2]
        hidden = mx.arange(length)[None] > mx.arange(length - count, length)[:, None] + ahead
        hidden[:, 0] = False
        scores = mx.where(hidden, -mx.inf, scale * size**-0.5 * (queries @ keys.swapaxes(2, 3)))
        shares = (softmax or (lambda scores: mx.softmax(scores, axis=-1)))(scores)
        return (shares @ values).transpose(0, 2, 1, 3).reshape(rows * count, heads * size)

    return patched(backbone, "causal_attention", lambda right: causal)


def half_softmax(to: mx.Dtype) -> Callable[[mx.array], mx.array]:
    return lambda scores: mx.softmax(scores.astype(to), axis=-1).astype(mx.float32)


def positions(of: Any, name: str, shift: int) -> Fault:
    """All positions that a method is given, or gives, are moved."""

    def moved(right: Any) -> Any:
        return lambda self, *arguments: right(self, *arguments) + shift

    return patched(of, name, moved)


def embedded_one_ahead(right: Any) -> Any:
    return lambda self, tokens, places: right(self, tokens, [place + 1 for place in places])


def rounded_cache(to: mx.Dtype) -> Fault:
    def change(right: Any) -> Any:
        return lambda self, layer, key, value: right(self, layer, rounded(to)(key), rounded(to)(value))

    return patched(KeyValueCache, "append", change)


def rounded_mix(right: Any) -> Any:
    def attend(self: SlotCache, *arguments: Any) -> Any:
        mixed, kept = right(self, *arguments)
        return rounded(mx.float16)(mixed), kept

    return attend


def interleaved(rows: mx.array, cosine: mx.array, sine: mx.array) -> mx.array:
    """Rotary pairs of neighbours, the layout of the original Llama."""
    shape = rows.shape
    apart = rows.reshape(*shape[:-1], -1, 2).swapaxes(-1, -2).reshape(shape)
    half = shape[-1] // 2
    turned = mx.concatenate([-apart[..., half:], apart[..., :half]], axis=-1)
    return apart * cosine + turned * sine


def exact_gelu(values: mx.array) -> mx.array:
    return values * (1 + mx.erf(values / mx.sqrt(mx.array(2.0)))) / 2


def gated_by_gelu(joint: mx.array) -> mx.array:
    gate, up = mx.split(joint, 2, axis=-1)
    return exact_gelu(gate) * up


def once(right: Any) -> Any:
    return lambda self, prompt: self._attend(self._weights["perceiver.pre_attention_query"][0], prompt)


def without_residual(right: Any) -> Any:
    return lambda self, queries, memory: right(self, queries, memory) - queries


def blank_position(right: Any) -> Any:
    """The unconditional row is zeros, without the positions of the text."""

    def prefix(self: T3, text: Any, voice: Any, **named: Any) -> mx.array:
        rows = np.array(right(self, text, voice, **named))
        if len(rows) == 2:
            rows[1, self.text_columns(text, voice)] = 0
        return mx.array(rows)

    return prefix


BOTH: dict[str, Fault] = {
    "no scale of attention": attention(scale=TINY.head_size**0.5),
    "scale of attention 0.1 % too large": attention(scale=1.001),
    "attention one position ahead": attention(ahead=1),
    "attention not to itself": attention(ahead=-1),
    "softmax in bfloat16": attention(softmax=half_softmax(mx.bfloat16)),
    "softmax in float16": attention(softmax=half_softmax(mx.float16)),
    "cache in float16": rounded_cache(mx.float16),
    "steps one position ahead": positions(SlotCache, "begin", 1),
    "head in TF32": weights("speech_head.weight", tf32),
    "weights in TF32": weights("weight", tf32),
    "weights in float16": weights("weight", rounded(mx.float16)),
    "weights in bfloat16": weights("weight", rounded(mx.bfloat16)),
    "attention of steps in float16": patched(SlotCache, "attend", rounded_mix),
    "speaker in bfloat16": weights("spkr_enc", rounded(mx.bfloat16)),
}
OF_LLAMA: dict[str, Fault] = {
    "epsilon of 1e-6": constant(rms_norm_eps=1e-6),
    "theta of 10,000": constant(rope_theta=10_000.0),
    "no scaling of frequencies": constant(rope_factor=1.0),
    "rotary pairs of neighbours": patched(backbone, "rotate", lambda right: interleaved),
    "speech one position ahead": patched(T3, "embed_speech", embedded_one_ahead),
    "GELU in place of SiLU": patched(llama, "swiglu", lambda right: gated_by_gelu),
    "gate and up exchanged": exchanged("gate_proj", "up_proj"),
    "keys and values exchanged": exchanged("k_proj", "v_proj"),
    "unconditional row without positions": patched(T3, "prefix", blank_position),
    "emotion left out": weights("emotion_adv", lambda values: 0 * values),
    "perceiver: epsilon of 1e-6": patched(conditioning, "LAYER_NORM_EPS", lambda right: 1e-6),
    "perceiver: queries do not attend to themselves": patched(Conditioning, "resample", once),
    "perceiver: scale of the whole width": weights("perceiver.attn.to_q", lambda values: values / 2**0.5),
    "perceiver: no residual": patched(Conditioning, "_attend", without_residual),
    "perceiver: no bias of the output": weights("perceiver.attn.proj_out.bias", lambda values: 0 * values),
    "last norm without its weight": weights("tfmr.norm.weight", mx.ones_like),
}
OF_GPT2: dict[str, Fault] = {
    "epsilon of 1e-6": constant(layer_norm_eps=1e-6),
    "exact GELU": patched(gpt2, "gelu_new", lambda right: exact_gelu),
    "positions one ahead": weights("wpe", lambda values: mx.roll(values, -1, axis=0)),
    "no positions": weights("wpe", lambda values: 0 * values),
    "norms exchanged": exchanged("ln_1", "ln_2"),
    "no bias of queries, keys and values": weights("c_attn.bias", lambda values: 0 * values),
    "no bias of the last norm": weights("ln_f.bias", lambda values: 0 * values),
    "no bias of the head": weights("speech_head.bias", lambda values: 0 * values),
}


FAULTS = {TINY: BOTH | OF_LLAMA, TURBO_TINY: BOTH | OF_GPT2}


@functools.cache
def pair_of(config: T3Config) -> Pair:
    return Pair.of_random_weights(config, SHARP)


@pytest.mark.parametrize("config", FAULTS, ids=lambda config: config.name)
def test_the_right_network_is_within_the_bound(config):
    pair = pair_of(config)
    assert not beyond(ratios(pair.of_ours("slots", STEPS), *pair.of_theirs(STEPS)))


@pytest.mark.parametrize(
    ("config", "name"),
    [pytest.param(config, name, id=f"{config.name}: {name}") for config, faults in FAULTS.items() for name in faults],
)
def test_a_wrong_network_is_beyond_it(config, name, monkeypatch):
    pair = pair_of(config)
    monkeypatch.setattr(pair, "ours", FAULTS[config][name](monkeypatch, pair.tensors, config))
    assert beyond(ratios(pair.of_ours("slots", STEPS), *pair.of_theirs(STEPS)))
