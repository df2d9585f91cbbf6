"""Loops in a sequence of tokens, detected while it is being generated; pure Python, no framework."""

from sampler.loops.guard import LoopGuard, find_loops
from sampler.loops.loop import KINDS, Loop, LoopKind, foremost
from sampler.loops.rules import LoopRule, LoopRules, LowEntropyRule

__all__ = [
    "KINDS",
    "Loop",
    "LoopGuard",
    "LoopKind",
    "LoopRule",
    "LoopRules",
    "LowEntropyRule",
    "find_loops",
    "foremost",
]
