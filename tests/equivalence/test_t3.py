"""The MLX core against upstream's own T3 and Turbo's loop (chatterbox-tts 0.1.7, PyTorch) with the same weights.

The oracle is upstream in float64. The core in float32 may be 2.5 times as far from it as upstream in float32 is, as the
root mean square of every layer, attention and logit (five times in the largest difference), at every weight: absolute
differences grow from 1e-5 with ordinary weights to 1e-2 where attention is sharp. `test_wrong_models.py` shows what the
bound sees.

Four models by day: Finch as shipped, a narrow one of six layers with Turbo's GPT-2 backbone, and both with sharp
attention; by night also two layers at full width of the English model and of Turbo.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from scipy.special import expit

from sampler import SamplingConfig, finch, process
from sampler.chain.draw import pick
from sampler.chain.noise import NoiseKey
from sampler.finch.training.measure import held_out_speech
from sampler.t3.activations import gelu_new, swiglu
from sampler.t3.conditioning import Voice
from sampler.t3.config import CHATTERBOX_NANO, CHATTERBOX_TURBO, T3Config
from sampler.t3.weights import expected_shapes, read_weights
from sampler.variants import variant
from tests import upstream
from tests.equivalence.pairs import SHARP, STEPS, Pair, Upstream, Values, beyond, of_logits, ratios
from tests.support import CACHES, SLICE, TURBO_SLICE, TURBO_SMALL, TURBO_TINY, decode_cache
from tests.wheel_runs import TURBO_KNOBS, infer

WIDE = pytest.mark.nightly("models at full width take seconds to build and a minute to compare")
LONG = pytest.mark.nightly("more than 100 tokens of both implementations")


def models(*configs: T3Config | None, deviation: float | None = None) -> list[ParameterSet]:
    """Parameters of `pair`: sizes (None: Finch's) and deviation of random weights (None: ordinary ones, or Finch's)."""
    names = ["finch" if config is None else config.name for config in configs]
    return [
        pytest.param((config, deviation), id=name + " sharp" * bool(deviation), marks=WIDE if "slice" in name else ())
        for config, name in zip(configs, names, strict=True)
    ]


TURBOS = models(TURBO_SMALL, TURBO_SLICE)
MODELS = [*models(None, SLICE), *TURBOS, *models(None, TURBO_SMALL, SLICE, TURBO_SLICE, deviation=SHARP)]
OF_TURBO = pytest.mark.parametrize("pair", TURBOS, indirect=True)
DEFAULTS = variant("turbo").config
SHARPER = replace(DEFAULTS, temperature=1.0, top_k=20, top_p=0.7, repetition_penalty=2.0)


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    config, deviation = request.param
    checkpoint = finch.load()
    if deviation or config:
        return Pair.of_random_weights(config or replace(checkpoint.config, name="finch-size"), deviation)
    tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
    longest = max([*finch.prompts("sentences"), *finch.prompts("paragraphs")], key=lambda prompt: prompt.tokens)
    text = checkpoint.tokenizer.encode(longest.text, longest.language)
    speech = held_out_speech(finch.folder(), [longest])[0][:STEPS].tolist()
    return Pair(checkpoint.config, tensors, checkpoint.voice, text, speech)


@pytest.mark.parametrize(("config", "tensors"), [(SLICE, 40), (CHATTERBOX_TURBO, 299), (CHATTERBOX_NANO, 155)])
def test_the_state_dict_is_upstreams_at_full_size(config, tensors):
    """Names and shapes of upstream's own class; the wheel has no Nano, whose sizes are given to the same class."""
    with torch.device("meta"):
        theirs = upstream.make(config).state_dict()
    assert {name: tuple(value.shape) for name, value in theirs.items()} == expected_shapes(config)
    assert len(theirs) == tensors


def test_rows_before_the_text(pair):
    """GPT-2 has the speaker and the prompt as it is; without a prompt the perceiver is left out, as upstream does."""
    silent = Voice(pair.voice.speaker, pair.voice.prompt[:0])
    for voice, expected in ((pair.voice, pair.config.conditioning_length), (silent, 1 if pair.gpt2 else 2)):
        assert len(pair.ours.conditioning(voice)) == expected
        assert pair.ours.text_columns(pair.text, voice) == slice(expected, expected + len(pair.text))
    assert not pair.gpt2 or pair.config.conditioning_length == 1 + len(pair.voice.prompt)


@pytest.mark.parametrize("steps", [30, pytest.param(STEPS, marks=pytest.mark.nightly("200 steps on all models"))])
@pytest.mark.parametrize("kind", CACHES)
def test_the_core_is_about_as_far_from_float64_as_upstreams_float32(pair, kind, steps, record_property):
    theirs, exact = pair.of_theirs(steps)
    found = ratios(pair.of_ours(kind, steps), theirs, exact)
    at_once = np.array(pair.ours.teacher_forced(pair.text, pair.voice, pair.speech[:steps])).astype(np.float64)
    assert at_once.shape == (pair.rows, steps + 1, pair.config.speech_vocab_size)
    found |= {f"at once, {name}": both for name, both in ratios(*map(logits_of, (at_once, theirs, exact))).items()}
    square, largest = (max(found, key=lambda name: found[name][place]) for place in (0, 1))
    away = max(np.abs(theirs[name] - exact[name]).max() for name in ("prefill, logits", "steps, logits"))
    figures = f"{found[square][0]:.2f} ({square}), {found[largest][1]:.2f} ({largest}) times upstream's"
    record_property("distance from float64", f"{figures}, {away:.1e} in a logit ({pair.config.name}, {kind})")
    assert not beyond(found)


def logits_of(values: np.ndarray | Values) -> Values:
    if isinstance(values, np.ndarray):
        return of_logits(values)
    return {name: values[name] for name in of_logits(np.zeros((1, 2, 1)))}


def test_upstream_in_float64_is_float64_throughout(pair):
    """One pass over prefix and speech is what upstream computes step by step, to 1e-11; float32 would show at 1e-7."""
    _, exact = pair.of_theirs(30)
    side = Upstream(pair.config, pair.tensors, torch.float64)
    with torch.inference_mode(), side.wide():
        past = side.forward(side.prefix(pair.text, pair.voice)).past_key_values
        for step, token in enumerate(pair.speech[:3], start=1):
            passed = side.forward(side.embedding(token, step), past)
            logits = side.network.speech_head(passed.hidden_states[-1][:, 0]).numpy()
            np.testing.assert_allclose(
                logits, exact["steps, logits"][:, step - 1], rtol=0, atol=1e-11 * np.abs(logits).max()
            )


def test_attention_is_sharp_with_such_weights(pair, request):
    """The largest weight of a query has 0.6 to 0.7 of the mass on average, and 0.06 with ordinary random weights."""
    pair.of_theirs(30)
    assert ("sharp" in request.node.callspec.id) == (pair.sharpness > 0.5)


def test_swiglu_is_that_of_float64():
    rng = np.random.default_rng(0)
    gates = np.concatenate([rng.normal(0, 3, 4_000), rng.uniform(-200, 200, 95), [0, -0.0, -87.5, 87.5, -1e4, 1e30]])
    joint = np.concatenate([gates, rng.normal(0, 2, gates.size)]).astype(np.float32)[None].repeat(3, axis=0)
    gate, up = np.split(joint.astype(np.float64), 2, axis=1)
    np.testing.assert_allclose(np.array(swiglu(mx.array(joint))), gate * expit(gate) * up, rtol=1e-6, atol=1e-33)


def test_swiglu_of_other_types_is_mlxs():
    joint = mx.array(np.random.default_rng(1).normal(0, 2, (3, 20)).astype(np.float32)).astype(mx.bfloat16)
    gate, up = np.split(np.array(joint.astype(mx.float32)), 2, axis=1)
    found = swiglu(joint)
    assert found.dtype == mx.bfloat16
    np.testing.assert_allclose(np.array(found.astype(mx.float32)), gate * expit(gate) * up, rtol=0.03, atol=1e-3)


def test_turbo_has_the_constants_of_upstreams_gpt2_medium():
    sizes = upstream.module("chatterbox.models.t3.llama_configs")
    with torch.device("meta"):
        upstream.make(TURBO_TINY)
        upstream.make(CHATTERBOX_TURBO)
    assert sizes.GPT2_MEDIUM_CONFIG.items() <= sizes.LLAMA_CONFIGS[CHATTERBOX_TURBO.name].items()
    assert CHATTERBOX_TURBO.layer_norm_eps == sizes.GPT2_MEDIUM_CONFIG["layer_norm_epsilon"]
    assert sizes.LLAMA_CONFIGS[TURBO_TINY.name]["n_embd"] == TURBO_TINY.hidden_size


@OF_TURBO
@torch.inference_mode()
def test_the_distributions_are_neither_sharp_nor_uniform(pair):
    """What makes the comparisons mean something: 5 to 6.5 nats at the median, another favourite at most steps."""
    logits = np.array(pair.ours.teacher_forced(pair.text, pair.voice, pair.speech))[0].astype(np.float64)
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(-1)
    assert 5 < np.median(entropy) < 6.5 < np.log(pair.config.speech_vocab_size) - 2
    assert len(set(logits.argmax(-1).tolist())) > STEPS / 2


def their_tokens(pair: Pair, config: SamplingConfig, key: tuple[int, str, int], cap: int) -> list[int]:
    """`T3.inference_turbo` with `torch.multinomial` answered by the suite's noise, and nothing else changed."""
    knobs = {name: getattr(config, name) for name in TURBO_KNOBS}
    run = {"text": pair.text, "rows": 1, "cap": cap, "knobs": knobs, "noise": key, "pushed": ()}
    return infer(pair.theirs.network, pair.voice, run, "turbo")["tokens"]


def our_tokens(pair: Pair, config: SamplingConfig, key: tuple[int, str, int], cap: int) -> list[int]:
    """The same rule: the penalty sees BOS at step 0 alone, the first token may be EOS, cap + 1 tokens may come."""
    hidden, _, filled = pair.our_prefill(pair.ours.prefix(pair.text, pair.voice))
    logits = pair.ours.logits(hidden[:, -1])
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


@pytest.mark.parametrize(
    ("config", "index", "cap"),
    [(DEFAULTS, 1, 30), *(pytest.param(*run, 110, marks=LONG) for run in ((DEFAULTS, 0), (DEFAULTS, 1), (SHARPER, 2)))],
)
@OF_TURBO
@torch.inference_mode()
def test_sampled_tokens_are_those_of_inference_turbo(pair, config, index, cap):
    expected = their_tokens(pair, config, (3, "turbo", index), cap)
    assert len(expected) >= cap - 10, "EOS came early: choose another key"
    assert our_tokens(pair, config, (3, "turbo", index), cap) == expected


@torch.inference_mode()
def test_runs_end_where_upstreams_end():
    pair = Pair.of_random_weights(TURBO_SMALL, eos_bias=15.0)
    runs = [their_tokens(pair, DEFAULTS, (4, "turbo", index), 8) for index in range(8)]
    assert runs == [our_tokens(pair, DEFAULTS, (4, "turbo", index), 8) for index in range(8)]
    assert len({len(run) for run in runs}) > 2
    assert any(run[:1] == [TURBO_SMALL.eos_id] for run in runs)


def test_gelu_is_torchs_tanh_approximation():
    values = np.linspace(-30, 30, 2_001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(values).double(), approximate="tanh")
    np.testing.assert_allclose(np.array(gelu_new(mx.array(values))), expected.numpy(), rtol=1e-5, atol=1e-5)
