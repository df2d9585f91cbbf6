"""The GPT-2 backbone against upstream's own T3 (chatterbox-tts 0.1.7, PyTorch), same weights, float32.

Two models with random weights: two layers of Turbo at full width, and six layers of a narrow one. What is random
and how its distributions look: `random_weights`. Every figure is compared with 1e-4 + 1e-5 |value|.
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
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Voice
from sampler.t3.config import CHATTERBOX_NANO, CHATTERBOX_TURBO, T3Config
from sampler.t3.model import T3
from sampler.t3.norms import layer_norm
from sampler.t3.weights import expected_shapes
from tests import upstream
from tests.support import (
    CACHES,
    TURBO_SLICE,
    TURBO_SMALL,
    TURBO_TINY,
    decode_cache,
    random_text,
    random_voice,
    random_weights,
)

STEPS = 200
TURBO_ORDER = ("temperature", "top_k", "top_p", "repetition_penalty")
TURBO_DEFAULTS = SamplingConfig(
    temperature=0.8, top_k=1_000, top_p=0.95, repetition_penalty=1.2, min_p=0.0, cfg_weight=0.0, order=TURBO_ORDER
)


class Pair:
    """One set of weights in both implementations, with the same text and voice."""

    def __init__(self, config: T3Config, eos_bias: float = 0.0) -> None:
        tensors = random_weights(config, 1)
        tensors["speech_head.bias"][config.eos_id] += eos_bias
        self.config, self.voice, self.text = config, random_voice(config, 2), random_text(config, 60, 3)
        self.speech = np.random.default_rng(4).integers(0, config.bos_id, STEPS).tolist()
        self.ours, self.theirs = T3(tensors, config), upstream.build(config, tensors)
        self.taps: dict[str, np.ndarray] = {}
        self.last_layer = torch.empty(0)
        self.theirs.tfmr.ln_f.register_forward_pre_hook(self._keep_last_layer)

    def their_prefix(self) -> torch.Tensor:
        """Upstream's input embeddings as `inference_turbo` makes them."""
        return self.theirs.prepare_input_embeds(
            t3_cond=upstream.conditions(self.voice),
            text_tokens=torch.tensor([self.text]),
            speech_tokens=torch.tensor([[self.config.bos_id]]),
            cfg_weight=0.0,
        )[0]

    def their_forward(self, embeddings: torch.Tensor, past: object = None) -> object:
        return self.theirs.tfmr(
            inputs_embeds=embeddings,
            past_key_values=past,
            use_cache=True,
            output_hidden_states=True,
            output_attentions=True,
        )

    def our_prefill(self) -> tuple[mx.array, list[mx.array], KeyValueCache]:
        """Logits of the first step, attention of two heads, and the filled cache; fills `taps`."""
        cache = KeyValueCache(self.config, 1)
        attention = AttentionRequest(self.config.aligned_heads, queries=2)
        hidden, rows = self.ours.backbone.prefill(self.ours.prefix(self.text, self.voice), cache, attention, self._keep)
        return self.ours.logits(hidden[:, -1]), rows, cache

    def layers(self, theirs: object) -> list[torch.Tensor]:
        """Input of the first layer, then the output of each; transformers keeps the last one only after its norm."""
        return [*theirs.hidden_states[:-1], self.last_layer]

    def _keep(self, name: str, value: mx.array) -> None:
        self.taps[name] = np.array(value)

    def _keep_last_layer(self, _module: object, inputs: tuple[torch.Tensor]) -> None:
        self.last_layer = inputs[0]


@pytest.fixture(scope="module", params=[TURBO_SLICE, TURBO_SMALL], ids=lambda config: config.name)
def pair(request):
    with torch.inference_mode():
        return Pair(request.param)


def assert_close(ours: np.ndarray | mx.array, theirs: torch.Tensor):
    np.testing.assert_allclose(np.array(ours), theirs.numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("config", "tensors"), [(CHATTERBOX_TURBO, 299), (CHATTERBOX_NANO, 155)])
def test_the_state_dict_is_upstreams_at_full_size(config, tensors):
    """Names and shapes of upstream's own class; the wheel has no Nano, whose sizes are put into the same class."""
    with torch.device("meta"):
        theirs = upstream.make(config).state_dict()
    assert {name: tuple(value.shape) for name, value in theirs.items()} == expected_shapes(config)
    assert len(theirs) == tensors


def test_turbo_has_the_constants_of_upstreams_gpt2_medium():
    sizes = upstream.module("chatterbox.models.t3.llama_configs")
    upstream.make(TURBO_TINY)
    with torch.device("meta"):
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


@torch.inference_mode()
def test_conditioning_and_prefix(pair):
    theirs = pair.theirs.prepare_conditioning(upstream.conditions(pair.voice))[0]
    assert len(theirs) == 1 + len(pair.voice.prompt) == pair.config.conditioning_length
    assert_close(pair.ours.conditioning(pair.voice), theirs)
    assert_close(pair.ours.prefix(pair.text, pair.voice), pair.their_prefix())
    assert pair.ours.text_columns(pair.text, pair.voice) == slice(len(theirs), len(theirs) + len(pair.text))


@torch.inference_mode()
def test_prefill_layer_by_layer(pair, record_property):
    logits, attention, _ = pair.our_prefill()
    theirs = pair.their_forward(pair.their_prefix())
    names = ["embeddings", *(f"layers.{index}" for index in range(pair.config.num_layers))]
    for name, expected in zip(names, pair.layers(theirs), strict=True):
        assert_close(pair.taps[name], expected)
    assert_close(pair.taps["norm"], theirs.hidden_states[-1])
    for (layer, head), rows in zip(pair.config.aligned_heads, attention, strict=True):
        np.testing.assert_allclose(np.array(rows), theirs.attentions[layer][0, head, -2:].numpy(), atol=1e-5)
    expected = pair.theirs.speech_head(theirs.hidden_states[-1][:, -1])
    assert_close(logits, expected)
    largest = float(np.abs(np.array(logits) - expected.numpy()).max())
    record_property("largest difference of a first logit", f"{largest:.1e} ({pair.config.name})")


@pytest.mark.parametrize("kind", CACHES)
@torch.inference_mode()
def test_teacher_forced_steps(pair, kind, record_property):
    """200 steps over the cache: every layer, the logits, the attention; then all steps in one pass."""
    cache = decode_cache(kind, pair.config, pair.our_prefill()[2], STEPS)
    past = pair.their_forward(pair.their_prefix()).past_key_values
    attention = AttentionRequest(pair.config.aligned_heads)
    stepped, largest = [], 0.0
    for step, token in enumerate(pair.speech, start=1):
        theirs = pair.their_forward(pair.theirs.speech_emb(torch.tensor([[token]])), past)
        past = theirs.past_key_values
        embedded = pair.ours.embed_speech([token], [step])
        hidden, rows = pair.ours.backbone.step(embedded, cache, attention, pair._keep)
        for layer, expected in enumerate(pair.layers(theirs)[1:]):
            assert_close(pair.taps[f"layers.{layer}"], expected[:, 0])
        expected = pair.theirs.speech_head(theirs.hidden_states[-1][:, 0])
        stepped.append(np.array(pair.ours.logits(hidden)))
        assert_close(stepped[-1], expected)
        largest = max(largest, float(np.abs(stepped[-1] - expected.numpy()).max()))
        for (layer, head), row in zip(pair.config.aligned_heads, rows[0], strict=True):
            np.testing.assert_allclose(np.array(row), theirs.attentions[layer][0, head].numpy(), atol=1e-5)
    record_property("largest difference of a logit", f"{largest:.1e} over {STEPS} steps ({pair.config.name}, {kind})")
    at_once = np.array(pair.ours.teacher_forced(pair.text, pair.voice, pair.speech))
    assert at_once.shape == (1, STEPS + 1, pair.config.speech_vocab_size)
    np.testing.assert_allclose(at_once[:, 1:], np.stack(stepped, axis=1), rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_a_voice_without_a_prompt(pair):
    """The speaker's row alone."""
    voice = Voice(pair.voice.speaker, pair.voice.prompt[:0])
    condition = upstream.conditions(voice)
    condition.cond_prompt_speech_tokens = None
    theirs = pair.theirs.prepare_conditioning(condition)[0]
    assert theirs.shape == (1, pair.config.hidden_size)
    assert_close(pair.ours.conditioning(voice), theirs)
    assert pair.ours.text_columns(pair.text, voice).start == 1


def their_tokens(pair: Pair, config: SamplingConfig, key: NoiseKey, cap: int, monkeypatch) -> list[int]:
    """`T3.inference_turbo` with `torch.multinomial` answered by the suite's noise, and nothing else changed."""
    steps = iter(range(cap + 1))

    def multinomial(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1
        gumbel = torch.from_numpy(key.gumbel(next(steps), probabilities.shape[-1]))
        return torch.argmax(torch.log(probabilities) + gumbel, dim=-1, keepdim=True)

    module = upstream.module("chatterbox.models.t3.t3")
    monkeypatch.setattr(module.torch, "multinomial", multinomial)
    monkeypatch.setattr(module, "tqdm", lambda steps, **_: steps)
    return pair.theirs.inference_turbo(
        t3_cond=upstream.conditions(pair.voice),
        text_tokens=torch.tensor([pair.text]),
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        repetition_penalty=config.repetition_penalty,
        max_gen_len=cap,
    )[0].tolist()


def our_tokens(pair: Pair, config: SamplingConfig, key: NoiseKey, cap: int) -> list[int]:
    """The same rule over our prefill, step and chain.

    The penalty sees BOS at step 0 and afterwards what was generated, without BOS. The first token is not tested for
    EOS; cap + 1 tokens may come.
    """
    logits, _, filled = pair.our_prefill()
    cache = decode_cache("slots", pair.config, filled, cap + 1)
    tokens: list[int] = []
    for step in range(cap + 1):
        scores = process(np.array(logits), [tokens or [pair.config.bos_id]], config)
        gumbel = key.gumbel(step, pair.config.speech_vocab_size)
        tokens.append(int(pick(scores, mx.array(gumbel)[None])[0].item()))
        if step and tokens[-1] == pair.config.eos_id:
            break
        hidden, _ = pair.ours.backbone.step(pair.ours.embed_speech(tokens[-1:], [step + 1]), cache)
        logits = pair.ours.logits(hidden)
    return tokens[:-1] if tokens[-1] == pair.config.eos_id else tokens


@torch.inference_mode()
def test_sampled_tokens_are_those_of_inference_turbo(pair, monkeypatch):
    """At least 100 tokens, one by one the same; the narrow model speaks with other knobs and keys as well."""
    sharper = replace(TURBO_DEFAULTS, temperature=1.0, top_k=20, top_p=0.7, repetition_penalty=2.0)
    runs = [(TURBO_DEFAULTS, 0)] if pair.config is TURBO_SLICE else [(TURBO_DEFAULTS, 1), (sharper, 2)]
    for config, index in runs:
        key = NoiseKey(3, "turbo", index)
        expected = their_tokens(pair, config, key, 110, monkeypatch)
        assert len(expected) >= 100, "EOS came early: another key"
        assert our_tokens(pair, config, key, 110) == expected


def test_runs_end_where_upstreams_end(monkeypatch):
    """With an EOS that is always likely: it ends a run and is taken away, and as a first token it is no end."""
    with torch.inference_mode():
        pair = Pair(TURBO_SMALL, eos_bias=15.0)
        runs = []
        for index in range(12):
            key = NoiseKey(4, "turbo", index)
            runs.append(their_tokens(pair, TURBO_DEFAULTS, key, 8, monkeypatch))
            assert our_tokens(pair, TURBO_DEFAULTS, key, 8) == runs[-1]
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
