"""Finding what a case id names."""

from pathlib import Path

from sampler.errors import MatrixError
from sampler.matrix.matrix import Matrix, find_matrix, load_matrix
from sampler.matrix.schema import nearest
from sampler.run.session import CHECKS


def find_case(case_id: str, matrix: Path | None) -> tuple[Matrix, str, str | None]:
    """Matrix, cell (of a long-form matrix also an axis or `all`) and check of `matrix/cell` or `matrix/cell/check`.

    Raises MatrixError naming the part that is unknown and the nearest one.
    """
    name, *rest = case_id.split("/")
    if not 1 <= len(rest) <= 2:
        raise MatrixError(f"{case_id!r} is no case", hint="expected matrix/cell or matrix/cell/check")
    loaded = load_matrix(matrix or find_matrix(name))
    if loaded.name != name:
        raise MatrixError(
            f"{case_id} is a case of {name!r}, {loaded.path} is {loaded.name!r}", hint="name its own file"
        )
    cells, names = [case.cell for case in loaded.cases], [check for check, *_ in CHECKS]
    if loaded.longform:
        from sampler.checks.longform.questions import WEIGHTS
        from sampler.run.groups import groups_of
        from sampler.run.longform import ALONE

        cells, names = [group.name for group in groups_of(loaded)], [*WEIGHTS, *ALONE]
    if rest[0] not in cells:
        raise MatrixError(f"{loaded.path} has no cell {rest[0]!r}", hint=f"the first one is {loaded.cases[0].cell!r}")
    if rest[1:] and rest[1] not in names:
        raise MatrixError(f"there is no check {rest[1]!r}", hint=nearest(rest[1], names))
    return loaded, rest[0], rest[1] if rest[1:] else None
