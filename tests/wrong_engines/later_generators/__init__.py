"""Thirty further generators with one defect each, written without a look at what scoring names.

What scoring says about them shows whether it names faults that its tables were not made for. Their right names are
`LATER_NAMES` in `tests/longform/fault_names.py`. Ids in brackets are kinds of real bugs (docs/decisions.md,
"Miniatures").
"""

from . import chains, networks, tokens
from .table import LATER_GENERATORS

MODULES = (chains, tokens, networks)
__all__ = ["LATER_GENERATORS", "MODULES"]
