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


@contextmanager
def whole_file(path: Path) -> Iterator[Write]:
    """Check first that a file can be written, then write it in pieces; it gets its name only at the end.

    Until then it is `path.partial`, which is removed if the block raises. Raises OutputError.
    """
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        partial = path.with_name(f"{path.name}.partial")
        if path.parent.exists() and not path.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("wb")

    def write(content: str | bytes) -> None:
        with output_errors(path):
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()  # so that a full disk shows at once

    try:
        yield write
        with output_errors(path):
            os.fsync(file.fileno())
            file.close()
            partial.replace(path)
    except BaseException:
        for discard in (file.close, partial.unlink):
            with suppress(OSError):  # closing flushes again, to a disk that may be full
                discard()
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one call, complete or not at all. Raises OutputError."""
    with whole_file(path) as write:
        write(content)
