"""What the long-form modules are asked, and what upstream's own code said to it: NumPy and plain values alone.

`tests/tools/mutation/oracle.py` records it with torch, once for a run of the mutations; the cases ask.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Network(NamedTuple):
    """A small network with random weights. config: T3Config; voice: Voice."""

    config: Any
    tensors: Mapping[str, Array]
    voice: Any


class Asked(NamedTuple):
    """One request. config: SamplingConfig; noise: (steps, V)."""

    text: tuple[int, ...]
    config: Any
    cap: int
    noise: Array


class Step(NamedTuple):
    """What upstream's analyzer did at one step. forcing: the flags that forced EOS; held: EOS scores -32768."""

    forcing: frozenset[str]
    held: bool


class Said(NamedTuple):
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


class Runs(NamedTuple):
    """Requests to a variant of `variants.toml` on one of the networks, with upstream's answers."""

    variant: str
    network: str
    asked: tuple[Asked, ...]
    said: tuple[Said, ...]


class Decided(NamedTuple):
    """What upstream's analyzer object said at one step of a replay. scores: (V,), what it makes of the logits."""

    scores: Array
    forcing: frozenset[str]
    position: int
    complete: bool


class Played(NamedTuple):
    """A replay, attention (heads, T, S) and T tokens, with upstream's decisions; None: it raised its IndexError."""

    attention: Array
    tokens: tuple[int, ...]
    decided: tuple[Decided | None, ...]


class Replays(NamedTuple):
    """Replays to an analyzer of `variants.toml`. logits: (V,), what each step is given; eos_id: one of them."""

    analyzer: str
    logits: Array
    eos_id: int
    played: tuple[Played, ...]


class Questions(NamedTuple):
    """Everything."""

    networks: Mapping[str, Network]
    runs: Sequence[Runs]
    replays: Sequence[Replays]
