"""Thirty generators with one defect each, written without a look at the tables of scoring or at what it can name.

The tables were extended after the first look at what these are called. Their right names are `HELD_OUT_NAMES` in
`tests/longform/fault_names.py`. Ids in brackets are kinds of real bugs (docs/decisions.md, "Miniatures").
"""

from . import chains, networks, prefixes, tokens
from .table import HELD_OUT_GENERATORS

MODULES = (chains, tokens, prefixes, networks)
__all__ = ["HELD_OUT_GENERATORS", "MODULES"]
