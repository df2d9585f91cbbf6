"""The MLX core against upstream's own T3 and Turbo's loop (chatterbox-tts 0.1.7, PyTorch), same weights, float32.

Four models: Finch as shipped, a narrow model of six layers with Turbo's GPT-2 backbone, and two layers at full width of
the English model and of Turbo, these three with random weights. What lies inside the network, and logits of GPT-2, may
differ by 1e-4 + 1e-5 |value|; logits of the Llama backbone by 1e-4.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import torch
from scipy.special import expit

from sampler import SamplingConfig, finch, process
from sampler.chain.draw import pick
from sampler.chain.noise import NoiseKey
from sampler.finch.training.measure import held_out_speech
from sampler.t3.activations import gelu_new, swiglu
from sampler.t3.backbone import AttentionRequest
from sampler.t3.conditioning import Voice
from sampler.t3.config import CHATTERBOX_NANO, CHATTERBOX_TURBO
from sampler.t3.weights import expected_shapes, read_weights
from sampler.variants import variant
from tests import upstream
from tests.equivalence.pairs import STEPS, Pair
from tests.support import CACHES, SLICE, TURBO_SLICE, TURBO_SMALL, TURBO_TINY, decode_cache
from tests.wheel_runs import TURBO_KNOBS, infer

WIDE = pytest.mark.nightly("models at full width take seconds to build and a minute to compare")
LONG = pytest.mark.nightly("more than 100 tokens of both implementations")
TURBOS = [pytest.param(TURBO_SMALL, id="turbo-small"), pytest.param(TURBO_SLICE, marks=WIDE, id="turbo-slice")]
OF_TURBO = pytest.mark.parametrize("pair", TURBOS, indirect=True)
DEFAULTS = variant("turbo").config
SHARPER = replace(DEFAULTS, temperature=1.0, top_k=20, top_p=0.7, repetition_penalty=2.0)


@pytest.fixture(scope="module", params=[pytest.param(None, id="finch"), pytest.param(SLICE, marks=WIDE), *TURBOS])
def pair(request):
    with torch.inference_mode():
        if request.param:
            return Pair.of_random_weights(request.param)
        checkpoint = finch.load()
        tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
        longest = max([*finch.prompts("sentences"), *finch.prompts("paragraphs")], key=lambda prompt: prompt.tokens)
        text = checkpoint.tokenizer.encode(longest.text, longest.language)
        speech = held_out_speech(finch.folder(), [longest])[0][:STEPS].tolist()
        return Pair(checkpoint.config, tensors, checkpoint.voice, text, speech)


def assert_close(ours: np.ndarray | mx.array, theirs: torch.Tensor, rtol: float = 1e-5):
    np.testing.assert_allclose(np.array(ours), theirs.numpy(), rtol=rtol, atol=1e-4)


def assert_attention(pair: Pair, ours: list[mx.array], theirs: object, queries: slice | int):
    for (layer, head), rows in zip(pair.config.aligned_heads, ours, strict=True):
        expected = theirs.attentions[layer][0, head, queries]
        np.testing.assert_allclose(np.array(rows).squeeze(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("config", "tensors"), [(SLICE, 40), (CHATTERBOX_TURBO, 299), (CHATTERBOX_NANO, 155)])
def test_the_state_dict_is_upstreams_at_full_size(config, tensors):
    """Names and shapes of upstream's own class; the wheel has no Nano, whose sizes are given to the same class."""
    with torch.device("meta"):
        theirs = upstream.make(config).state_dict()
    assert {name: tuple(value.shape) for name, value in theirs.items()} == expected_shapes(config)
    assert len(theirs) == tensors


@torch.inference_mode()
def test_conditioning_and_prefix(pair):
    theirs = pair.theirs.prepare_conditioning(upstream.conditions(pair.voice))[0]
    assert theirs.shape == (pair.config.conditioning_length, pair.config.hidden_size)
    assert not pair.gpt2 or len(theirs) == 1 + len(pair.voice.prompt)
    assert_close(pair.ours.conditioning(pair.voice), theirs)
    assert_close(pair.ours.prefix(pair.text, pair.voice), pair.their_prefix())
    assert_close(pair.ours.prefix(pair.text, pair.voice, bos_count=1, guided=False), pair.their_prefix(guidance=0.0))
    assert pair.ours.text_columns(pair.text, pair.voice) == slice(len(theirs), len(theirs) + len(pair.text))


@torch.inference_mode()
def test_a_voice_without_a_prompt(pair):
    """Upstream leaves the perceiver out: the rows of speaker and emotion alone, of which GPT-2 has the first."""
    voice = Voice(pair.voice.speaker, pair.voice.prompt[:0])
    condition = upstream.conditions(voice)
    condition.cond_prompt_speech_tokens = None
    theirs = pair.theirs.prepare_conditioning(condition)[0]
    assert theirs.shape == (1 if pair.gpt2 else 2, pair.config.hidden_size)
    assert_close(pair.ours.conditioning(voice), theirs)
    assert pair.ours.text_columns(pair.text, voice).start == len(theirs)


@torch.inference_mode()
def test_prefill_layer_by_layer(pair, record_property):
    logits, attention, _ = pair.our_prefill()
    theirs = pair.their_forward(pair.their_prefix())
    layers = pair.their_layers(theirs)
    assert len(layers) == pair.config.num_layers + 1
    if pair.gpt2:
        assert_close(pair.taps["embeddings"], layers[0])
    for layer, expected in enumerate(layers[1:]):
        assert_close(pair.taps[f"layers.{layer}"], expected)
    assert_close(pair.taps["norm"], theirs.hidden_states[-1])
    assert_attention(pair, attention, theirs, slice(-2, None))
    assert_close(logits, pair.theirs.speech_head(theirs.hidden_states[-1][:, -1]), rtol=1e-5 * pair.gpt2)
    norms = np.abs(pair.taps["norm"] - theirs.hidden_states[-1].numpy()).max()
    record_property("largest difference after the last norm", f"{norms:.1e} ({pair.config.name})")


@pytest.mark.parametrize("steps", [30, pytest.param(STEPS, marks=pytest.mark.nightly("200 steps on four models"))])
@pytest.mark.parametrize("kind", CACHES)
@torch.inference_mode()
def test_teacher_forced_steps(pair, kind, steps, record_property):
    cache = decode_cache(kind, pair.config, pair.our_prefill()[2], steps)
    past = pair.their_forward(pair.their_prefix()).past_key_values
    attention = AttentionRequest(pair.config.aligned_heads)
    stepped, largest, rtol = [], 0.0, 1e-5 * pair.gpt2
    for step, token in enumerate(pair.speech[:steps], start=1):
        theirs = pair.their_forward(pair.their_embedding(token, step), past)
        past = theirs.past_key_values
        embedded = pair.ours.embed_speech([token] * pair.rows, [step] * pair.rows)
        hidden, rows = pair.ours.backbone.step(embedded, cache, attention, pair.keep)
        for layer, expected in enumerate(pair.their_layers(theirs)[1:]):
            assert_close(pair.taps[f"layers.{layer}"], expected[:, 0])
        assert_close(hidden, theirs.hidden_states[-1][:, 0])
        ours, expected = np.array(pair.ours.logits(hidden)), pair.theirs.speech_head(theirs.hidden_states[-1][:, 0])
        stepped.append(ours)
        largest = max(largest, float(np.abs(ours - expected.numpy()).max()))
        assert_close(ours, expected, rtol)
        mixed, their_mix = (logits[0] + 0.5 * (logits[0] - logits[-1]) for logits in (ours, expected))
        assert_close(mixed, their_mix, rtol)
        assert_attention(pair, rows[0], theirs, -1)
    record_property("largest difference of a logit", f"{largest:.1e} over {steps} steps ({pair.config.name}, {kind})")
    at_once = np.array(pair.ours.teacher_forced(pair.text, pair.voice, pair.speech[:steps]))
    assert at_once.shape == (pair.rows, steps + 1, pair.config.speech_vocab_size)
    np.testing.assert_allclose(at_once[:, 1:], np.stack(stepped, axis=1), rtol=rtol, atol=1e-4)


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
    return infer(pair.theirs, pair.voice, run, "turbo")["tokens"]


def our_tokens(pair: Pair, config: SamplingConfig, key: tuple[int, str, int], cap: int) -> list[int]:
    """The same rule: the penalty sees BOS at step 0 alone, the first token may be EOS, cap + 1 tokens may come."""
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
