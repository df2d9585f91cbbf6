"""The groups of cells that a long-form matrix asks together, and their parts of its budget."""

from collections import Counter

from sampler.chain.noise import NoiseKey
from sampler.checks.longform.questions import WEIGHTS
from sampler.errors import MatrixError, nearest
from sampler.matrix.matrix import Group, LongForm, Matrix, Scope
from sampler.statistics.budget import Budget

ALL = "all"
"""The group of all cells."""

WEIGHTS_OF_SCOPES: dict[Scope, float] = {"all": 2.0, "axes": 1.0, "cells": 1.0}
"""Parts of the budget where the matrix gives no others."""

BY_ITSELF = {"complete": 1.0, "looping": 1.0}
"""Their parts of a cell's budget."""


def groups_of(matrix: Matrix) -> list[Group]:
    """All cells, then those that vary one axis, then each cell; without reference runs the cells alone."""
    cells = [Group(case.cell, "cells", (case,)) for case in matrix.cases]
    if not longform_of(matrix).reference:
        return cells
    axes = [Group(name, "axes", cases) for name, cases in matrix.groups.items()]
    return [Group(ALL, "all", matrix.cases), *axes, *cells]


def questions_of(matrix: Matrix, group: Group) -> dict[str, float]:
    """What a group is asked, with its parts of the budget, but for `same` and `ends`.

    A cell that is known not to be whole is not asked where and by whom its runs end: `complete` says so.
    """
    for name in (name for names in longform_of(matrix).left_out.values() for name in names):
        if name not in (*WEIGHTS, *BY_ITSELF):
            known = nearest(name, [*WEIGHTS, *BY_ITSELF])
            raise MatrixError(f"{matrix.path}: longform.left_out names {name!r}", hint=known)
    left_out = set(longform_of(matrix).left_out.get(group.scope, []) if longform_of(matrix).reference else WEIGHTS)
    if group.scope != "cells":
        return {name: weight for name, weight in WEIGHTS.items() if name not in left_out}
    if any(known.cell == group.name and known.check == "complete" for known in matrix.known):
        left_out |= {"early", "late", "forced"}
    return {name: weight for name, weight in (*WEIGHTS.items(), *BY_ITSELF.items()) if name not in left_out}


def alphas_of(matrix: Matrix) -> dict[str, dict[str, float]]:
    """Alpha of each question, by group: fixed by the matrix file alone, whatever part of it is run."""
    plan = longform_of(matrix)
    groups = groups_of(matrix)
    counts = Counter(group.scope for group in groups)
    parts: dict[str, float] = {}
    for group in groups:
        names = questions_of(matrix, group)
        total = sum(names.values())
        share = (WEIGHTS_OF_SCOPES | plan.weights)[group.scope] / counts[group.scope]
        parts |= {f"{group.name}/{name}": share * weight / total for name, weight in names.items()}
    split = Budget(plan.false_alarms).split(parts)
    result: dict[str, dict[str, float]] = {group.name: {} for group in groups}
    for place, alpha in split.items():
        group_name, _, question = place.rpartition("/")
        result[group_name][question] = alpha
    return result


def longform_of(matrix: Matrix) -> LongForm:
    """Its section `[longform]`. Raises MatrixError where there is none."""
    if matrix.longform is None:
        raise MatrixError(f"{matrix.path} has no [longform]", hint="matrices/longform.toml is an example")
    return matrix.longform


def reference_key(seed: int, matrix: str, cell: str, place: int) -> NoiseKey:
    """The noise of a reference run that ships, by its place in its cell."""
    return NoiseKey(seed, f"reference/{matrix}/{cell}", place)
