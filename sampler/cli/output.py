"""Standard output that may end before the command does: a closed pipe, a full disk, none at all."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast


class Lasting:
    """A text stream that is given up when it can no longer be written. on_loss: gets the reason, once."""

    def __init__(self, stream: TextIO, on_loss: Callable[[str], None]) -> None:
        self._stream, self._on_loss, self._lost = stream, on_loss, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written; letters that the encoding of the stream lacks are escaped."""
        if not self._lost:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        self._lost = True
        with suppress(OSError, ValueError):  # or the interpreter would try again at its end, and exit with 120
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)
        self._on_loss(getattr(error, "strerror", None) or str(error))


@contextmanager
def lasting_output() -> Iterator[None]:
    """For a command: what cannot be shown on stdout or stderr does not end it, and is no reason for its exit code."""
    _occupy()

    def tell(reason: str) -> None:
        print(f"the rest of the output is not shown: stdout: {reason}", file=sys.stderr)  # noqa: T201

    out, err = (
        Lasting(stream or _nowhere(), on_loss) for stream, on_loss in ((sys.stdout, tell), (sys.stderr, _ignore))
    )
    is_closed = sys.stdout is None
    with redirect_stderr(cast("TextIO", err)), redirect_stdout(cast("TextIO", out)):
        if is_closed:
            tell("it is closed")
        try:
            yield
        finally:
            out.flush()
            err.flush()


def _ignore(reason: str) -> None:
    """Nobody can be told that stderr is gone."""


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _occupy() -> None:
    """Keep files from getting the numbers of closed standard streams, into which libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
