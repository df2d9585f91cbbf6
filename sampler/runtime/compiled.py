"""Loops over arrays that numba compiles when they are first called, and keeps compiled beside the module."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class compiled(Generic[Parameters, Result]):  # noqa: N801 - a decorator
    """A function of NumPy arrays and numbers as machine code; other threads run meanwhile.

    Its body may call NumPy and `math`, but no other compiled function: numba keeps the machine code of each function
    under the time of its own file, so that a change in another file would go unnoticed. Floats are computed as NumPy
    computes them, in the order that is written: no `fastmath`.
    """

    def __init__(self, function: Callable[Parameters, Result]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        """Compile for these types at the first call, a second or two unless it was kept; then run."""
        return self._machine_code(*arguments, **named)

    @cached_property
    def _machine_code(self) -> Callable[Parameters, Result]:
        return machine_code(self.function)


def machine_code(
    function: Callable[Parameters, Result], *, fastmath: bool = False, inline: Literal["never", "always"] = "never"
) -> Callable[Parameters, Result]:
    """What numba makes of a function, kept beside its module where that can be written."""
    import numba  # a quarter of a second, for commands that draw nothing

    def compiler(*, cache: bool) -> Callable[Parameters, Result]:
        made: Any = numba.njit(function, cache=cache, nogil=True, error_model="numpy", fastmath=fastmath, inline=inline)
        return made  # type: ignore[no-any-return]

    try:
        return compiler(cache=inline == "never")
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return compiler(cache=False)
