"""One distribution to draw from, and how many draws are taken."""

from dataclasses import dataclass

from sampler.checks.conformance.probes import Probe
from sampler.stages import Stage

DRAWS = 20_000
CHUNK = 2_000
"""Draws per call; every call has its own seed."""


@dataclass(frozen=True, eq=False)
class DrawCell:
    """One distribution. probe: has one row. stages: those that are on. detect: what its frequencies must detect.

    draws, chunk: in all, and per call. by_sets: whether its frequencies are tested set by set (draw/sets.py); else by
    the total variation of all tokens. places: ids that are a set each. further: asked where the engine has the stages,
    and reported together where it has not. alone: asked only of engines without `process`, which level `process` asks.
    """

    name: str
    stages: tuple[Stage, ...]
    probe: Probe
    detect: float = 0.05
    draws: int = DRAWS
    chunk: int = CHUNK
    by_sets: bool = False
    places: tuple[int, ...] = ()
    further: bool = False
    alone: bool = False
