"""Attention and tokens of made-up runs, and upstream's own analyzer object to feed them to.

Attention is made of multiples of 2^-12 whose mean over three heads is one as well, so that sums are exact in float32 in
whatever order they are taken, and thresholds are met exactly.
"""

import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from hypothesis import strategies as st

from tests import wheels

FILE = "chatterbox/models/t3/inference/alignment_stream_analyzer.py"
UNIT = 2.0**-12
HEADS, BOS_ROWS, VOCABULARY, BOS, EOS = 3, 2, 12, 10, 11
KINDS = ("diagonal", "stalled", "jumping", "repeating", "tail", "tail before the end")
BEFORE = 3  # columns of conditioning before the text


@dataclass(frozen=True)
class Replay:
    """A run. attention: float32 (heads, T, S), the first of two BOS rows left out; tokens: (T,), BOS first."""

    attention: np.ndarray
    tokens: tuple[int, ...]

    def __repr__(self) -> str:
        at = self.attention.mean(axis=0).argmax(axis=-1).tolist()
        return f"<{self.length} columns, attention at {at}, tokens {self.tokens}>"

    @property
    def length(self) -> int:
        return self.attention.shape[-1]


@st.composite
def replays(draw: st.DrawFn, *, exact: bool = True) -> Replay:
    length = draw(st.one_of(st.integers(2, 8), st.integers(9, 40)))
    kinds = st.sampled_from(["walk", "walk", "stall", "jump", "back", "third", "end", "spread", "anywhere"])
    segments = draw(st.lists(st.tuples(kinds, st.integers(1, 25)), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    peak = draw(st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]))
    noise = draw(st.sampled_from([0.0, 0.0, 0.01, 0.1]))
    alphabet = draw(st.sampled_from([2, 3, 10]))
    return make_replay(rng, length, segments, peak, noise, alphabet, exact=exact)


def make_replay(rng, length, segments, peak: float, noise: float, alphabet: int, *, exact: bool = True) -> Replay:
    position, rows = 0, []
    for kind, steps in segments:
        position += {"jump": int(rng.integers(2, 20)), "back": -int(rng.integers(1, 12))}.get(kind, 0)
        for _ in range(steps):
            position += int(kind == "walk") + int(kind == "walk" and rng.random() < 0.2)
            places = {"anywhere": int(rng.integers(length)), "end": length - 1, "third": length - 3}
            position = min(max(places.get(kind, position), 0), length - 1)
            row = np.full(length, peak / 4) if kind == "spread" else np.zeros(length)
            row[position] = peak
            rows.append(row)
    mean = np.stack(rows)[None] + noise * rng.random((HEADS, len(rows), length))
    heads = np.round(mean / UNIT) if exact else mean / UNIT + rng.random(mean.shape)
    if exact:
        heads[-1] += -heads.sum(axis=0) % HEADS
    tokens = (BOS, *rng.integers(0, alphabet, len(rows) - 1).tolist())
    return Replay((heads * UNIT).astype(np.float32), tokens)


def hand_made(kind: str) -> Iterator[Replay]:
    segments = {
        "diagonal": [("walk", 60)],
        "stalled": [("walk", 8), ("stall", 40)],
        "jumping": [("walk", 6), ("jump", 2), ("jump", 2), ("back", 3), ("jump", 30)],
        "repeating": [("walk", 45), ("back", 12), ("spread", 20)],
        "tail": [("walk", 45), ("end", 25)],
        "tail before the end": [("walk", 23), ("third", 30)],
    }[kind]
    for length in (2, 3, 4, 5, 6, 7, 25):
        for seed, peak in enumerate((0.25, 0.5, 1.0)):
            yield make_replay(np.random.default_rng([length, seed]), length, segments, peak, 0.01 * seed, 10)


class UpstreamStep(NamedTuple):
    """What upstream did at one step. forcing: the flags that it logged."""

    logits: np.ndarray
    forcing: frozenset[str]
    position: int
    complete: bool


class Upstream:
    """One analyzer object of a release, fed with attention in place of hooks on a model."""

    def __init__(self, version: str, length: int) -> None:
        self.module = load(wheels.need(version) / FILE, version)
        layers = [SimpleNamespace(self_attn=torch.nn.Identity()) for _ in range(14)]
        text = (BEFORE, BEFORE + length)
        self.analyzer = self.module.AlignmentStreamAnalyzer(SimpleNamespace(layers=layers), None, text, eos_idx=EOS)
        self.length, self.steps = length, 0

    def step(self, logits: np.ndarray, attention: np.ndarray, token: int) -> UpstreamStep | None:
        """attention: (heads, S) of the newest query; at the first step upstream also sees another BOS row.

        None where it raises the IndexError of short texts.
        """
        queries = BEFORE + self.length + BOS_ROWS if self.steps == 0 else 1
        rows = torch.full((len(attention), queries, BEFORE + self.length + BOS_ROWS + self.steps), 0.3)
        rows[:, -1, BEFORE : BEFORE + self.length] = torch.from_numpy(attention)
        further = {}
        if hasattr(self.analyzer, "last_aligned_attns"):
            self.analyzer.last_aligned_attns = list(rows)
            further["next_token"] = token
        else:
            self.analyzer.last_aligned_attn = rows.mean(0)
        self.steps += 1
        with Listener(self.module.logger) as listener, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 0.1.0 calls Logger.warn
            try:
                changed = self.analyzer.step(torch.from_numpy(logits.copy())[None], **further)[0]
            except IndexError as error:
                if "Expected reduction dim 1" in str(error):
                    return None
                raise
        return UpstreamStep(
            changed.numpy(), listener.flags, int(self.analyzer.text_position), bool(self.analyzer.complete)
        )


class Listener(logging.Handler):
    """Hears which flags made upstream force EOS; `repetition` of 0.1.0 is `alignment_repetition` of 0.1.3."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.logger, self.flags = logger, frozenset[str]()

    def emit(self, record: logging.LogRecord) -> None:
        found = re.findall(r"(\w+)=(?:tensor\()?True", record.getMessage())
        self.flags = frozenset("alignment_repetition" if name == "repetition" else name for name in found) | self.flags

    def __enter__(self) -> Self:
        self.logger.addHandler(self)
        self.logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)


def load(path: Path, version: str) -> Any:
    specification = importlib.util.spec_from_file_location(f"analyzer_{version.replace('.', '_')}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
