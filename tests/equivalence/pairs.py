"""One set of weights in the MLX core and in upstream's own T3 (chatterbox-tts 0.1.7, PyTorch), both in float32."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import torch

from sampler import SamplingConfig
from sampler.requests import Generation
from sampler.t3.backbone import AttentionRequest
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from tests import upstream
from tests.support import kept_bounds, random_text, random_voice, random_weights

STEPS = 200


class Pair:
    """Both implementations of a network, with the same voice, text and speech."""

    def __init__(
        self, config: T3Config, tensors: dict[str, mx.array], voice: Voice, text: list[int], speech: list[int]
    ) -> None:
        self.config, self.voice, self.text, self.speech = config, voice, text, speech
        self.gpt2, self.rows = config.backbone == "gpt2", 2 if config.guidance else 1
        self.ours, self.theirs = T3(tensors, config), upstream.build(config, tensors)
        self.taps: dict[str, np.ndarray] = {}
        self.last_layer = torch.empty(0)
        norm = self.theirs.tfmr.ln_f if self.gpt2 else self.theirs.tfmr.norm
        norm.register_forward_pre_hook(self._keep_last_layer)

    @classmethod
    def of_random_weights(cls, config: T3Config, eos_bias: float = 0.0) -> "Pair":
        tensors = random_weights(config, 1)
        if eos_bias:
            tensors["speech_head.bias"][config.eos_id] += eos_bias
        speech = np.random.default_rng(4).integers(0, config.bos_id, STEPS).tolist()
        return cls(config, tensors, random_voice(config, 2), random_text(config, 60, 3), speech)

    def their_prefix(self, guidance: float = 0.5) -> torch.Tensor:
        """Upstream's input embeddings; with guidance and the second BOS that `T3.inference` adds, where it has them."""
        rows = self.rows if guidance else 1
        embeddings = self.theirs.prepare_input_embeds(
            t3_cond=upstream.conditions(self.voice),
            text_tokens=torch.tensor([self.text] * rows),
            speech_tokens=torch.full((rows, 1), self.config.bos_id),
            cfg_weight=guidance if self.rows == 2 else 0.0,
        )[0]
        if self.gpt2 or not guidance:
            return embeddings
        return torch.cat([embeddings, self.their_embedding(self.config.bos_id, 0)], dim=1)

    def their_embedding(self, token: int, position: int) -> torch.Tensor:
        embedded = self.theirs.speech_emb(torch.full((self.rows, 1), token))
        return embedded if self.gpt2 else embedded + self.theirs.speech_pos_emb.get_fixed_embedding(position)

    def their_forward(self, embeddings: torch.Tensor, past: object = None) -> object:
        return self.theirs.tfmr(
            inputs_embeds=embeddings,
            past_key_values=past,
            use_cache=True,
            output_hidden_states=True,
            output_attentions=True,
        )

    def their_layers(self, theirs: object) -> list[torch.Tensor]:
        """Input of the first layer, then the output of each; transformers keeps the last one only after its norm."""
        return [*theirs.hidden_states[:-1], self.last_layer]

    def our_prefill(self) -> tuple[mx.array, list[mx.array], KeyValueCache]:
        """Logits of the first step, attention of the aligned heads, and the filled cache; fills `taps`."""
        cache = KeyValueCache(self.config, self.rows)
        attention = AttentionRequest(self.config.aligned_heads, queries=2)
        hidden, rows = self.ours.backbone.prefill(self.ours.prefix(self.text, self.voice), cache, attention, self.keep)
        return self.ours.logits(hidden[:, -1]), rows, cache

    def keep(self, name: str, value: mx.array) -> None:
        self.taps[name] = np.array(value)

    def _keep_last_layer(self, _module: object, inputs: tuple[torch.Tensor]) -> None:
        self.last_layer = inputs[0]


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
