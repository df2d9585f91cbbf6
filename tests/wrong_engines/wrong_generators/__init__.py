"""Finch on the MLX core with one defect each in the path that generates; `right` has those that only look different.

Ids in brackets are kinds of real bugs (docs/decisions.md, "Miniatures").
"""

from . import ends, guidance, loops, memory, noise, penalties, positions, prompts, right
from .table import RIGHT_GENERATORS, WRONG_GENERATORS, RightGenerator, WrongGenerator

MODULES = (ends, guidance, loops, memory, noise, penalties, positions, prompts, right)
__all__ = ["MODULES", "RIGHT_GENERATORS", "WRONG_GENERATORS", "RightGenerator", "WrongGenerator"]
