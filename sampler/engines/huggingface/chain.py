"""The chain built from the logits processors of `transformers`, in the order of the config."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.huggingface.optional import OPTIONAL, OPTIONAL_PROCESSORS
from sampler.errors import MissingPackage, Unsupported
from sampler.requests import Batch, Context, Logits
from sampler.stages import ALL_STAGES, OPTIONAL_STAGES, ROWS, Stage

if TYPE_CHECKING:
    import torch

PROCESSORS = (
    "ClassifierFreeGuidanceLogitsProcessor",
    "DiaClassifierFreeGuidanceLogitsProcessor",
    "MinPLogitsWarper",
    "RepetitionPenaltyLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    *OPTIONAL_PROCESSORS,
)
ROWS_AT_ONCE = 256
INSTALL = "pip install 'sampler-suite[reference]'"


class HuggingFaceEngine:
    """HuggingFace's processors, called as a program that uses `transformers` calls them."""

    def __init__(self, dtype: Literal["float32", "float64"] = "float32") -> None:
        """dtype: of the logits; programs have float32.

        Raises MissingPackage without torch, transformers or one of the processors.
        """
        try:
            import torch
            import transformers
            from transformers.generation import logits_process

            for name in PROCESSORS:
                getattr(logits_process, name)
        except (ImportError, OSError, AttributeError) as error:  # OSError: a library of torch cannot be loaded
            missing = getattr(error, "name", None)
            reason = f"torch or transformers cannot be used: {' '.join(str(error).split())}"
            if isinstance(error, ModuleNotFoundError) and missing in ("torch", "transformers"):
                reason = f"{missing} is not installed"
            raise MissingPackage(reason, hint=INSTALL) from error
        self._torch = torch
        self._processors: Any = logits_process
        self._dtype = dtype
        self._version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    @property
    def info(self) -> EngineInfo:
        """Versions of transformers and torch, and the supported stages."""
        missing = {stage for stage in OPTIONAL_STAGES if stage not in OPTIONAL}
        supports = {*ALL_STAGES, *(name for row in ROWS for name in row.shared)} - missing
        return EngineInfo("huggingface", self._version, dtype=self._dtype, supports=frozenset(supports))

    def in_float64(self) -> "HuggingFaceEngine":
        """The same processors on float64 logits, to tell a rule from float32 rounding."""
        return HuggingFaceEngine("float64")

    def process(
        self,
        logits: Logits,
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond_logits: Logits | None = None,
        context: Context | None = None,
    ) -> Logits:
        """Scores (B, V) after every stage of the order. Raises Unsupported for a stage that transformers lacks."""
        torch = self._torch
        scores = torch.from_numpy(np.array(logits, dtype=self._dtype))
        uncond = None if uncond_logits is None else torch.from_numpy(np.array(uncond_logits, dtype=self._dtype))
        batch = Batch(logits, history, (config,) * len(history), uncond_logits, context)
        for stage in config.order:
            if stage in OPTIONAL:
                scores = OPTIONAL[stage](scores, batch, self._processors)
            elif stage in config.active_stages() and stage in OPTIONAL_STAGES:
                raise Unsupported(f"transformers has no {stage}")
            else:
                scores = self._stage(stage, scores, history, config, uncond)
        if config.greedy:
            best = torch.argmax(scores, dim=-1, keepdim=True)
            scores = torch.full_like(scores, -torch.inf).scatter(1, best, scores.gather(1, best))
        result: Logits = scores.numpy().astype(np.float32, copy=False)
        return result

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
        """Draw n tokens as `_sample` does: softmax, then torch.multinomial, one token for each of n equal rows."""
        torch = self._torch
        uncond = None if uncond_logits is None else np.asarray(uncond_logits)[None]
        scores = self.process(np.asarray(logits)[None], [history], config, uncond, context)
        probabilities = torch.nn.functional.softmax(torch.from_numpy(scores), dim=-1)
        generator = torch.Generator().manual_seed(seed)
        tokens = [
            torch.multinomial(probabilities.expand(min(ROWS_AT_ONCE, n - start), -1), 1, generator=generator)[:, 0]
            for start in range(0, n, ROWS_AT_ONCE)
        ]
        drawn: NDArray[np.int64] = torch.cat(tokens).numpy() if tokens else np.zeros(0, dtype=np.int64)
        return drawn

    def _penalize(self, scores: "torch.Tensor", history: Sequence[Sequence[int]], penalty: float) -> Any:
        """Pad histories to one tensor with an id that the row already has, which does not change its set of ids.

        The processor supports neither an empty history nor ids beyond the scores; the chain has no penalty for them.
        """
        torch = self._torch
        rows = [[token for token in row if token < scores.shape[-1]] for row in history]
        longest = max((len(row) for row in rows), default=0)
        if longest == 0:
            return scores
        ids = torch.tensor([[*row, *[row[-1] if row else 0] * (longest - len(row))] for row in rows])
        penalized = self._processors.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
        penalizes = torch.tensor([[bool(row)] for row in rows])
        return torch.where(penalizes, penalized, scores)

    def _stage(
        self,
        stage: Stage,
        scores: "torch.Tensor",
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond: "torch.Tensor | None",
    ) -> Any:
        processors, keep = self._processors, config.min_tokens_to_keep
        unread: Any = self._torch.zeros((len(scores), 0), dtype=self._torch.long)  # ids, which these four do not use
        if stage == "cfg" and uncond is not None:
            return self._guide(scores, uncond, config)
        if stage == "repetition_penalty":
            seen = [ids[-config.penalty_window :] for ids in history]
            return self._penalize(scores, seen, float(config.repetition_penalty))
        if stage == "temperature" and config.temperature > 0:
            return processors.TemperatureLogitsWarper(float(config.temperature))(unread, scores)
        if stage == "top_k" and config.top_k > 0:
            return processors.TopKLogitsWarper(config.top_k, min_tokens_to_keep=keep)(unread, scores)
        if stage == "min_p" and config.min_p > 0:
            return processors.MinPLogitsWarper(config.min_p, min_tokens_to_keep=keep)(unread, scores)
        if stage == "top_p" and config.top_p < 1:
            return processors.TopPLogitsWarper(config.top_p, min_tokens_to_keep=keep)(unread, scores)
        return scores

    def _guide(self, scores: "torch.Tensor", uncond: "torch.Tensor", config: SamplingConfig) -> Any:
        prefix = "Dia" if config.cfg_convention == "conditional" else ""
        processor = getattr(self._processors, f"{prefix}ClassifierFreeGuidanceLogitsProcessor")(guidance_scale=2.0)
        processor.guidance_scale = config.cfg_weight  # the constructors reject values up to 1, the formulas do not
        unread = self._torch.zeros((len(scores), 0), dtype=self._torch.long)
        mixed = processor(unread, self._torch.cat([scores, uncond]))
        return mixed.masked_fill(scores == -self._torch.inf, -self._torch.inf)  # the formulas turn -inf into NaN
