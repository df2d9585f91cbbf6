"""Files that appear under their name whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sampler.errors import OutputError


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn OSError into OutputError naming the path and the reason."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", hint="choose another folder with --out"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Make sure first that a file can be written, then write it whole or not at all. Raises OutputError."""
    part = path.with_name(f"{path.name}.part")
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        part.touch()

    def write(content: bytes) -> None:
        with output_errors(path):
            part.write_bytes(content)
            part.replace(path)

    try:
        yield write
    finally:
        part.unlink(missing_ok=True)
