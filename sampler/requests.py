"""What is asked of a generator and what it answers: requests, records, generations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig

StopReason = Literal["eos", "forced_eos", "length", "error"]
Noise = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Request:
    """One text to speak. prompt: text, or ids as the tokenizer gives them. noise: step -> Gumbel noise (V,).

    Without noise the suite's own for (seed, "", 0) is used. slot: the slot that must serve it, or None for any.
    uniform: step -> uniform number in (0, 1), for XTC; without it the suite's own as well.
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
    """What happened at each of T steps. logprob, entropy (nats), margin: float32 (T,); rank: int32 (T,).

    logits: float32 (T, 2, V), conditional then unconditional, (T, 1, V) without guidance; None unless asked for.
    attention: float32 (pairs, T, S), the aligned heads' attention over the text; None unless asked for.
    flags: of the alignment analyzer, by step. slot, width, blas, threads: where it was computed, and by what. error:
    why it stopped, if it did.
    guided: whether guidance took part; Turbo and Nano skip `cfg_weight`, as upstream does. None: nobody says.
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
