"""The commands `sampler list` and `sampler doctor`."""

from typing import Annotated

import typer

from sampler.matrix.matrix import find_matrix, load_matrix, shipped_matrices
from sampler.results.report.console import plain_console
from sampler.runtime.text import LONG, visible


def list_(
    matrix: Annotated[str | None, typer.Argument(help="A matrix whose cells are to be listed.")] = None,
) -> int:
    """List the shipped matrices with their reasons, or the cells of one."""
    console = plain_console()
    if matrix is not None:
        for case in load_matrix(find_matrix(matrix)).cases:
            console.print(f"{case.id}  {f'{case.variant}: ' if case.variant else ''}{case.config}")
        return 0
    for path in shipped_matrices():
        loaded = load_matrix(path)
        console.print(f"{loaded.name} ({len(loaded.cases)} cells): {visible(loaded.why, LONG)}")
    return 0


def doctor() -> int:
    """Show versions, device, BLAS and speed."""
    from sampler.runtime.doctor import diagnose

    console = plain_console()
    found = diagnose()
    for name, value in found.facts:
        console.print(f"{name:14}{value}")
    console.print(f"{'speed':14}{found.gigaflops:.0f} billion float32 operations a second")
    for hint in found.hints:
        console.print(f"hint: {hint}", style="yellow")
    return 0
