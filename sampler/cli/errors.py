"""How a command ends: a failure that a user can cause is one line and an exit code, never a traceback."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from rich.console import Console

from sampler.errors import SamplerError

Arguments = ParamSpec("Arguments")


def shows_errors(command: Callable[Arguments, int]) -> Callable[Arguments, None]:
    """Turn a SamplerError into one line and its exit code, and the returned number into the exit code."""

    @wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except SamplerError as error:
            Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"error: {error}")
            code = error.exit_code
        except KeyboardInterrupt:
            Console(stderr=True).print("interrupted; nothing was written")
            code = 130
        raise typer.Exit(code)

    return wrapped
