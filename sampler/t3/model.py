"""T3: text and voice in, speech-token logits out."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from sampler.errors import ConfigError, TextError
from sampler.t3.activations import compiled
from sampler.t3.backbone import Backbone
from sampler.t3.branches import Branches, Prefixes
from sampler.t3.conditioning import Conditioning, Voice
from sampler.t3.config import T3Config
from sampler.t3.gpt2 import GPT2
from sampler.t3.llama import Llama
from sampler.t3.prefix_attention import Reading
from sampler.t3.rotary import RotaryTable


class Speech(NamedTuple):
    """Tokens after a prefix (rows, L, D). first: the position of the first token.

    advance: positions from token to token. reading: what their attention does otherwise. Others than the model's are
    there to see what a wrong port does.
    """

    prefix: mx.array
    tokens: Sequence[int]
    first: int = 1
    advance: int = 1
    reading: Reading | None = None


class T3:
    """Embeddings, backbone and head of one checkpoint. Source: `models/t3/t3.py` of chatterbox-tts 0.1.7."""

    def __init__(self, tensors: Mapping[str, mx.array], config: T3Config) -> None:
        """tensors: a state dict with upstream's keys, checked by `sampler.t3.weights`; all have the same dtype."""
        self.config = config
        self.backbone: Backbone = (GPT2 if config.backbone == "gpt2" else Llama)(tensors, config)
        self._conditioning = Conditioning(tensors, config)
        self._text, self._speech = tensors["text_emb.weight"], tensors["speech_emb.weight"]
        self._text_positions = tensors.get("text_pos_emb.emb.weight")
        self._speech_positions = tensors.get("speech_pos_emb.emb.weight")
        self._voice: tuple[Voice, mx.array] | None = None
        self._head, self._head_bias = tensors["speech_head.weight"], tensors.get("speech_head.bias")

    @property
    def dtype(self) -> str:
        """Dtype of weights, cache and rows: float32, float16 or bfloat16."""
        return str(self._head.dtype).rpartition(".")[2]

    def with_rotary(self, **changes: float) -> "T3":
        """The same Llama with other rotary frequencies. changes: of the fields of T3Config that make them."""
        twin, twin.backbone = copy.copy(self), copy.copy(self.backbone)
        vars(twin.backbone)["rotary"] = RotaryTable(replace(self.config, **changes))  # type: ignore[arg-type]
        return twin

    def with_layers(self, change: Callable[[Sequence[Any]], Sequence[Any]]) -> "T3":
        """The same model with other layers of its backbone."""
        twin, twin.backbone = copy.copy(self), copy.copy(self.backbone)
        vars(twin.backbone)["layers"] = change(self.backbone.layers)
        return twin

    def with_arrays(self, change: Callable[[str, mx.array], mx.array], *, layers: bool = False) -> "T3":
        """The same model with other weights. change: from names of the parts that hold them, which are no file's.

        layers: only those of the layers.
        """

        def changed(arrays: Mapping[str, Any]) -> dict[str, Any]:
            return {name: change(name, one) if isinstance(one, mx.array) else one for name, one in arrays.items()}

        copies = [copy.copy(layer) for layer in self.backbone.layers]
        twin, conditioning = self.with_layers(lambda _: copies), copy.copy(self._conditioning)
        for one in copies if layers else (twin, *copies):
            vars(one).update(changed(vars(one)))
        if not layers:
            vars(twin).update(_conditioning=conditioning, _voice=None)
            vars(conditioning)["_weights"] = changed(vars(conditioning)["_weights"])
        return twin

    @property
    def compiled(self) -> bool:
        """Whether the compiled loops for the CPU support it; else MLX's own operations are used."""
        return compiled(self._head)

    def conditioning(self, voice: Voice, *, numbered: bool = True) -> mx.array:
        """Rows before the text: (34, D), (2, D) without a prompt; GPT-2: (1 + P, D). Source: `prepare_conditioning`.

        Those of the last voice are kept. numbered: whether the voice's prompt has its positions, as it should have.
        """
        if not numbered:
            return self._conditioning.rows(voice, self._speech[mx.array(voice.prompt)])
        if self._voice is None or self._voice[0] is not voice:
            prompt = self.embed_speech(voice.prompt.tolist(), range(len(voice.prompt)))
            rows = self._conditioning.rows(voice, prompt)
            mx.eval(rows)
            self._voice = voice, rows
        return self._voice[1]

    def prefix(
        self, text: Sequence[int], voice: Voice, *, bos_count: int | None = None, guided: bool | None = None
    ) -> mx.array:
        """Embeddings of conditioning, text and BOS: (2, L, D) if guided (conditional, unconditional), else (1, L, D).

        text: ids with start and stop, if the model has them. The unconditional row has zeros for the text tokens and
        keeps their positions. bos_count: 2 in every upstream version with guidance, 1 in `en-0.1.2-nocfg` and Turbo;
        both are at speech position 0. None: upstream's number for this model. Raises TextError for an id outside the
        vocabulary and for a text that is too long, ConfigError for guidance that the model does not support.
        """
        config = self.config
        self.check_text(text)
        if guided and not config.guidance:
            raise ConfigError(f"guided = {guided}", hint=f"{config.name} has no unconditional row")
        guided = config.guidance if guided is None else guided
        middles = [_embed(self._text, text, self._text_positions, range(len(text)))]
        if guided and self._text_positions is not None:
            middles.append(self._text_positions[: len(text)])
        after = [self.embed_speech([config.bos_id], [0])] * (config.bos_count if bos_count is None else bos_count)
        before = self.conditioning(voice)
        return mx.stack([mx.concatenate([before, middle, *after]) for middle in middles])

    def prefix_length(self, text: Sequence[int], voice: Voice, bos_count: int | None = None) -> int:
        return self._text_start(voice) + len(text) + (self.config.bos_count if bos_count is None else bos_count)

    def embed_text(self, ids: Sequence[int]) -> mx.array:
        """Embeddings of text ids without positions, (N, D)."""
        return _embed(self._text, ids, None, ())

    def text_columns(self, text: Sequence[int], voice: Voice) -> slice:
        start = self._text_start(voice)
        return slice(start, start + len(text))

    def _text_start(self, voice: Voice) -> int:
        if self.config.backbone == "gpt2":
            return 1 + len(voice.prompt)
        return self.config.conditioning_length if len(voice.prompt) else 2

    def embed_speech(self, tokens: Sequence[int], positions: Sequence[int]) -> mx.array:
        """Embeddings of generated tokens (N,) at speech positions (N,): generated token i is at i + 1; (N, D).

        GPT-2 has no speech positions, since it numbers the whole sequence.
        """
        return _embed(self._speech, tokens, self._speech_positions, positions)

    def teacher_forced(
        self,
        text: Sequence[int],
        voice: Voice,
        tokens: Sequence[int],
        *,
        bos_count: int | None = None,
        guided: bool | None = None,
    ) -> mx.array:
        """Logits of every step of given speech, in one pass: (2 if guided else 1, len(tokens) + 1, V).

        Row t predicts tokens[t]; the last row predicts the next token. bos_count, guided: as in `prefix`. Raises what
        `forced` does.
        """
        return self.forced(self.prefix(text, voice, bos_count=bos_count, guided=guided), tokens)[0]

    def forced(
        self, prefix: mx.array, tokens: Sequence[int], heads: Sequence[tuple[int, int]] = ()
    ) -> tuple[mx.array, list[mx.array]]:
        """Logits (rows, len(tokens) + 1, V) of every step after a prefix (rows, L, D), in one pass.

        heads: (layer, head) pairs whose attention is returned, (len(tokens) + 1, all positions) each. Raises TextError
        for an id that is no speech token and for more tokens than positions, since MLX would read beyond a table
        without an error.
        """
        return self.forced_together([Speech(prefix, tokens)], heads)[0]

    def forced_together(
        self, runs: Sequence[Speech], heads: Sequence[tuple[int, int]] = (), prefixes: Prefixes | None = None
    ) -> list[tuple[mx.array, list[mx.array]]]:
        """As `forced`, for several runs in one pass; what prefixes begin alike with is computed once.

        prefixes: of earlier passes of this model; further ones are kept there.
        """
        branches, ends = Branches(prefixes), list[mx.array]()
        for prefix, tokens, first, advance, _ in runs:
            self._check_speech(tokens)
            end = prefix[:, -1:]
            if tokens:
                speech = self.embed_speech(tokens, [first + advance * place for place in range(len(tokens))])[None]
                end = mx.concatenate([end, mx.repeat(speech, len(end), axis=0)], axis=1)
            ends.extend(end)
        readings = [run.reading for run in runs for _ in run.prefix]
        begun = branches.begin([row for run in runs for row in run.prefix[:, :-1]])
        for places, rest, reading in zip(begun, ends, readings, strict=True):
            branches.follow(places, rest, reading)
        hidden, attention = self.backbone.branches(branches, len(ends), heads)
        logits, results, row, span = self.logits(hidden), [], 0, 0
        for prefix, tokens, *_ in runs:
            shape = len(prefix), len(tokens) + 1
            own = logits[row : row + shape[0] * shape[1]].reshape(*shape, -1)
            results.append((own, attention[span] if heads else []))
            row, span = row + shape[0] * shape[1], span + shape[0]
        return results

    def _check_speech(self, tokens: Sequence[int]) -> None:
        outside = [token for token in tokens if not 0 <= token < self.config.speech_vocab_size]
        if outside:
            raise TextError(f"speech id {outside[0]} is no token", hint=f"0 to {self.config.speech_vocab_size - 1}")
        if len(tokens) >= self.config.speech_positions:
            raise TextError(f"{len(tokens)} speech tokens", hint=f"at most {self.config.speech_positions - 1}")

    def logits(self, hidden: mx.array) -> mx.array:
        """Speech-token logits of normed hidden states: (..., D) -> float32 (..., V)."""
        product = hidden @ self._head.T
        return (product if self._head_bias is None else product + self._head_bias).astype(mx.float32)

    def check_text(self, text: Sequence[int]) -> None:
        config = self.config
        if len(text) > config.text_positions:
            ends = "" if config.backbone == "gpt2" else " with its start and stop"
            raise TextError(
                f"the text has {len(text)} tokens{ends}",
                hint=f"{config.name} takes {config.text_positions}; split the text",
            )
        outside = [token for token in text if not 0 <= token < config.text_vocab_size]
        if outside:
            raise TextError(f"text id {outside[0]} is no token", hint=f"expected 0 to {config.text_vocab_size - 1}")


def _embed(table: mx.array, ids: Sequence[int], places: mx.array | None, positions: Sequence[int]) -> mx.array:
    """Rows of a table, plus those of a table of positions if there is one: (N, D)."""
    rows = table[mx.array(np.array(ids, dtype=np.int64))]
    return rows if places is None else rows + places[mx.array(np.array(positions, dtype=np.int64))]
