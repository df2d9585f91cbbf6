"""Tiny engines for `sampler check`: wrong ones of one fault each, and right ones that look different.

Each module below puts its factories into the tables; `tests/miniatures.py` gives them all by their names.
"""

import importlib

from .tables import RIGHT, WRONG, Factory, Wrong

__all__ = ["AT_TIES", "FACTORIES", "MODULES", "RIGHT", "WRONG", "Factory", "Wrong"]

MODULES = ("penalties", "temperature", "top_k", "min_p", "top_p", "guidance", "orders", "batches", "answers", "draws")
MODULES += ("noise", "seeds", "limits", "draw_only", "right_chains", "right_limits", "right_draws")
MODULES += ("causes", "ranges", "right_answers", "right_rules", "declarations", "wide_draws", "range_draws")
for _module in MODULES:
    importlib.import_module(f"{__name__}.{_module}")

FACTORIES: dict[str, Factory] = {**{name: each.factory for name, each in WRONG.items()}, **RIGHT}

AT_TIES = frozenset(
    {
        "top_k_keeps_exactly_k", "min_p_removes_what_equals_the_threshold", "temperature_0_takes_the_highest_id",
        "temperature_0_keeps_ties", "top_p_keeps_one_more_at_the_edge", "top_p_keeps_all_ties",
    }
)  # fmt: skip
"""Wrong engines that differ at exact ties or an exact mass alone: they fail in strict runs."""
