"""Tiny engines for `sampler check`: wrong ones of one fault each, and right ones that look different.

Each module below puts its factories into the tables; `tests/miniatures.py` gives them all by their names.
"""

import importlib

from .tables import RIGHT, WRONG, Factory, Wrong

__all__ = ["FACTORIES", "MODULES", "RIGHT", "WRONG", "Factory", "Wrong"]

MODULES = ("penalties", "temperature", "top_k", "min_p", "top_p", "guidance", "orders", "batches", "answers", "draws")
MODULES += ("noise", "seeds", "limits", "draw_only", "right_chains", "right_limits", "right_draws")
MODULES += ("causes",)
for _module in MODULES:
    importlib.import_module(f"{__name__}.{_module}")

FACTORIES: dict[str, Factory] = {**{name: each.factory for name, each in WRONG.items()}, **RIGHT}
