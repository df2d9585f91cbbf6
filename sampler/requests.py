"""The input and output of engines: batches of rows; requests, records, generations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.errors import LogitsError
from sampler.stages import ALL_STAGES, Stage

Logits = NDArray[np.float32]


class Context(NamedTuple):
    """The position of rows in their runs, for engines whose `process` or `draw` has the keyword `context`.

    prompt_length: how many ids of each history belong to the prompt; step: how many were drawn; both int64 (B,).
    uniforms: the suite's uniform numbers in (0, 1) of these steps, float64 (B,), for stages that act at random.
    """

    prompt_length: NDArray[np.int64]
    step: NDArray[np.int64]
    eos_ids: tuple[int, ...] = ()
    uniforms: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of logits with everything else that a chain needs.

    logits, uncond_logits: float32 (B, V). history: B sequences of ids, oldest first. configs: of each row. context: may
    be None if no optional stage is on. seen: bool (B, V), the ids for the repetition penalty, None for those of the
    history.
    """

    logits: NDArray[Any]
    history: Sequence[Any]
    configs: Sequence[SamplingConfig]
    uncond_logits: NDArray[Any] | None = None
    context: Context | None = None
    seen: NDArray[np.bool_] | None = None

    @property
    def config(self) -> SamplingConfig:
        """The config of the first row, for rows that share it."""
        return self.configs[0]

    def __len__(self) -> int:
        return len(self.configs)

    @cached_property
    def in_history(self) -> NDArray[np.bool_]:
        """Which ids the history of each row has, (B, V). Raises LogitsError for negative ones."""
        size = self.logits.shape[-1]
        found = np.zeros((len(self.history), size), dtype=np.bool_)
        before: list[int] = []
        for row, history in enumerate(self.history):
            ids = further = list(history)
            if row and ids[: len(before)] == before:  # as in the steps of a run
                found[row], further = found[row - 1], ids[len(before) :]
            if further and min(further) < 0:
                raise LogitsError(f"the history of row {row} contains {min(further)}", hint="token ids are 0 or more")
            found[row, [token for token in further if token < size]] = True
            before = ids
        return found

    def with_config(self, config: SamplingConfig) -> Self:
        return replace(self, configs=(config,) * len(self))

    def only(self, rows: Sequence[int]) -> Self:
        at = np.asarray(rows)
        context = self.context and Context(
            self.context.prompt_length[at],
            self.context.step[at],
            self.context.eos_ids,
            None if self.context.uniforms is None else self.context.uniforms[at],
        )
        return replace(
            self,
            logits=self.logits[at],
            history=[self.history[row] for row in rows] if self.history else (),
            configs=[self.configs[row] for row in rows],
            uncond_logits=None if self.uncond_logits is None else self.uncond_logits[at],
            context=context,
            seen=None if self.seen is None else self.seen[at],
        )

    def before(self, stage: Stage, scores: NDArray[np.float64]) -> Self:
        """One stage alone, on the scores (B, V) before it."""
        config = self.config.without([other for other in ALL_STAGES if other != stage])
        uncond = self.uncond_logits if stage == "cfg" else None
        return replace(self.with_config(config), logits=scores.astype(np.float32), uncond_logits=uncond)

    @property
    def inputs(self) -> tuple[Any, Sequence[Any], SamplingConfig, Any]:
        """The arguments of `process` for rows that share a config."""
        return self.logits, self.history, self.config, self.uncond_logits


@dataclass(frozen=True, eq=False)
class Steps(Batch):
    """Rows that are steps of one run, in order; a crash file holds one of them.

    gumbel: the noise, float32 (T, V), None for an engine that does not take the suite's. tokens: the drawn ones, int64
    (T,). request: index of the run in its cell. scores: float32 (T, V), the engine's scores, if they are wrong.
    """

    gumbel: Logits | None = None
    tokens: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    request: int = 0
    scores: Logits | None = None

    def only(self, rows: Sequence[int]) -> Self:
        at = np.asarray(rows)
        noise, scores = (None if values is None else values[at] for values in (self.gumbel, self.scores))
        return replace(super().only(rows), gumbel=noise, tokens=self.tokens[at], scores=scores)

    def name(self, row: int) -> str:
        return f"request {self.request}, step {self.context.step[row] if self.context else row}"


StopReason = Literal["eos", "forced_eos", "length", "error"]
Noise = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Request:
    """One text to speak. prompt: text, or ids from the tokenizer. noise: step -> Gumbel noise (V,).

    Without noise the suite's own for (seed, "", 0) is used. slot: the slot that must serve it, or None for any.
    uniform: step -> uniform number in (0, 1), for XTC; without it the suite's own.
    """

    prompt: str | tuple[int, ...]
    config: SamplingConfig
    seed: int
    max_new_tokens: int
    noise: Noise | None = None
    language: str = "en"
    slot: int | None = None
    uniform: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Record:
    """Measures of each of T steps. logprob, entropy (nats), margin: float32 (T,); rank: int32 (T,).

    logits: float32 (T, 2, V), conditional then unconditional, (T, 1, V) without guidance; None unless requested.
    attention: float32 (pairs, T, S), the aligned heads' attention to the text; None unless requested. flags: of the
    alignment analyzer, by step. slot, width, blas, threads: where and how it was computed. error: why it stopped early.
    guided: whether guidance was used; Turbo and Nano ignore `cfg_weight`, as upstream does. None: unknown.
    """

    logprob: NDArray[np.float32]
    rank: NDArray[np.int32]
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    slot: int
    width: int
    logits: NDArray[np.float32] | None = None
    attention: NDArray[np.float32] | None = None
    flags: tuple[str, ...] = ()
    error: str = ""
    guided: bool | None = None
    blas: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class Generation:
    """tokens: without BOS, with EOS iff stop_reason is eos or forced_eos."""

    tokens: tuple[int, ...]
    stop_reason: StopReason
    record: Record | None = None
