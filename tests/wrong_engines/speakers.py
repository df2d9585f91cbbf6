"""Engines that generate in milliseconds: a law over 32 tokens, drawn with the suite's noise; and wrong ones.

The logits of a step depend on the text, the place and the token before. EOS becomes likely after some 25 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo
from sampler.engines.reference.chain import ReferenceEngine
from sampler.requests import Generation, Record, Request

SIZE, BOS, EOS = 32, 30, 31


@dataclass(frozen=True)
class Speaker:
    """No fault by default. change: of the config. weights: of the law. ends: whether EOS can come.

    own_noise: draws by `request.seed`. records: whether it records logits.
    """

    name: str = "speaker"
    size: int = SIZE
    weights: int = 0
    bias: float = 0.0
    own_noise: bool = False
    seed_counts: bool = True
    ends: bool = True
    records: bool = True
    says: str = ""
    stays_at: int | None = None
    change: dict[str, Any] | None = None

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(self.name, "1", vocab_size=self.size, bos_id=BOS, eos_ids=(EOS,), cfg=False)

    def process(self, logits, history, config, uncond_logits=None) -> np.ndarray:
        return ReferenceEngine().process(logits, history, config)

    def predict(self, prompt, tokens) -> np.ndarray:
        return np.stack([self.row(str(prompt), step, tokens[:step]) for step in range(len(tokens) + 1)])

    def row(self, prompt: str, step: int, before: Sequence[int]) -> np.ndarray:
        last = before[-1] if before else BOS
        logits = _law(self.weights, len(prompt), step, last, self.size).copy()
        logits[BOS] = -50.0
        logits[EOS] = (0.5 * (step - 25) if self.ends else -50.0) + self.bias
        return logits.astype(np.float32)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        return [self.speak(request) for request in requests]

    def speak(self, request: Request) -> Generation:
        config: SamplingConfig = replace(request.config, **(self.change or {}))
        rng = np.random.default_rng(request.seed if self.seed_counts else 5)
        tokens: list[int] = []
        rows, scalars = [], []
        while len(tokens) < request.max_new_tokens and (not tokens or tokens[-1] != EOS):
            row = self.row(str(request.prompt), len(tokens), tokens)
            scores = self.process(row[None], [[BOS, *tokens]], config)[0].astype(np.float64)
            noise = rng.gumbel(size=self.size) if self.own_noise else request.noise(len(tokens))
            raced = scores + noise
            token = int(raced.argmax())
            if self.stays_at is not None and len(tokens) >= self.stays_at and request.config.temperature > 0.01:
                token = tokens[-1] if tokens else 7
            p = np.exp(scores - scores.max())
            p /= p.sum()
            rest = np.delete(raced, token).max()
            entropy = -float((p[p > 0] * np.log(p[p > 0])).sum())
            scalars.append((np.log(max(p[token], 1e-30)), (p > p[token]).sum(), entropy, raced[token] - rest))
            rows.append(row[None])
            tokens.append(token)
        logprob, rank, entropies, margin = (np.array(column, dtype=np.float32) for column in zip(*scalars, strict=True))
        logits = np.stack(rows) if self.records else None
        record = Record(logprob, rank.astype(np.int32), entropies, margin, 0, 1, logits=logits)
        reason = "eos" if tokens[-1] == EOS else "length"
        return Generation(tuple(tokens), self.says or reason, record)


@cache
def _law(weights: int, length: int, step: int, last: int, size: int) -> np.ndarray:
    return np.random.default_rng([weights, length, step, last]).normal(0, 2, size)


def right_speaker() -> Speaker:
    """No fault: the law with the suite's noise."""
    return Speaker()


def right_speaker_with_its_own_noise() -> Speaker:
    """No fault: the seed decides, by a generator of its own."""
    return Speaker(own_noise=True)
