"""Token runs under a model: the logits of teacher forcing for `checks.scoring`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sampler.checks.scoring.score import SINGLE, Run, Score, Tolerance
from sampler.checks.steps.teacher import predicted
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo, Predicts
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Context, Logits, Request, Steps, StopReason

STEPS_AT_ONCE = 64


@dataclass(frozen=True)
class ScoredRun:
    """What is known of a run. request: its text and config. prefix: ids before the drawn ones in the history."""

    name: str
    request: Request
    tokens: tuple[int, ...]
    stop_reason: StopReason


@dataclass(frozen=True)
class Model:
    """A model that predicts. prefix: ids that histories begin with."""

    predictor: Predicts
    info: EngineInfo

    @property
    def prefix(self) -> tuple[int, ...]:
        return () if self.info.bos_id is None else (self.info.bos_id,)

    def score(self, config: SamplingConfig, alpha: float, tolerance: Tolerance = SINGLE) -> Score:
        """An empty score for runs of this config."""
        assert self.info.vocab_size is not None  # noqa: S101 - a model that predicts has one
        edges, reference = (ReferenceEngine(input_error=size) for size in (tolerance.edge, tolerance.logit))
        return Score(config, alpha, edges, reference, self.info.vocab_size, self.info.eos_ids)

    def run(self, run: ScoredRun) -> Run:
        """A run whose logits are computed when they are asked for, and kept."""
        return Run(run.name, run.tokens, run.stop_reason, _Forced(self, run))


@dataclass(frozen=True)
class _Forced:
    """The steps of a run, up to its first token that is no id."""

    model: Model
    run: ScoredRun

    @cached_property
    def tokens(self) -> Sequence[int]:
        size = self.model.info.vocab_size or 0
        wrong = next((step for step, token in enumerate(self.run.tokens) if not 0 <= token < size), None)
        return self.run.tokens[:wrong]

    @cached_property
    def logits(self) -> Logits:
        """(T, 2 with guidance else 1, V)."""
        request, guided = self.run.request, self.model.info.cfg and "cfg" in self.run.request.config.active_stages()
        return predicted(self.model.predictor, request, self.tokens[:-1], guided=guided)

    def __call__(self, config: SamplingConfig) -> Iterator[Steps]:
        if not self.tokens:
            return
        prefix, tokens, logits = self.model.prefix, self.tokens, self.logits
        for start in range(0, len(tokens), STEPS_AT_ONCE):
            steps = range(start, min(start + STEPS_AT_ONCE, len(tokens)))
            part = logits[start : start + STEPS_AT_ONCE]
            yield Steps(
                part[:, 0],
                [[*prefix, *tokens[:step]] for step in steps],
                (config,) * len(steps),
                part[:, 1] if part.shape[1] == 2 else None,
                Context(np.full(len(steps), len(prefix)), np.array(steps, dtype=np.int64), self.model.info.eos_ids),
                tokens=np.array(tokens[start : start + STEPS_AT_ONCE], dtype=np.int64),
            )
