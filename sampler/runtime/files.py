"""Write files atomically: they appear under their name complete or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sampler.errors import OutputError

Write = Callable[[str | bytes], None]
"""Appends to a file, text as UTF-8."""


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn OSError into OutputError naming the path and the reason."""
    try:
        yield
    except OSError as error:
        hint = "choose another place with --out"
        raise OutputError(f"{path} cannot be written: {error.strerror}", hint=hint) from error


def partial_of(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(f"{path.name}.partial")


@contextmanager
def partial_file(path: Path) -> Iterator[Write]:
    """Check first that a file can be written, then write `partial_of(path)` in pieces; `path` stays as it is.

    When the block ends, the partial file is complete and on the disk; if it raises, it is removed. Raises OutputError.
    """
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.parent.exists() and not path.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial_of(path).open("wb")

    def write(content: str | bytes) -> None:
        with output_errors(path):
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()  # so that a full disk shows at once

    try:
        yield write
        with output_errors(path):
            os.fsync(file.fileno())
            file.close()
    except BaseException:
        for discard in (file.close, partial_of(path).unlink):
            with suppress(OSError):  # closing flushes again, to a disk that may be full
                discard()
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Write]:
    """As `partial_file`, and the file gets its name at the end. Raises OutputError."""
    with partial_file(path) as write:
        yield write
    try:
        with output_errors(path):
            partial_of(path).replace(path)
    except BaseException:
        with suppress(OSError):
            partial_of(path).unlink()
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one call, complete or not at all. Raises OutputError."""
    with whole_file(path) as write:
        write(content)


def write_partial(path: Path, content: str | bytes) -> None:
    """Write `partial_of(path)` in one call, complete or not at all. Raises OutputError."""
    with partial_file(path) as write:
        write(content)
