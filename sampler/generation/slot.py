"""A request in progress: the state of its slot, and the record of each step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.requests import Generation, Noise, Record, Request, StopReason
from sampler.runtime import blas
from sampler.t3.cache import AttentionRow, KeyValueCache
from sampler.variants import PenaltyHistory


@dataclass
class Slot:
    """A request in progress. place: the index of its slot in the block. text: the text's columns of the prefix.

    logits: of the next token, (rows, V). attention: of the newest query, per head. cache: its own keys and values, None
    if the block holds those of all slots. seen: ids for the repetition penalty, (V,).
    """

    index: int
    place: int
    request: Request
    noise: Noise
    cache: KeyValueCache | None
    text: slice
    logits: mx.array
    seen: NDArray[np.bool_]
    attention: Sequence[AttentionRow]
    tokens: list[int] = field(default_factory=list)
    measures: list[tuple[float, int, float, float]] = field(default_factory=list)
    kept_logits: list[NDArray[np.float32]] = field(default_factory=list)
    kept_attention: list[NDArray[np.float32]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    stop_reason: StopReason | None = None
    error: str = ""

    def text_attention(self) -> list[NDArray[np.float32]]:
        """The newest query's attention to the text, (S,) for each aligned head; waits for its computation."""
        return [np.asarray(rows)[-1, self.text] for rows in self.attention]

    def arrays(self) -> list[mx.array]:
        """Arrays besides the logits that are still to be computed."""
        rows = [head for head in self.attention if isinstance(head, mx.array)]
        return rows if self.cache is None else [*rows, *self.cache.arrays()]

    def history(self, rule: PenaltyHistory, bos_id: int) -> list[int]:
        """The history for the penalty and the optional stages."""
        with_bos = rule == "bos_and_generated" or (rule == "bos_at_first" and not self.tokens)
        return [bos_id, *self.tokens] if with_bos else self.tokens

    def draw(self, token: int, rule: PenaltyHistory, bos_id: int) -> None:
        if rule == "bos_at_first" and not self.tokens:
            self.seen[bos_id] = False
        self.tokens.append(token)
        self.seen[token] = True

    def fail(self, error: str) -> None:
        self.stop_reason, self.error = "error", error

    def generation(self, width: int, *, guided: bool) -> Generation:
        logprob, rank, entropy, margin = zip(*self.measures, strict=True) if self.measures else ((),) * 4
        record = Record(
            logprob=np.array(logprob, dtype=np.float32),
            rank=np.array(rank, dtype=np.int32),
            entropy=np.array(entropy, dtype=np.float32),
            margin=np.array(margin, dtype=np.float32),
            slot=self.place,
            width=width,
            logits=np.stack(self.kept_logits) if self.kept_logits else None,
            attention=np.stack(self.kept_attention, axis=1) if self.kept_attention else None,
            flags=tuple(self.flags),
            error=self.error,
            guided=guided,
            blas=blas.prepare().name,
            threads=blas.threads(),
        )
        return Generation(tuple(self.tokens), self.stop_reason or "error", record)
