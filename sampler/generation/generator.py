"""Serve requests in blocks of a fixed width over the shared core."""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import psutil

from sampler.chain.bias import check_ids
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, TextError
from sampler.generation.block import Block
from sampler.generation.settings import Settings
from sampler.requests import Generation, Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.config import T3Config
from sampler.t3.model import T3
from sampler.variants import Variant


@dataclass(frozen=True)
class Generator(Settings):
    """Generates with one checkpoint and its settings."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, variant: Variant, **further: Any) -> Self:
        """A generator that follows a variant's rules; further: other fields. Its parameters are `variant.config`."""
        return cls(checkpoint, **variant.rules(), **further)

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[int, int], None] = lambda tokens, finished: None
    ) -> list[Generation]:
        """Serve all requests; the answers are in the order of the requests.

        After each step on_step gets the number of drawn tokens and of finished requests. Raises TextError and
        ConfigError before anything is generated.
        """
        prompts = self.tokenize(requests)
        answers: dict[int, Generation] = {}
        for kind in itertools.product((True, False), (True, False)):
            queue = deque(index for index, request in enumerate(requests) if self._kind(request) == kind)
            if queue:
                guided, analyzed = kind
                answers |= self._block(requests, prompts, guided=guided, analyzed=analyzed).run(queue, on_step)
        return [answers[index] for index in range(len(requests))]

    def _block(
        self, requests: Sequence[Request], prompts: Sequence[tuple[int, ...]], *, guided: bool, analyzed: bool
    ) -> Block:
        return Block(self, requests, prompts, guided=guided, analyzed=analyzed)

    def tokenize(self, requests: Sequence[Request]) -> list[tuple[int, ...]]:
        """Text ids of all requests; raises TextError or ConfigError for the first one that cannot be served."""
        for request in requests:
            self._check(request)
        return [self._text(request) for request in requests]

    def _text(self, request: Request) -> tuple[int, ...]:
        if isinstance(request.prompt, str):
            return tuple(self.checkpoint.tokenizer.encode(request.prompt, request.language))
        if not request.prompt:
            raise TextError("the prompt has no ids", hint="give ids as the tokenizer does")
        self.checkpoint.model.check_text(request.prompt)
        return tuple(request.prompt)

    def check_memory(self, requests: Sequence[Request], prompts: Sequence[tuple[int, ...]], processes: int = 1) -> None:
        """Raise ConfigError if a full block and what all requests record, times the processes, exceed free memory."""
        rows = 2 if any(is_guided(request.config, self.checkpoint.config) for request in requests) else 1
        longest = max(map(self.positions, requests, prompts), default=0)
        cache = processes * cache_bytes(self.checkpoint.model, self.width * rows, longest)
        kept = processes * sum(map(self.record_bytes, requests, prompts))
        free = psutil.virtual_memory().available
        if cache + kept > free:
            beside = f" in each of {processes} processes" if processes > 1 else ""
            records = (
                f", {kept / 1e9:.1f} GB for the recorded logits and attention of {len(requests)} runs" if kept else ""
            )
            raise ConfigError(
                f"width = {self.width} slots of {longest:,} positions{beside} take {cache / 1e9:.1f} GB for keys and "
                f"values{records}, and {free / 1e9:.1f} GB are free",
                hint="lower width, max_new_tokens or requests in the matrix, or free memory",
            )

    def record_bytes(self, request: Request, text: Sequence[int]) -> int:
        """Memory for the logits and the attention that a run of full length records: float32."""
        config = self.checkpoint.config
        rows = 2 if is_guided(request.config, config) else 1
        logits = rows * config.speech_vocab_size if self.keep_logits else 0
        attention = len(config.aligned_heads) * len(text) if self.keep_attention else 0
        return 4 * request.max_new_tokens * (logits + attention)

    def _kind(self, request: Request) -> tuple[bool, bool]:
        """Whether a request is guided, and whether it has an analyzer; a block has requests of one kind."""
        guided = is_guided(request.config, self.checkpoint.config)
        return guided, self.analyzer is not None and "alignment" in request.config.order

    def _check(self, request: Request) -> None:
        check_ids([request.config], self.checkpoint.config.speech_vocab_size)
        most = self.checkpoint.config.speech_positions - self.beyond_cap
        if not 1 <= request.max_new_tokens <= most:
            hint = f"expected 1 to {most}, as many as {self.checkpoint.config.name} has speech positions"
            raise ConfigError(f"max_new_tokens = {request.max_new_tokens}", hint=hint)
        if request.slot is not None and not 0 <= request.slot < self.width:
            raise ConfigError(f"slot = {request.slot}", hint=f"expected 0 to {self.width - 1}")


def cache_bytes(model: T3, rows: int, positions: int) -> int:
    """Memory for keys and values of this many rows and positions."""
    config, size = model.config, 4 if model.dtype == "float32" else 2
    return 2 * rows * positions * config.num_layers * config.hidden_size * size


def is_guided(config: SamplingConfig, model: T3Config) -> bool:
    """Whether a request needs unconditional logits: with weight 0, c + 0 (c - u) is c, to the last bit."""
    return model.guidance and "cfg" in config.active_stages()
