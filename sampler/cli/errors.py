"""How a command ends: a failure that a user can cause is one line and an exit code, never a traceback."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from sampler.cli.output import lasting_output
from sampler.errors import SamplerError
from sampler.results.report.console import error_console
from sampler.runtime.text import LONG, visible

Arguments = ParamSpec("Arguments")


def shows_errors(command: Callable[Arguments, int]) -> Callable[Arguments, None]:
    """Turn a SamplerError into one line and its exit code, and the returned number into the exit code."""

    @wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with lasting_output():
            code = _exit_code(lambda: command(*args, **kwargs))
        raise typer.Exit(code)

    return wrapped


def _exit_code(command: Callable[[], int]) -> int:
    try:
        return command()
    except SamplerError as error:
        error_console().print(f"error: {visible(str(error), LONG)}")
        return error.exit_code
    except KeyboardInterrupt as error:
        error_console().print("; ".join(["interrupted", *map(visible, getattr(error, "__notes__", ()))]))
        return 130
