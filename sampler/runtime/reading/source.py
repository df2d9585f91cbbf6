"""A file from outside: its bytes and its text, or the reason why there are none."""

import errno
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sampler.errors import SamplerError
from sampler.runtime.text import visible

MOST: Final = 64 << 20
"""Bytes of a file that is read as a whole, unless its reader says otherwise."""

LONGEST: Final = 240
"""Characters of a complaint about a file."""

NO_FILES: Final = (
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
)

MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x1f\x8b", "compressed"),
    (b"PK\x03\x04", "a zip archive"),
)
"""First bytes of a file that is no UTF-8, and what it is."""


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes. Raises OSError, also for what is no file: a pipe is never waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _require_file(os.fstat(handle).st_mode)
    except OSError:
        os.close(handle)
        raise
    return io.open(handle, "rb")  # noqa: UP020 - a handle, not a path


def _require_file(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for is_it, reason in NO_FILES:
        if is_it(mode):
            raise OSError(errno.EINVAL, reason)


def short(value: object, most: int = 60) -> str:
    """A value as Python writes it, cut: for the message that refuses it."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of {int(value.bit_length() * 0.30103) + 1:,} digits"
    shown = repr(value[: most + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def cut(text: str, most: int = LONGEST) -> str:
    """A text of at most so many characters."""
    shown = visible(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


@dataclass(frozen=True)
class Source:
    """A file from outside. error: raised for whatever is wrong with it. hint: what to do then. most: bytes.

    unit: what a number in a message counts.
    """

    path: Path
    error: type[SamplerError]
    hint: str
    most: int = MOST
    unit: str = "line"

    def refuse(self, complaint: str, hint: str = "", line: int | None = None, join: str = ": ") -> SamplerError:
        """The error about a file, and about a line of it, from 1. join: `: ` or a space."""
        where = f"{self.path}, {self.unit} {line}" if line else str(self.path)
        return self.error(f"{where}{join}{cut(complaint)}", hint=hint or self.hint)

    def unreadable(self, reason: object) -> SamplerError:
        """The error about a file that cannot be read."""
        said = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        return self.refuse(f"cannot be read: {said}", join=" ")

    def content(self) -> bytes:
        """All bytes. Raises `error` if there is no such file, or a larger one."""
        try:
            with open_file(self.path) as file:
                content = file.read(self.most + 1)
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL
            raise self.unreadable(error) from error
        if len(content) > self.most:
            raise self.refuse(f"has more than {self.most >> 20} MiB", "is it the file that you mean?", join=" ")
        return content

    def text(self) -> str:
        """The text, UTF-8 with or without a mark at its beginning; lines end in LF. Raises `error`."""
        return self.decoded(self.content())

    def decoded(self, content: bytes) -> str:
        """The text of bytes that were read already, as `text` has it."""
        name = next((name for mark, name in MARKS if content.startswith(mark)), None)
        head = content[:1000]
        if name is None and head and head.count(b"\0") * 4 >= len(head):
            name = "UTF-16 or UTF-32" if head.strip(b"\0") else "full of zeros"
        if name is not None:
            raise self.refuse(f"is no UTF-8 text: it is {name}", "save it as UTF-8", join=" ")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise self.refuse(
                f"is no UTF-8 text: {error.reason} at byte {error.start}", "save it as UTF-8", line, join=" "
            ) from error
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
