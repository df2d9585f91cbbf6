"""T3: text and voice in, speech-token logits out."""

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np

from sampler.errors import TextError
from sampler.t3.cache import KeyValueCache
from sampler.t3.conditioning import Conditioning, Voice
from sampler.t3.config import T3Config
from sampler.t3.llama import Llama


class T3:
    """Embeddings, backbone and head of one checkpoint. Source: `models/t3/t3.py` of chatterbox-tts 0.1.7."""

    def __init__(self, tensors: Mapping[str, mx.array], config: T3Config) -> None:
        """tensors: a state dict with upstream's keys, checked by `sampler.t3.weights`."""
        self.config = config
        self.backbone = Llama(tensors, config)
        self._conditioning = Conditioning(tensors, config)
        self._text, self._speech = tensors["text_emb.weight"], tensors["speech_emb.weight"]
        self._text_positions = tensors["text_pos_emb.emb.weight"]
        self._speech_positions = tensors["speech_pos_emb.emb.weight"]
        self._head = tensors["speech_head.weight"]

    def conditioning(self, voice: Voice) -> mx.array:
        """Rows before the text: (34, D); (2, D) for a voice without a prompt. Source: `prepare_conditioning`."""
        prompt = mx.array(voice.prompt)
        embedded = self._speech[prompt] + self._speech_positions[: len(voice.prompt)]
        return self._conditioning.rows(voice, embedded)

    def prefix(self, text: Sequence[int], voice: Voice, *, bos_count: int = 2, guided: bool = True) -> mx.array:
        """Embeddings of conditioning, text and BOS: (2, L, D) if guided (conditional, unconditional), else (1, L, D).

        text: ids with start and stop. The unconditional row has zeros for the text tokens and keeps their positions.
        bos_count: 2 as every upstream version with guidance has it, 1 as `en-0.1.2-nocfg`; both stand at speech
        position 0. Raises TextError for an id outside the vocabulary and for a text that is too long.
        """
        self.check_text(text)
        positions = self._text_positions[: len(text)]
        tokens = self._text[mx.array(np.array(text))] + positions
        bos = self._speech[self.config.bos_id][None] + self._speech_positions[:1]
        before, after = self.conditioning(voice), [bos] * bos_count
        rows = [mx.concatenate([before, middle, *after]) for middle in ([tokens, positions] if guided else [tokens])]
        return mx.stack(rows)

    def text_columns(self, text: Sequence[int], voice: Voice) -> slice:
        """Where the text stands in the prefix."""
        start = self.config.conditioning_length if len(voice.prompt) else 2
        return slice(start, start + len(text))

    def embed_speech(self, tokens: Sequence[int], positions: Sequence[int]) -> mx.array:
        """Embeddings of generated tokens (N,) at speech positions (N,): generated token i stands at i + 1; (N, D)."""
        return self._speech[mx.array(np.array(tokens))] + self._speech_positions[mx.array(np.array(positions))]

    def teacher_forced(
        self, text: Sequence[int], voice: Voice, tokens: Sequence[int], *, bos_count: int = 2, guided: bool = True
    ) -> mx.array:
        """Logits of every step of given speech, in one pass: (2 if guided else 1, len(tokens) + 1, V).

        Row t predicts tokens[t]; the last row is what would come next. Raises TextError for an id that is no speech
        token and for more tokens than there are positions: MLX reads beyond a table without saying so.
        """
        outside = [token for token in tokens if not 0 <= token < self.config.speech_vocab_size]
        if outside:
            raise TextError(f"speech id {outside[0]} is no token", hint=f"0 to {self.config.speech_vocab_size - 1}")
        if len(tokens) >= self.config.speech_positions:
            raise TextError(f"{len(tokens)} speech tokens", hint=f"at most {self.config.speech_positions - 1}")
        prefix = self.prefix(text, voice, bos_count=bos_count, guided=guided)
        if tokens:
            speech = self.embed_speech(tokens, range(1, len(tokens) + 1))[None]
            prefix = mx.concatenate([prefix, mx.repeat(speech, prefix.shape[0], axis=0)], axis=1)
        hidden, _ = self.backbone.prefill(prefix, KeyValueCache(self.config, prefix.shape[0]))
        return self.logits(hidden[:, -(len(tokens) + 1) :])

    def logits(self, hidden: mx.array) -> mx.array:
        """Speech-token logits of normed hidden states: (..., D) -> float32 (..., V)."""
        return hidden @ self._head.T

    def check_text(self, text: Sequence[int]) -> None:
        """Raise TextError for ids that the model cannot read."""
        config = self.config
        if len(text) > config.text_positions:
            raise TextError(
                f"the text has {len(text)} tokens with its start and stop",
                hint=f"{config.name} takes {config.text_positions}; split the text",
            )
        outside = [token for token in text if not 0 <= token < config.text_vocab_size]
        if outside:
            raise TextError(f"text id {outside[0]} is no token", hint=f"expected 0 to {config.text_vocab_size - 1}")
