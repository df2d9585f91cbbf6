"""The MLX core against upstream's own T3 (chatterbox-tts 0.1.7, PyTorch), same weights, float32.

Two models: Finch as shipped, and a two-layer slice of the English model at full width with random weights.
Every figure is compared with 1e-4 + 1e-5 |value| for what lies inside the network, and 1e-4 for logits.
"""

import importlib.metadata

import mlx.core as mx
import numpy as np
import pytest
import torch
from scipy.special import expit

from sampler import finch
from sampler.finch.training.measure import held_out_speech
from sampler.t3.activations import swiglu
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from sampler.t3.weights import expected_shapes, read_weights
from tests import upstream
from tests.support import CACHES, SLICE, decode_cache, random_text, random_voice, random_weights

STEPS = 200
LOGITS = 1e-4


class Pair:
    """One set of weights in both implementations, with the same text and voice."""

    def __init__(
        self, config: T3Config, tensors: dict[str, mx.array], voice: Voice, text: list[int], speech: list[int]
    ) -> None:
        self.config, self.voice, self.text, self.speech = config, voice, text, speech
        self.ours, self.theirs = T3(tensors, config), upstream.build(config, tensors)
        self.taps: dict[str, np.ndarray] = {}
        self.last_layer = torch.empty(0)
        self.theirs.tfmr.norm.register_forward_pre_hook(self._keep_last_layer)

    def their_prefix(self) -> torch.Tensor:
        """Upstream's input embeddings, with the second BOS that `T3.inference` adds."""
        embeddings, _ = self.theirs.prepare_input_embeds(
            t3_cond=upstream.conditions(self.voice),
            text_tokens=torch.tensor([self.text, self.text]),
            speech_tokens=torch.full((2, 1), self.config.bos_id),
            cfg_weight=0.5,
        )
        bos = self.theirs.speech_emb(torch.tensor([[self.config.bos_id]]))
        bos = bos + self.theirs.speech_pos_emb.get_fixed_embedding(0)
        return torch.cat([embeddings, torch.cat([bos, bos])], dim=1)

    def our_prefill(self) -> tuple[np.ndarray, list[np.ndarray], KeyValueCache]:
        """Logits of the first step, attention of the aligned heads, and the filled cache; fills `taps`."""
        cache = KeyValueCache(self.config, 2)
        attention = AttentionRequest(self.config.aligned_heads, queries=2)
        prefix = self.ours.prefix(self.text, self.voice)
        hidden, rows = self.ours.backbone.prefill(prefix, cache, attention, self._keep)
        return np.array(self.ours.logits(hidden[:, -1])), [np.array(row) for row in rows], cache

    def _keep(self, name: str, value: mx.array) -> None:
        self.taps[name] = np.array(value)

    def _keep_last_layer(self, _module: object, inputs: tuple[torch.Tensor]) -> None:
        """What transformers does not give out: the last layer before the final norm."""
        self.last_layer = inputs[0]

    def their_forward(self, embeddings: torch.Tensor, past: object = None) -> object:
        return self.theirs.tfmr(
            inputs_embeds=embeddings,
            past_key_values=past,
            use_cache=True,
            output_hidden_states=True,
            output_attentions=True,
        )


@pytest.fixture(scope="module", params=["finch", "slice"])
def pair(request):
    with torch.inference_mode():
        if request.param == "slice":
            speech = np.random.default_rng(4).integers(0, SLICE.bos_id, STEPS).tolist()
            return Pair(SLICE, random_weights(SLICE, 1), random_voice(SLICE, 2), random_text(SLICE, 60, 3), speech)
        checkpoint = finch.load()
        tensors = read_weights(finch.folder() / "weights.safetensors", checkpoint.config)
        texts = [*finch.prompts("sentences"), *finch.prompts("paragraphs")]
        longest = max(texts, key=lambda prompt: prompt.tokens)
        text = checkpoint.tokenizer.encode(longest.text, longest.language)
        speech = held_out_speech(finch.folder(), [longest])[0][:STEPS].tolist()
        return Pair(checkpoint.config, tensors, checkpoint.voice, text, speech)


def assert_close(ours: np.ndarray, theirs: torch.Tensor):
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-4)


def test_the_oracle_is_what_it_says():
    assert importlib.metadata.version("chatterbox-tts") == "0.1.7"
    with torch.inference_mode():
        theirs = upstream.build(SLICE, random_weights(SLICE, 1))
    assert {name: tuple(value.shape) for name, value in theirs.state_dict().items()} == expected_shapes(SLICE)


@torch.inference_mode()
def test_conditioning(pair):
    theirs = pair.theirs.prepare_conditioning(upstream.conditions(pair.voice))[0]
    assert theirs.shape == (pair.config.conditioning_length, pair.config.hidden_size)
    assert_close(np.array(pair.ours.conditioning(pair.voice)), theirs)


@torch.inference_mode()
def test_prefix_with_two_bos_rows(pair):
    assert_close(np.array(pair.ours.prefix(pair.text, pair.voice)), pair.their_prefix())


@torch.inference_mode()
def test_prefix_with_one_bos_row_and_no_guidance(pair):
    """The layout of `en-0.1.2-nocfg`: conditioning, text and a single BOS in a single row."""
    theirs, _ = pair.theirs.prepare_input_embeds(
        t3_cond=upstream.conditions(pair.voice),
        text_tokens=torch.tensor([pair.text]),
        speech_tokens=torch.full((1, 1), pair.config.bos_id),
        cfg_weight=0.0,
    )
    assert_close(np.array(pair.ours.prefix(pair.text, pair.voice, bos_count=1, guided=False)), theirs)


@torch.inference_mode()
def test_prefill_layer_by_layer(pair, record_property):
    logits, attention, _ = pair.our_prefill()
    theirs = pair.their_forward(pair.their_prefix())
    assert len(theirs.hidden_states) == pair.config.num_layers + 1
    # transformers keeps the input of every layer, and the last entry after the final norm.
    for layer, expected in enumerate([*theirs.hidden_states[1:-1], pair.last_layer]):
        assert_close(pair.taps[f"layers.{layer}"], expected)
    assert_close(pair.taps["norm"], theirs.hidden_states[-1])
    for (layer, head), rows in zip(pair.config.aligned_heads, attention, strict=True):
        np.testing.assert_allclose(rows, theirs.attentions[layer][0, head, -2:].numpy(), atol=1e-5)
    expected = pair.theirs.speech_head(theirs.hidden_states[-1][:, -1])
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=LOGITS)
    norms = np.abs(pair.taps["norm"] - theirs.hidden_states[-1].numpy()).max()
    record_property("largest difference after the last norm", f"{norms:.1e} ({pair.config.name})")


@pytest.mark.parametrize("kind", CACHES)
@torch.inference_mode()
def test_teacher_forced_steps(pair, kind, record_property):
    """200 steps over the cache: last hidden state, both logits, their mix and the attention of the aligned heads."""
    cache = decode_cache(kind, pair.config, pair.our_prefill()[2], STEPS)
    past = pair.their_forward(pair.their_prefix()).past_key_values
    attention = AttentionRequest(pair.config.aligned_heads)
    stepped, largest, largest_mix = [], 0.0, 0.0
    for step, token in enumerate(pair.speech, start=1):
        embedding = pair.theirs.speech_emb(torch.tensor([[token]])) + pair.theirs.speech_pos_emb.get_fixed_embedding(
            step
        )
        theirs = pair.their_forward(torch.cat([embedding, embedding]), past)
        past = theirs.past_key_values
        embedded = pair.ours.embed_speech([token] * 2, [step] * 2)
        hidden, rows = pair.ours.backbone.step(embedded, cache, attention, pair._keep)
        for layer, expected in enumerate([*theirs.hidden_states[1:-1], pair.last_layer]):
            assert_close(pair.taps[f"layers.{layer}"], expected[:, 0])
        assert_close(np.array(hidden), theirs.hidden_states[-1][:, 0])
        ours, expected = (
            np.array(pair.ours.logits(hidden)),
            pair.theirs.speech_head(theirs.hidden_states[-1][:, 0]).numpy(),
        )
        stepped.append(ours)
        largest = max(largest, float(np.abs(ours - expected).max()))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=LOGITS)
        mixed, their_mix = (rows[0] + 0.5 * (rows[0] - rows[1]) for rows in (ours, expected))
        largest_mix = max(largest_mix, float(np.abs(mixed - their_mix).max()))
        np.testing.assert_allclose(mixed, their_mix, rtol=0, atol=LOGITS)
        for (layer, head), row in zip(pair.config.aligned_heads, rows[0], strict=True):
            np.testing.assert_allclose(np.array(row), theirs.attentions[layer][0, head].numpy(), atol=1e-5)
    figures = f"{largest:.1e}, of a guided one {largest_mix:.1e}, over {STEPS} steps ({pair.config.name}, {kind})"
    record_property("largest difference of a logit", figures)
    at_once = np.array(pair.ours.teacher_forced(pair.text, pair.voice, pair.speech))
    assert at_once.shape == (2, STEPS + 1, pair.config.speech_vocab_size)
    np.testing.assert_allclose(at_once[:, 1:], np.stack(stepped, axis=1), rtol=0, atol=LOGITS)


@torch.inference_mode()
def test_a_voice_without_a_prompt(pair):
    """Upstream leaves the perceiver out: two rows before the text."""
    voice = Voice(pair.voice.speaker, pair.voice.prompt[:0])
    condition = upstream.conditions(voice)
    condition.cond_prompt_speech_tokens = None
    theirs = pair.theirs.prepare_conditioning(condition)[0]
    assert_close(np.array(pair.ours.conditioning(voice)), theirs)
    assert pair.ours.text_columns(pair.text, voice).start == len(theirs)


def test_swiglu_is_that_of_float64():
    """Gates of every size, both ends of what float32's exponential can hold and beyond."""
    rng = np.random.default_rng(0)
    gates = np.concatenate([rng.normal(0, 3, 4_000), rng.uniform(-200, 200, 95), [0, -0.0, -87.5, 87.5, -1e4, 1e30]])
    joint = np.concatenate([gates, rng.normal(0, 2, gates.size)]).astype(np.float32)[None].repeat(3, axis=0)
    gate, up = np.split(joint.astype(np.float64), 2, axis=1)
    expected = gate * expit(gate) * up
    np.testing.assert_allclose(np.array(swiglu(mx.array(joint))), expected, rtol=1e-6, atol=1e-33)


def test_swiglu_of_other_types_is_mlxs():
    joint = mx.array(np.random.default_rng(1).normal(0, 2, (3, 20)).astype(np.float32)).astype(mx.bfloat16)
    gate, up = np.split(np.array(joint.astype(mx.float32)), 2, axis=1)
    found = swiglu(joint)
    assert found.dtype == mx.bfloat16
    np.testing.assert_allclose(np.array(found.astype(mx.float32)), gate * expit(gate) * up, rtol=0.03, atol=1e-3)
