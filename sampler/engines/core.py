"""The suite's own MLX core as an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler import chain, finch
from sampler.alignment import AlignmentStreamAnalyzer, AnalyzerConfig
from sampler.config import SamplingConfig
from sampler.engines.base import EVERYTHING, EngineInfo
from sampler.generation.generator import Generator
from sampler.requests import Context, Generation, Logits, Request
from sampler.t3.branches import Prefixes
from sampler.t3.checkpoint import load_checkpoint
from sampler.t3.model import Speech
from sampler.t3.weights import Dtype
from sampler.variants import variant
from sampler.version import __version__


class Drawn(NamedTuple):
    """The tokens of a run, for teacher forcing. prompt: text, or ids from the tokenizer."""

    prompt: str | tuple[int, ...]
    tokens: Sequence[int]
    language: str = "en"


@dataclass(frozen=True)
class CoreEngine:
    """One checkpoint on the MLX core. The generator's `chain` can be replaced, to test the checks with a wrong one."""

    generator: Generator

    @classmethod
    def load(cls, weights: Path | None = None, width: int = 8, dtype: Dtype = "float32") -> "CoreEngine":
        """Load a folder of weights, or Finch; width: slots of a block; dtype: the network's precision."""
        checkpoint = load_checkpoint(weights, dtype) if weights else finch.load(dtype)
        return cls(Generator(checkpoint, width=width, keep_logits=True))

    @property
    def info(self) -> EngineInfo:
        """Name of the checkpoint, MLX's device, the network's dtype (the chain is float32), special ids."""
        config = self.generator.checkpoint.config
        return EngineInfo(
            name=f"core:{config.name}",
            version=__version__,
            device=mx.default_device().type.name,
            dtype=self.generator.checkpoint.model.dtype,
            vocab_size=config.speech_vocab_size,
            bos_id=config.bos_id,
            eos_ids=(config.eos_id,),
            cfg=config.guidance,
            supports=EVERYTHING,
        )

    bitwise = True
    """Equal requests give equal bits, whatever is generated with them."""

    @property
    def width(self) -> int:
        return self.generator.width

    @property
    def weights_checksum(self) -> str:
        return self.generator.checkpoint.checksum

    @property
    def weights_layout(self) -> str:
        """What the weights were recognised as: kind, file, and what was changed in the names of its tensors."""
        return self.generator.checkpoint.origin

    @property
    def records_attention(self) -> bool:
        return bool(self.generator.checkpoint.config.aligned_heads)

    def following(self, name: str) -> "CoreEngine":
        return CoreEngine(replace(self.generator, **variant(name).rules()))

    def recording(self, *, logits: bool, attention: bool) -> "CoreEngine":
        """Set the contents of the records; attention only if the model has aligned heads."""
        kept = attention and self.records_attention
        return CoreEngine(replace(self.generator, keep_logits=logits, keep_attention=kept))

    def validate(self, requests: Sequence[Request], processes: int = 1) -> None:
        """Raise TextError or ConfigError for a request that cannot be served, or for too little memory."""
        self.generator.check_memory(requests, self.generator.tokenize(requests), processes)

    def pieces(self, request: Request) -> tuple[str, ...]:
        (ids,) = self.generator.tokenize([request])
        return self.generator.checkpoint.tokenizer.pieces(ids)

    def process(
        self,
        logits: Logits,
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> Logits:
        place = {} if context is None else context._asdict()
        return np.array(chain.process(logits, history, config, uncond_logits, **place))

    def draw(
        self,
        logits: Logits,
        history: Sequence[int],
        config: SamplingConfig,
        n: int,
        seed: int,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> NDArray[np.int64]:
        """`sampler.draw` on NumPy arrays; it uses its own uniforms and noise."""
        if context is None:
            return np.array(chain.draw(logits, history, config, n, seed, uncond_logits))
        place = {"prompt_length": int(context.prompt_length[0]), "step": int(context.step[0])}
        drawn = chain.draw(logits, history, config, n, seed, uncond_logits, **place, eos_ids=context.eos_ids)
        return np.array(drawn)

    def pick(self, scores: Logits, gumbel: Logits) -> NDArray[np.int64]:
        return np.array(chain.pick(mx.array(scores), mx.array(gumbel)), dtype=np.int64)

    @property
    def analyzes(self) -> bool:
        """Whether it has an alignment analyzer, which may force the end of a run."""
        return self.generator.analyzer is not None

    def predict(
        self, prompt: str | tuple[int, ...], tokens: Sequence[int], language: str = "en", *, guided: bool = True
    ) -> Logits:
        """Teacher-forced logits, conditional and unconditional: (2, len + 1, V); (len + 1, V) without guidance."""
        return self.predict_together([Drawn(prompt, tokens, language)], guided=guided)[0][0]

    def decided(
        self, prompt: str | tuple[int, ...], tokens: Sequence[int], language: str = "en", *, guided: bool = True
    ) -> tuple[Logits, tuple[str, ...]]:
        """As `predict`, and the flags that the alignment analyzer sets at each of the len + 1 steps."""
        return self.predict_together([Drawn(prompt, tokens, language)], guided=guided, analyzed=True)[0]

    def predict_together(
        self,
        runs: Sequence[Drawn],
        *,
        guided: bool = True,
        analyzed: bool = False,
        prefixes: Prefixes | None = None,
    ) -> list[tuple[Logits, tuple[str, ...]]]:
        """As `predict`, for several runs in one pass; what their texts begin alike with is computed once.

        analyzed: with the flags that the alignment analyzer sets at each step; without one there are none. prefixes:
        of earlier calls.
        """
        checkpoint, bos_count = self.generator.checkpoint, self.generator.bos_count
        model, voice, analyzer = checkpoint.model, checkpoint.voice, self.generator.analyzer if analyzed else None
        guided = guided and checkpoint.config.guidance
        texts = [tuple(self.ids(run.prompt, run.language)) for run in runs]
        begins = {text: model.prefix(text, voice, bos_count=bos_count, guided=guided) for text in dict.fromkeys(texts)}
        speech = [Speech(begins[text], run.tokens) for text, run in zip(texts, runs, strict=True)]
        results = []
        forced = model.forced_together(speech, checkpoint.config.aligned_heads if analyzer else (), prefixes)
        for (logits, attention), text, run in zip(forced, texts, runs, strict=True):
            flags = () if analyzer is None else self._flags(analyzer, attention, text, run.tokens)
            results.append((np.asarray(logits if guided else logits[0]), flags))
        return results

    def _flags(
        self, analyzer: AnalyzerConfig, attention: Sequence[mx.array], text: Sequence[int], tokens: Sequence[int]
    ) -> tuple[str, ...]:
        checkpoint = self.generator.checkpoint
        columns = checkpoint.model.text_columns(text, checkpoint.voice)
        state = AlignmentStreamAnalyzer(analyzer, 1, checkpoint.config.eos_id)
        state.start(0, len(text))
        heads = [np.array(rows[:, columns], dtype=np.float32) for rows in attention]
        drawn = [checkpoint.config.bos_id, *tokens]
        return tuple(
            state.step([0], [[rows[step] for rows in heads]], [token]).flags(0) for step, token in enumerate(drawn)
        )

    def ids(self, prompt: str | tuple[int, ...], language: str) -> Sequence[int]:
        """The text's ids, with start and stop if the model has them."""
        return self.generator.checkpoint.tokenizer.encode(prompt, language) if isinstance(prompt, str) else prompt

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[int, int], None] = lambda tokens, finished: None
    ) -> list[Generation]:
        return self.generator.generate(requests, on_step)
