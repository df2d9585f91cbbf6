"""Fifty further generators with one defect each, written without a look at what scoring names.

What scoring said about them showed whether it names faults that its tables were not made for; then the tables were
extended with what they showed to be missing. Twenty of them (`further_stages`, `further_draws`, `voices_and_caches`)
came after the first extension. Their right names are `LATER_NAMES` in `tests/longform/fault_names.py`. Ids in brackets
are kinds of real bugs (docs/decisions.md, "Miniatures").
"""

from . import chains, further_draws, further_stages, networks, tokens, voices_and_caches
from .table import LATER_GENERATORS

MODULES = (chains, tokens, networks, further_stages, further_draws, voices_and_caches)
__all__ = ["LATER_GENERATORS", "MODULES"]
