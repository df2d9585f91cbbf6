"""Turbo's own parts against upstream's (chatterbox-tts 0.1.7, PyTorch): its loop, its GELU, its norm, its refusals.

Layers and logits of its GPT-2 backbone are compared in test_t3.py; `random_weights` says how its distributions look.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import torch

from sampler import SamplingConfig, process
from sampler.chain.draw import pick
from sampler.chain.noise import NoiseKey
from sampler.errors import ConfigError, TextError
from sampler.t3.activations import gelu_new
from sampler.t3.cache import KeyValueCache
from sampler.t3.config import CHATTERBOX_TURBO
from sampler.t3.model import T3
from sampler.t3.norms import layer_norm
from tests import upstream
from tests.equivalence.pairs import STEPS, Pair
from tests.support import TURBO_SLICE, TURBO_SMALL, TURBO_TINY, decode_cache, random_text, random_voice, random_weights
from tests.wheel_runs import infer

TURBO_ORDER = ("temperature", "top_k", "top_p", "repetition_penalty")
TURBO_DEFAULTS = SamplingConfig(
    temperature=0.8, top_k=1_000, top_p=0.95, repetition_penalty=1.2, min_p=0.0, cfg_weight=0.0, order=TURBO_ORDER
)


@pytest.fixture(
    scope="module",
    params=[TURBO_SMALL, pytest.param(TURBO_SLICE, marks=pytest.mark.nightly("full width takes several seconds"))],
    ids=lambda config: config.name,
)
def pair(request):
    with torch.inference_mode():
        return Pair.of_random_weights(request.param)


def test_turbo_has_the_constants_of_upstreams_gpt2_medium():
    sizes = upstream.module("chatterbox.models.t3.llama_configs")
    with torch.device("meta"):
        upstream.make(TURBO_TINY)
        upstream.make(CHATTERBOX_TURBO)
    assert sizes.GPT2_MEDIUM_CONFIG.items() <= sizes.LLAMA_CONFIGS[CHATTERBOX_TURBO.name].items()
    assert CHATTERBOX_TURBO.layer_norm_eps == sizes.GPT2_MEDIUM_CONFIG["layer_norm_epsilon"]
    assert sizes.LLAMA_CONFIGS[TURBO_TINY.name]["n_embd"] == TURBO_TINY.hidden_size


@torch.inference_mode()
def test_the_distributions_are_neither_sharp_nor_uniform(pair):
    """What makes the comparisons below mean something: 5 to 6.5 nats at the median, another favourite at most steps."""
    logits = np.array(pair.ours.teacher_forced(pair.text, pair.voice, pair.speech))[0].astype(np.float64)
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(-1)
    assert 5 < np.median(entropy) < 6.5 < np.log(pair.config.speech_vocab_size) - 2
    assert len(set(logits.argmax(-1).tolist())) > STEPS / 2


def their_tokens(pair: Pair, config: SamplingConfig, key: tuple[int, str, int], cap: int) -> list[int]:
    """`T3.inference_turbo` with `torch.multinomial` answered by the suite's noise, and nothing else changed."""
    knobs = {name: getattr(config, name) for name in TURBO_ORDER}
    run = {"text": pair.text, "rows": 1, "cap": cap, "knobs": knobs, "noise": key, "pushed": ()}
    return infer(pair.theirs, pair.voice, run, "turbo")["tokens"]


def our_tokens(pair: Pair, config: SamplingConfig, key: tuple[int, str, int], cap: int) -> list[int]:
    """The same rule over our prefill, step and chain.

    The penalty sees BOS at step 0 and afterwards what was generated, without BOS. The first token is not tested for
    EOS; cap + 1 tokens may come.
    """
    logits, _, filled = pair.our_prefill()
    cache = decode_cache("slots", pair.config, filled, cap + 1)
    tokens: list[int] = []
    for step in range(cap + 1):
        scores = process(np.array(logits), [tokens or [pair.config.bos_id]], config)
        gumbel = NoiseKey(*key).gumbel(step, pair.config.speech_vocab_size)
        tokens.append(int(pick(scores, mx.array(gumbel)[None])[0].item()))
        if step and tokens[-1] == pair.config.eos_id:
            break
        hidden, _ = pair.ours.backbone.step(pair.ours.embed_speech(tokens[-1:], [step + 1]), cache)
        logits = pair.ours.logits(hidden)
    return tokens[:-1] if tokens[-1] == pair.config.eos_id else tokens


SHARPER = replace(TURBO_DEFAULTS, temperature=1.0, top_k=20, top_p=0.7, repetition_penalty=2.0)


LONG = pytest.mark.nightly("more than 100 tokens of both implementations")


@pytest.mark.parametrize(
    ("config", "index", "cap"),
    [
        (TURBO_DEFAULTS, 1, 30),
        *(pytest.param(*run, 110, marks=LONG) for run in ((TURBO_DEFAULTS, 0), (TURBO_DEFAULTS, 1), (SHARPER, 2))),
    ],
)
@torch.inference_mode()
def test_sampled_tokens_are_those_of_inference_turbo(pair, config, index, cap):
    expected = their_tokens(pair, config, (3, "turbo", index), cap)
    assert len(expected) >= cap - 10, "EOS came early: choose another key"
    assert our_tokens(pair, config, (3, "turbo", index), cap) == expected


@torch.inference_mode()
def test_runs_end_where_upstreams_end():
    """With an EOS that is always likely: it ends a run and is taken away, and as a first token it is no end."""
    pair = Pair.of_random_weights(TURBO_SMALL, eos_bias=15.0)
    runs = [their_tokens(pair, TURBO_DEFAULTS, (4, "turbo", index), 8) for index in range(8)]
    assert runs == [our_tokens(pair, TURBO_DEFAULTS, (4, "turbo", index), 8) for index in range(8)]
    assert len({len(run) for run in runs}) > 2
    assert any(run[:1] == [TURBO_SMALL.eos_id] for run in runs)


def test_gelu_is_torchs_tanh_approximation():
    values = np.linspace(-30, 30, 2_001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(values).double(), approximate="tanh")
    np.testing.assert_allclose(np.array(gelu_new(mx.array(values))), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 31, 192, 768, 1_024])
def test_layer_norm_is_as_near_to_float64_as_torchs(width):
    """Rows with one value of 300 among ordinary ones, as trained transformers have them (arXiv:2402.17762)."""
    rng = np.random.default_rng(width)
    rows = rng.standard_normal((64, width)).astype(np.float32)
    rows[:, width // 2] += 300
    weight, bias = (rng.standard_normal(width).astype(np.float32) for _ in range(2))
    ours = np.array(layer_norm(mx.array(rows), mx.array(weight), mx.array(bias), 1e-5))
    in_torch = [torch.from_numpy(array) for array in (rows, weight, bias)]
    theirs = torch.nn.functional.layer_norm(in_torch[0], (width,), *in_torch[1:], 1e-5).numpy()
    exact = torch.nn.functional.layer_norm(
        in_torch[0].double(), (width,), *(array.double() for array in in_torch[1:]), 1e-5
    ).numpy()
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + 1e-6


def test_what_turbo_does_not_have_is_refused():
    model = T3(random_weights(TURBO_TINY, 5), TURBO_TINY)
    voice, text = random_voice(TURBO_TINY, 6), random_text(TURBO_TINY, 5, 7)
    with pytest.raises(ConfigError, match=r"guided = True \(turbo-tiny has no unconditional row\)"):
        model.prefix(text, voice, guided=True)
    with pytest.raises(TextError, match=r"the text has 65 tokens \(turbo-tiny takes 64; split the text\)"):
        model.prefix([1] * 65, voice)
    with pytest.raises(TextError, match=r"132 speech tokens \(at most 131\)"):
        model.teacher_forced([1] * 64, voice, [1] * 132)
    assert np.isfinite(np.array(model.teacher_forced([1] * 64, voice, [1] * 131))).all()
    with pytest.raises(TextError, match=r"position 218 \(turbo-tiny has 218 positions for voice, text and speech\)"):
        model.backbone.prefill(mx.zeros((1, 219, TURBO_TINY.hidden_size)), KeyValueCache(TURBO_TINY, 1))
