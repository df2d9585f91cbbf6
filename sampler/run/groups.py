"""The groups of cells that a long-form matrix judges together, and their shares of its budget."""

from collections import Counter

from sampler.chain.noise import NoiseKey
from sampler.checks.longform.absolute import RunLimits
from sampler.checks.longform.questions import ABSOLUTE_WEIGHTS, WEIGHTS
from sampler.errors import MatrixError, nearest
from sampler.matrix.matrix import ALL, Group, LongForm, Matrix, Scope
from sampler.statistics.budget import Budget

WEIGHTS_OF_SCOPES: dict[Scope, float] = {"all": 2.0, "axes": 1.0, "cells": 1.0}
"""Shares of the budget, by default."""

BY_ITSELF = {"complete": 1.0, "looping": 1.0, "endless": 1.0, "evidence": 1.0}
"""Shares of a cell's budget of the questions that compare with no reference."""


def groups_of(matrix: Matrix) -> list[Group]:
    """All cells, then those that vary one axis, then each cell; without reference runs no axes."""
    cells = [Group(case.cell, "cells", (case,)) for case in matrix.cases]
    if longform_of(matrix).reference:
        axes = [Group(name, "axes", cases) for name, cases in matrix.groups.items()]
        return [Group(ALL, "all", matrix.cases), *axes, *cells]
    return [Group(ALL, "all", matrix.cases), *cells] if len(cells) > 1 else cells


def questions_of(matrix: Matrix, group: Group) -> dict[str, float]:
    """The questions of a group with their shares of the budget, except `same` and `ends`.

    A cell that is known to be incomplete has no questions about early, late and forced ends: `complete` covers them.
    One that is known to loop has none about runs without an end.
    """
    for name in (name for names in longform_of(matrix).left_out.values() for name in names):
        if name not in (*WEIGHTS, *BY_ITSELF):
            known = nearest(name, [*WEIGHTS, *BY_ITSELF])
            raise MatrixError(f"{matrix.path}: longform.left_out names {name!r}", hint=known)
    left_out = set(longform_of(matrix).left_out.get(group.scope, []) if longform_of(matrix).reference else WEIGHTS)
    if group.scope != "cells":
        return {name: weight for name, weight in {**WEIGHTS, **ABSOLUTE_WEIGHTS}.items() if name not in left_out}
    if any(known.cell == group.name and known.check == "complete" for known in matrix.known):
        left_out |= {"early", "late", "forced"}
    if group.name in looping_cells(matrix):
        left_out |= {"endless"}
    return {name: weight for name, weight in (*WEIGHTS.items(), *BY_ITSELF.items()) if name not in left_out}


def limits_of(matrix: Matrix, scope: Scope) -> RunLimits:
    """The absolute limits of a matrix, with what the runs of a scope must detect."""
    limits = matrix.limits
    return RunLimits(limits.looping, limits.missing, limits.detect.get(scope))


def looping_cells(matrix: Matrix) -> set[str]:
    """Cells that are known to loop: their runs do not count where cells are pooled, and need no end."""
    return {known.cell for known in matrix.known if known.check == "looping"}


def alphas_of(matrix: Matrix) -> dict[str, dict[str, float]]:
    """Alpha of each question, by group; it depends only on the matrix file, whatever part of it runs."""
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
    """The section `[longform]`. Raises MatrixError if there is none."""
    if matrix.longform is None:
        raise MatrixError(f"{matrix.path} has no [longform]", hint="matrices/longform.toml is an example")
    return matrix.longform


def reference_key(seed: int, matrix: str, cell: str, place: int) -> NoiseKey:
    """The noise of a shipped reference run, by its place in its cell."""
    return NoiseKey(seed, f"reference/{matrix}/{cell}", place)
