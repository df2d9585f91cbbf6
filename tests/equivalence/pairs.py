"""One set of weights in the MLX core, in upstream's own T3 (chatterbox-tts 0.1.7, PyTorch) in float32, and in float64.

The float64 one is the oracle: what the core is away from it is measured in units of what upstream's float32 is.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from sampler import SamplingConfig
from sampler.requests import Generation
from sampler.t3.backbone import AttentionRequest, Tap, no_tap
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from tests import upstream
from tests.support import decode_cache, kept_bounds, random_text, random_voice, random_weights

STEPS = 200
QUERIES = 32
"""Last positions of the prefix whose attention is compared."""
WEIGHT = 0.5
"""Of guidance, in the guided logits that are compared."""

Values = dict[str, NDArray[np.float64]]
"""Arrays of a network by name, the same for every implementation; see `Pair.of_ours`."""


class _Float64(TorchFunctionMode):
    """Llama's norm and softmax ask for float32 by name, whatever the type of the network: they get float64.

    The rotary tables, which call `.float()`, stay float32: they are constants, equal for every implementation.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        return function(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


class Upstream:
    """Upstream's network in one type."""

    def __init__(self, config: T3Config, tensors: Mapping[str, mx.array], dtype: torch.dtype) -> None:
        self.config, self.dtype, self.network = config, dtype, upstream.build(config, tensors, dtype=dtype)
        self.gpt2, self.rows = config.backbone == "gpt2", 2 if config.guidance else 1
        self._last_layer = torch.empty(0)
        norm = self.network.tfmr.ln_f if self.gpt2 else self.network.tfmr.norm
        norm.register_forward_pre_hook(self._keep_last_layer)

    def wide(self) -> AbstractContextManager[Any]:
        return _Float64() if self.dtype == torch.float64 else nullcontext()

    def conditioning(self, voice: Voice) -> torch.Tensor:
        condition = upstream.conditions(voice)
        if not len(voice.prompt):
            condition.cond_prompt_speech_tokens = None
        return self.network.prepare_conditioning(condition.to(dtype=self.dtype))[0]

    def prefix(self, text: Sequence[int], voice: Voice, guidance: float = WEIGHT) -> torch.Tensor:
        """Upstream's input embeddings; with guidance and the second BOS that `T3.inference` adds, where it has them."""
        rows = self.rows if guidance else 1
        embeddings = self.network.prepare_input_embeds(
            t3_cond=upstream.conditions(voice).to(dtype=self.dtype),
            text_tokens=torch.tensor([list(text)] * rows),
            speech_tokens=torch.full((rows, 1), self.config.bos_id),
            cfg_weight=guidance if self.rows == 2 else 0.0,
        )[0]
        if self.gpt2 or not guidance:
            return embeddings
        return torch.cat([embeddings, self.embedding(self.config.bos_id, 0)], dim=1)

    def embedding(self, token: int, position: int) -> torch.Tensor:
        embedded = self.network.speech_emb(torch.full((self.rows, 1), token))
        return embedded if self.gpt2 else embedded + self.network.speech_pos_emb.get_fixed_embedding(position)

    def forward(self, embeddings: torch.Tensor, past: object = None) -> Any:
        return self.network.tfmr(
            inputs_embeds=embeddings,
            past_key_values=past,
            use_cache=True,
            output_hidden_states=True,
            output_attentions=True,
        )

    def values(self, text: Sequence[int], voice: Voice, speech: Sequence[int]) -> Values:
        """What `Pair.of_ours` computes step by step, here in one pass over prefix and speech."""
        with torch.inference_mode(), self.wide():
            prefix = self.prefix(text, voice)
            steps = [self.embedding(token, step) for step, token in enumerate(speech, start=1)]
            passed = self.forward(torch.cat([prefix, *steps], dim=1))
            logits = self.network.speech_head(passed.hidden_states[-1][:, prefix.shape[1] - 1 :])
            found = {
                "conditioning": self.conditioning(voice),
                "conditioning without a prompt": self.conditioning(Voice(voice.speaker, voice.prompt[:0])),
                "prefix": prefix,
                "prefix without guidance": self.prefix(text, voice, 0.0),
            }
            # transformers keeps the last layer only after its norm
            layers = [*passed.hidden_states[1:-1], self._last_layer, passed.hidden_states[-1]]
            for layer, hidden in zip(layer_names(self.config), layers, strict=True):
                found[f"prefill, {layer}"] = hidden[:, : prefix.shape[1]]
                found[f"steps, {layer}"] = hidden[:, prefix.shape[1] :]
            attention = torch.stack([passed.attentions[layer][0, head] for layer, head in self.config.aligned_heads])
            found["prefill, attention"] = attention[:, prefix.shape[1] - QUERIES : prefix.shape[1]]
            found["steps, attention"] = attention[:, prefix.shape[1] :]
            sharpest = torch.stack([attention.amax(-1) for attention in passed.attentions])
            self.sharpness = float(sharpest[..., prefix.shape[1] :].mean())
            return {name: value.double().numpy() for name, value in found.items()} | of_logits(logits.double().numpy())

    def _keep_last_layer(self, _module: object, inputs: tuple[torch.Tensor]) -> None:
        self._last_layer = inputs[0]


def layer_names(config: T3Config) -> list[str]:
    return [*(f"layers.{layer}" for layer in range(config.num_layers)), "norm"]


def of_logits(logits: NDArray[np.float64]) -> Values:
    """Logits (rows, 1 + steps, V) of the last position of the prefix and of all steps."""
    guided = logits[0] + WEIGHT * (logits[0] - logits[-1])
    return {"prefill, logits": logits[:, 0], "steps, logits": logits[:, 1:], "guided logits": guided}


class Pair:
    """Both implementations of a network, with the same voice, text and speech."""

    def __init__(
        self, config: T3Config, tensors: dict[str, mx.array], voice: Voice, text: list[int], speech: list[int]
    ) -> None:
        self.config, self.tensors, self.voice, self.text, self.speech = config, tensors, voice, text, speech
        self.gpt2, self.rows = config.backbone == "gpt2", 2 if config.guidance else 1
        self.ours, self.theirs = T3(tensors, config), Upstream(config, tensors, torch.float32)
        self._known: dict[tuple[int, torch.dtype], Values] = {}
        self.sharpness = 0.0

    @classmethod
    def of_random_weights(cls, config: T3Config, deviation: float | None = None, eos_bias: float = 0.0) -> "Pair":
        tensors = random_weights(config, 1, deviation)
        if eos_bias:
            tensors["speech_head.bias"][config.eos_id] += eos_bias
        speech = np.random.default_rng(4).integers(0, config.bos_id, STEPS).tolist()
        return cls(config, tensors, random_voice(config, 2), random_text(config, 60, 3), speech)

    def of_theirs(self, steps: int) -> tuple[Values, Values]:
        """Upstream's values in float32 and in float64, computed once."""
        for dtype in (torch.float32, torch.float64):
            if (steps, dtype) not in self._known:
                side = self.theirs if dtype == torch.float32 else Upstream(self.config, self.tensors, dtype)
                self._known[steps, dtype] = side.values(self.text, self.voice, self.speech[:steps])
                self.sharpness = side.sharpness
        return self._known[steps, torch.float32], self._known[steps, torch.float64]

    def our_prefill(
        self, prefix: mx.array, attention: AttentionRequest | None = None, tap: Tap = no_tap
    ) -> tuple[mx.array, list[mx.array], KeyValueCache]:
        """Hidden states, attention and the filled cache."""
        cache = KeyValueCache(self.config, self.rows)
        return *self.ours.backbone.prefill(prefix, cache, attention or AttentionRequest(), tap), cache

    def of_ours(self, kind: str, steps: int) -> Values:
        """The core's values: of the prefix at once, (rows, L, ...), then step by step, (rows, steps, ...)."""
        ours, taps = self.ours, dict[str, list[Any]]()
        silent = Voice(self.voice.speaker, self.voice.prompt[:0])

        def keep(name: str, value: mx.array) -> None:
            taps.setdefault(name, []).append(np.array(value))

        prefix = ours.prefix(self.text, self.voice)
        length = prefix.shape[1]
        found = {
            "conditioning": np.array(ours.conditioning(self.voice)),
            "conditioning without a prompt": np.array(ours.conditioning(silent)),
            "prefix": np.array(prefix),
            "prefix without guidance": np.array(ours.prefix(self.text, self.voice, bos_count=1, guided=False)),
        }
        aligned = AttentionRequest(self.config.aligned_heads, queries=QUERIES)
        hidden, rows, filled = self.our_prefill(prefix, aligned, keep)
        logits = [np.array(ours.logits(hidden[:, -1]))]
        cache = decode_cache(kind, self.config, filled, steps)
        kept = np.zeros((len(aligned.heads), steps, length + steps))
        for step, token in enumerate(self.speech[:steps], start=1):
            embedded = ours.embed_speech([token] * self.rows, [step] * self.rows)
            hidden, (weights,) = ours.backbone.step(embedded, cache, replace(aligned, queries=1), keep)
            logits.append(np.array(ours.logits(hidden)))
            for table, row in zip(kept, weights, strict=True):
                table[step - 1, : length + step] = np.array(row)[0]
        for name in layer_names(self.config):
            found[f"prefill, {name}"], *later = taps[name]
            found[f"steps, {name}"] = np.stack(later, axis=1)
        found["prefill, attention"] = np.pad(np.stack(rows), ((0, 0), (0, 0), (0, steps)))
        found["steps, attention"] = kept
        return found | of_logits(np.stack(logits, axis=1).astype(np.float64))


SHARP = 0.08
"""Deviation of weights at width 1,024 with which attention is sharp: one key has most of the mass of a query."""

SQUARE, LARGEST = 2.5, 5.0
"""What the core may be away from float64, in units of upstream's float32: root mean square, largest difference."""


def beyond(found: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ratios that are above the bounds."""
    return {name: both for name, both in found.items() if both[0] > SQUARE or both[1] > LARGEST}


def ratios(ours: Values, theirs: Values, exact: Values) -> dict[str, tuple[float, float]]:
    """Of each array: the core's distance from float64 over that of upstream's float32, root mean square and largest.

    A distance below a quarter of float32's rounding of an ordinary value of the array counts as that much.
    """
    assert ours.keys() == theirs.keys() == exact.keys()
    found = {}
    for name, values in exact.items():
        assert ours[name].shape == theirs[name].shape == values.shape, name
        least = 2**-26 * np.sqrt(np.mean(values**2)) + 1e-300
        near, far = (np.abs(side[name] - values) for side in (ours, theirs))
        square, largest = (
            max(least, size(near)) / max(least, size(far))
            for size in (lambda errors: float(np.sqrt(np.mean(errors**2))), lambda errors: float(errors.max()))
        )
        found[name] = square, largest
    return found


def first_difference(ours: Generation, expected: Sequence[int], config: SamplingConfig, bos_id: int) -> str:
    """Where two runs part, by which margin, and whether a near tie or a threshold may have decided."""
    pairs = zip(ours.tokens, expected, strict=False)
    step = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if step is None:
        return f"{len(ours.tokens)} tokens, upstream {len(expected)}, not explained"
    cond, uncond = ours.record.logits[step : step + 1, 0], ours.record.logits[step : step + 1, 1:]
    history = [[bos_id, *ours.tokens[:step]]]
    must, may = kept_bounds(cond, history, config, uncond[:, 0] if uncond.shape[1] else None)
    near = (may & ~must).any() or ours.record.margin[step] < 1e-4
    return f"part at step {step}, margin {ours.record.margin[step]:.1e}{'' if near else ', not explained'}"
