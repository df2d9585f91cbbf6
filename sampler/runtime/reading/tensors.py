"""Files of tensors (safetensors): a header that is read strictly, before the library maps the file."""

import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from sampler.runtime.reading.document import Fault
from sampler.runtime.reading.json_text import parse
from sampler.runtime.reading.source import Source, open_file, short

MOST_HEADER: Final = 16 << 20
"""Bytes of a header; 300 tensors take 30,000."""

MOST_AXES: Final = 8

Size = Annotated[int, Field(ge=0, lt=2**48)]


class Entry(BaseModel):
    """What a header says of one tensor."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    dtype: str
    shape: Annotated[list[Size], Field(max_length=MOST_AXES)]
    data_offsets: Annotated[list[Size], Field(min_length=2, max_length=2)]


ENTRY: Final = TypeAdapter(Entry)
METADATA: Final = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Tensors:
    """An open file. entries: dtype and shape of each tensor, by name; metadata: texts by name; start: of the data."""

    source: Source
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    file: Any  # safetensors has no types for an open file
    start: int = 0

    def get(self, name: str) -> NDArray[Any]:
        """One tensor, bfloat16 as float32. Raises the source's error for a dtype that NumPy lacks, or no tensor."""
        if name not in self.entries:
            raise self.source.refuse(f"has no tensor {short(name)}", join=" ")
        if self.entries[name].dtype == "BF16":
            return self._bfloat16(self.entries[name])
        try:
            tensor: NDArray[Any] = self.file.get_tensor(name)
        except (SafetensorError, TypeError, ValueError, AttributeError) as error:
            kind = short(self.entries[name].dtype)[1:-1]
            raise self.source.refuse(f"cannot be read: {name!r} is {kind}", join=" ") from error
        return tensor

    def _bfloat16(self, entry: Entry) -> NDArray[np.float32]:
        """The upper halves of float32 values, which NumPy has no type for."""
        with open_file(self.source.path) as file:
            file.seek(self.start + entry.data_offsets[0])
            halves = np.frombuffer(file.read(2 * math.prod(entry.shape)), dtype="<u2")
        return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)


@contextmanager
def open_tensors(source: Source) -> Iterator[Tensors]:
    """A file of tensors. Raises the source's error if its header, or the data behind it, is not as it should be."""
    header = read_header(source)
    try:
        with safe_open(source.path, framework="numpy") as file:
            yield Tensors(source, header.entries, header.metadata, file, header.start)
    except (SafetensorError, OSError) as error:
        raise source.unreadable(error) from error


class Header(NamedTuple):
    """What a file says of its tensors. start: the byte at which their data begin."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


def read_header(source: Source) -> Header:
    """The header of a file of tensors. Raises the source's error, also if the file ends before its data do."""
    text, start, size = _header_text(source)
    data = parse(source, text)
    if not isinstance(data, dict):
        raise source.refuse(f"cannot be read: its header is {short(data)}", join=" ")
    name = "__metadata__"
    try:
        metadata = METADATA.validate_python(data.pop(name, None) or {}, strict=True)
        entries = {name: ENTRY.validate_python(data[name]) for name in data}
    except ValidationError as error:
        fault = Fault.of(error)
        where = f"{short(name)[1:-1]}.{fault.key}".removesuffix(".")
        raise source.refuse(f"cannot be read: {where} = {short(fault.value)}: {fault.says}", join=" ") from error
    end = start + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if size < end:
        raise source.refuse(f"cannot be read: it ends after {size:,} of {end:,} bytes", join=" ")
    return Header(entries, metadata, start)


def _header_text(source: Source) -> tuple[str, int, int]:
    """The text, the byte at which it ends and the size of the file."""
    try:
        with open_file(source.path) as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            content = file.read(length) if 0 < length <= min(size - 8, MOST_HEADER) else b""
        if not content:
            raise source.refuse(f"cannot be read: a header of {length:,} bytes in {size:,}", join=" ")
        return content.decode(), 8 + length, size
    except UnicodeDecodeError as error:
        raise source.refuse("cannot be read: its header is no UTF-8", join=" ") from error
    except OSError as error:
        raise source.unreadable(error) from error
