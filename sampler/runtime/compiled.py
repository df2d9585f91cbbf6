"""Loops over arrays that numba compiles on the first call and caches next to the module."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class compiled(Generic[Parameters, Result]):  # noqa: N801 - a decorator
    """A function of NumPy arrays and numbers as machine code, which releases the GIL.

    Its body may call NumPy and `math`, but no other compiled function: numba's cache of each function depends only on
    the time of its own file and would miss a change in another one. Floats are computed as in NumPy, in the written
    order: no `fastmath`.
    """

    def __init__(self, function: Callable[Parameters, Result]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        """Compile for these types on the first call, which takes a second or two without a cache; then run."""
        return self._machine_code(*arguments, **named)

    @cached_property
    def _machine_code(self) -> Callable[Parameters, Result]:
        return machine_code(self.function)


def machine_code(
    function: Callable[Parameters, Result],
    *,
    fastmath: bool | set[str] = False,
    inline: Literal["never", "always"] = "never",
) -> Callable[Parameters, Result]:
    """The function compiled by numba, cached next to its module if that is writable.

    fastmath: which of LLVM's fast-math flags are allowed; True: all of them.
    """
    import numba  # takes a quarter of a second, which commands that draw nothing should not wait for

    def compiler(*, cache: bool) -> Callable[Parameters, Result]:
        code: Any = numba.njit(function, cache=cache, nogil=True, error_model="numpy", fastmath=fastmath, inline=inline)
        return code  # type: ignore[no-any-return]

    try:
        return compiler(cache=inline == "never")
    except RuntimeError:  # neither the package's folder nor the user's is writable
        return compiler(cache=False)
