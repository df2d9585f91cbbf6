"""What mlx-lm's `sample_utils.py` and its copies in other packages have in common.

A program calls the functions of `make_logits_processors` on the logits of each step, takes log-softmax, and passes the
result to the function of `make_sampler`, which filters, divides by the temperature and draws.
"""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.errors import LogitsError, MissingPackage, Unsupported
from sampler.requests import Logits
from sampler.stages import STAGES, Stage

Dtype = Literal["float32", "float16", "bfloat16"]
ORDER: tuple[Stage, ...] = ("repetition_penalty", "top_p", "min_p", "top_k", "temperature")
"""The order of `make_logits_processors` and `make_sampler`; their XTC, between min_p and top_k, is off here."""

FUNCTIONS = ("make_sampler", "make_logits_processors", "apply_top_p", "apply_min_p", "apply_top_k")
CALLS_AT_ONCE = 64
"""This many calls of the sampler form one graph of MLX, which takes a third of the time."""


@dataclass(frozen=True)
class Source:
    """Where the functions are. file: in the package `module`, installed by `distribution`."""

    distribution: str
    module: str
    file: str
    install: str

    def load(self) -> tuple[ModuleType, str]:
        """Import this one file as a separate module; return it and its version.

        The package's own `__init__` would import transformers (mlx-lm) or need audio libraries (mlx-audio), which these
        functions do not use. Raises MissingPackage if the file or a function is missing.
        """
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            raise MissingPackage(f"{self.distribution} is not installed", hint=self.install)
        path = Path(found.submodule_search_locations[0], self.file)
        try:
            version = importlib.metadata.version(self.distribution)
            module = _run(path, f"sampler_engine_{self.module}")
            for name in FUNCTIONS:
                getattr(module, name)
        except (ImportError, OSError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise MissingPackage(f"{self.distribution} cannot be used: {reason}", hint=self.install) from error
        return module, version


def _run(path: Path, name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class MakeSamplerEngine:
    """One package's logits processors and sampler, called as its own generation loop calls them.

    width: rows per call that draws, 1 as in `generate_step`, more as in a batch. MLX 0.32.4 draws one row by inverting
    the distribution function and several rows with Gumbel noise, so these are two samplers. dtype: of the model's
    logits, `float32`, `float16` or `bfloat16`; these packages compute in it.
    """

    source: ClassVar[Source]
    dialect: ClassVar[str]

    def __init__(self, width: int = 1, dtype: Dtype = "float32") -> None:
        module, self._version = self.source.load()
        self._module: Any = module
        self._width, self._dtype = width, dtype

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name=self.source.distribution,
            version=f"{self.source.distribution} {self._version}, mlx {importlib.metadata.version('mlx')}",
            device=mx.default_device().type.name,
            dtype=self._dtype,
            cfg=False,
            supports=frozenset({*ORDER, "min_tokens_to_keep"}),
            orders=(ORDER,),
            dialect=self.dialect,
        )

    def process(
        self,
        logits: Logits,
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond_logits: Logits | None = None,
    ) -> Logits:
        """Scores (B, V): log-probabilities after the filters, divided by the temperature.

        The package's sampler returns no scores, so its public filters are called here under the conditions and in the
        order of its `make_sampler`. Raises Unsupported for values to which the package gives another meaning.
        """
        knobs = self._knobs(config, logits.shape[-1], uncond_logits)
        logprobs = self._normalized(logits, history, knobs)
        scores = self._kept(logprobs, knobs) if knobs.temperature == 0 else self._filtered(logprobs, knobs)
        return np.array(scores.astype(mx.float32))

    def draw(
        self,
        logits: Logits,
        history: Sequence[int],
        config: SamplingConfig,
        n: int,
        seed: int,
        uncond_logits: Logits | None = None,
    ) -> NDArray[np.int64]:
        """Tokens (n,) of the function of `make_sampler`, `width` equal rows per call, after `mx.random.seed(seed)`."""
        knobs = self._knobs(config, len(logits), uncond_logits)
        row = self._normalized(np.asarray(logits)[None], [history], knobs)
        sampler = self._sampler(knobs)
        mx.random.seed(seed)
        rows = mx.broadcast_to(row, (self._width, len(logits)))
        calls = -(-n // self._width)
        tokens: list[mx.array] = []
        while len(tokens) < calls:
            tokens += [sampler(rows) for _ in range(min(CALLS_AT_ONCE, calls - len(tokens)))]
            mx.eval(tokens)
        return np.array(mx.concatenate(tokens), dtype=np.int64)[:n] if tokens else np.zeros(0, dtype=np.int64)

    def _sampler(self, knobs: SamplingConfig) -> Any:
        return self._module.make_sampler(
            temp=knobs.temperature,
            top_p=knobs.top_p,
            min_p=knobs.min_p,
            min_tokens_to_keep=knobs.min_tokens_to_keep,
            top_k=knobs.top_k,
        )

    def _normalized(self, logits: Logits, history: Sequence[Sequence[int]], knobs: SamplingConfig) -> mx.array:
        """Log-probabilities (B, V) after the penalty, which processes one sequence at a time and changes its input."""
        values = mx.array(np.asarray(logits, dtype=np.float32)).astype(getattr(mx, self._dtype))
        rows = [self._penalized(values[row : row + 1], ids, knobs) for row, ids in enumerate(history)]
        penalized = mx.concatenate(rows) if rows else values
        return penalized - mx.logsumexp(penalized, axis=-1, keepdims=True)

    def _penalized(self, row: mx.array, ids: Sequence[int], knobs: SamplingConfig) -> mx.array:
        if knobs.repetition_penalty == 1:
            return row
        for token in ids:
            if token < 0:
                raise LogitsError(f"the history contains {token}", hint="token ids are 0 or more")
            if token >= row.shape[-1]:  # MLX reads and writes out of bounds there
                raise Unsupported(f"{self.source.distribution} has no check for id {token} of {row.shape[-1]} logits")
        # The whole history, not the default of 20; a size of 0 would also mean all of it.
        size = max(1, len(ids))
        for processor in self._module.make_logits_processors(
            repetition_penalty=knobs.repetition_penalty, repetition_context_size=size
        ):
            row = processor(mx.array(list(ids), dtype=mx.int32), row)
        return row

    def _filtered(self, logprobs: mx.array, knobs: SamplingConfig) -> mx.array:
        if knobs.top_p < 1:
            logprobs = self._module.apply_top_p(logprobs, knobs.top_p)
        if knobs.min_p != 0:
            logprobs = self._module.apply_min_p(logprobs, knobs.min_p, knobs.min_tokens_to_keep)
        if knobs.top_k > 0:
            logprobs = self._module.apply_top_k(logprobs, knobs.top_k)
        return logprobs * (1.0 / knobs.temperature)

    def _kept(self, logprobs: mx.array, knobs: SamplingConfig) -> mx.array:
        """Only the token of the greedy sampler, which ignores all other parameters."""
        best = self._sampler(knobs)(logprobs)[:, None]
        return mx.where(mx.arange(logprobs.shape[-1]) == best, logprobs, -mx.inf)

    def _knobs(self, config: SamplingConfig, size: int, uncond: Logits | None) -> SamplingConfig:
        """The config with only the stages in its order. Raises Unsupported naming the value."""
        name = self.source.distribution
        if uncond is not None and "cfg" in config.active_stages():
            raise Unsupported(f"{name} has no guidance: cfg_weight = {config.cfg_weight}")
        stages = [stage for stage in config.order if stage in config.active_stages() and stage != "cfg"]
        if stages != [stage for stage in ORDER if stage in stages]:
            raise Unsupported(f"{name} does not offer the order {'>'.join(config.order)}")
        knobs = config.without([stage for stage in STAGES if stage not in stages])
        if knobs.temperature == 0:
            return knobs
        keep = knobs.min_tokens_to_keep
        if knobs.top_p == 0:
            raise Unsupported(f"top_p = 0 is off in {name}, by the default of make_sampler")
        if knobs.top_k >= size:
            raise Unsupported(f"{name} refuses top_k = {knobs.top_k} for {size} logits")
        if keep > 1 and (knobs.top_p < 1 or 0 < knobs.top_k < keep):
            raise Unsupported(f"min_tokens_to_keep = {keep} is for min_p alone in {name}")
        if knobs.min_p > 0 and keep > size:
            raise Unsupported(f"{name} refuses min_tokens_to_keep = {keep} for {size} logits")
        return knobs
