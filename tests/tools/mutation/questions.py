"""What the long-form modules are asked, and what upstream's own code said to it: NumPy and plain values alone.

`tests/tools/mutation/oracle.py` records it with torch, once for a run of the mutations; the cases ask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A small network with random weights. config: T3Config; voice: Voice."""

    config: Any
    tensors: Mapping[str, Array]
    voice: Any


@dataclass(frozen=True)
class Asked:
    """One request. config: SamplingConfig; noise: (steps, V)."""

    text: tuple[int, ...]
    config: Any
    cap: int
    noise: Array


@dataclass(frozen=True)
class Step:
    """What upstream's analyzer did at one step. forcing: the flags that forced EOS; held: EOS scores -32768."""

    forcing: frozenset[str]
    held: bool


@dataclass(frozen=True)
class Said:
    """What upstream made of a request in T steps. tokens: with EOS. breaks: it raised the IndexError of short texts.

    logits: (T, rows, V); measures: (T, 4), log probability, rank, entropy and margin of each draw; attention: (T,
    pairs, S) and steps: T of them, with an analyzer.
    """

    tokens: tuple[int, ...]
    breaks: bool
    logits: Array
    measures: Array
    attention: Array | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Runs:
    """Requests to a variant of `variants.toml` on one of the networks, with upstream's answers."""

    variant: str
    network: str
    asked: tuple[Asked, ...]
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Decided:
    """What upstream's analyzer object said at one step of a replay. scores: (V,), what it makes of LOGITS."""

    scores: Array
    forcing: frozenset[str]
    position: int
    complete: bool


@dataclass(frozen=True)
class Played:
    """A replay, attention (heads, T, S) and T tokens, with upstream's decisions; None: it raised its IndexError."""

    attention: Array
    tokens: tuple[int, ...]
    decided: tuple[Decided | None, ...]


@dataclass(frozen=True)
class Replays:
    """Replays to an analyzer of `variants.toml`. logits: (V,), what each step is given; eos_id: one of them."""

    analyzer: str
    logits: Array
    eos_id: int
    played: tuple[Played, ...]


@dataclass(frozen=True)
class Questions:
    """Everything."""

    networks: Mapping[str, Network]
    runs: Sequence[Runs]
    replays: Sequence[Replays]
