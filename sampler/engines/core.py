"""The suite's own MLX core as an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler import chain, finch
from sampler.alignment import AlignmentStreamAnalyzer
from sampler.config import SamplingConfig
from sampler.engines.base import EVERYTHING, EngineInfo
from sampler.generation.generator import Generator
from sampler.requests import Context, Generation, Logits, Request
from sampler.t3.checkpoint import load_checkpoint
from sampler.t3.weights import Dtype
from sampler.variants import variant
from sampler.version import __version__


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
        return self._forced(self.ids(prompt, language), tokens, (), guided=guided)[0]

    def _forced(
        self, text: Sequence[int], tokens: Sequence[int], heads: Sequence[tuple[int, int]], *, guided: bool
    ) -> tuple[Logits, list[mx.array]]:
        checkpoint = self.generator.checkpoint
        guided = guided and checkpoint.config.guidance
        model, bos_count = checkpoint.model, self.generator.bos_count
        prefix = model.prefix(text, checkpoint.voice, bos_count=bos_count, guided=guided)
        logits, attention = model.forced(prefix, tokens, heads)
        return np.array(logits if guided else logits[0]), attention

    def decided(
        self, prompt: str | tuple[int, ...], tokens: Sequence[int], language: str = "en", *, guided: bool = True
    ) -> tuple[Logits, tuple[str, ...]]:
        """As `predict`, and the flags that the alignment analyzer sets at each of the len + 1 steps."""
        checkpoint, analyzer = self.generator.checkpoint, self.generator.analyzer
        if analyzer is None:
            return self.predict(prompt, tokens, language, guided=guided), ()
        text = self.ids(prompt, language)
        logits, attention = self._forced(text, tokens, checkpoint.config.aligned_heads, guided=guided)
        columns = checkpoint.model.text_columns(text, checkpoint.voice)
        state = AlignmentStreamAnalyzer(analyzer, 1, checkpoint.config.eos_id)
        state.start(0, len(text))
        heads = [np.array(rows[:, columns], dtype=np.float32) for rows in attention]
        drawn = [checkpoint.config.bos_id, *tokens]
        flags = tuple(
            state.step([0], [[rows[step] for rows in heads]], [token]).flags(0) for step, token in enumerate(drawn)
        )
        return logits, flags

    def ids(self, prompt: str | tuple[int, ...], language: str) -> Sequence[int]:
        """The text's ids, with start and stop if the model has them."""
        return self.generator.checkpoint.tokenizer.encode(prompt, language) if isinstance(prompt, str) else prompt

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[int, int], None] = lambda tokens, finished: None
    ) -> list[Generation]:
        return self.generator.generate(requests, on_step)
