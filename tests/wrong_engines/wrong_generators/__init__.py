"""Finch on the MLX core with one defect each in the path that generates; `right` has those that only look different.

Ids in brackets are kinds of real bugs (docs/decisions.md, "Miniatures").
"""

from tests.wrong_engines.wrong_generators import (
    ends,
    guidance,
    loops,
    memory,
    noise,
    penalties,
    positions,
    prompts,
    right,
)
from tests.wrong_engines.wrong_generators.table import (
    RIGHT_GENERATORS,
    WRONG_GENERATORS,
    RightGenerator,
    WrongGenerator,
)

__all__ = [
    "RIGHT_GENERATORS",
    "WRONG_GENERATORS",
    "RightGenerator",
    "WrongGenerator",
    "ends",
    "guidance",
    "loops",
    "memory",
    "noise",
    "penalties",
    "positions",
    "prompts",
    "right",
]
