"""Files of tensors (safetensors): a header that is read strictly, before the library maps the file."""

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

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
    """An open file. entries: dtype and shape of each tensor, by name; metadata: texts by name."""

    source: Source
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    file: Any  # safetensors has no types for an open file

    def get(self, name: str) -> NDArray[Any]:
        """One tensor. Raises the source's error if NumPy lacks its dtype, or there is none of that name."""
        if name not in self.entries:
            raise self.source.refuse(f"has no tensor {short(name)}", join=" ")
        try:
            tensor: NDArray[Any] = self.file.get_tensor(name)
        except (SafetensorError, TypeError, ValueError, AttributeError) as error:
            kind = short(self.entries[name].dtype)[1:-1]
            raise self.source.refuse(f"cannot be read: {name!r} is {kind}", join=" ") from error
        return tensor


@contextmanager
def open_tensors(source: Source) -> Iterator[Tensors]:
    """A file of tensors. Raises the source's error if its header, or the data behind it, is not as it should be."""
    entries, metadata = _header(source)
    try:
        with safe_open(source.path, framework="numpy") as file:
            yield Tensors(source, entries, metadata, file)
    except (SafetensorError, OSError) as error:
        raise source.unreadable(error) from error


def _header(source: Source) -> tuple[Mapping[str, Entry], Mapping[str, str]]:
    data = parse(source, _header_text(source))
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
    return entries, metadata


def _header_text(source: Source) -> str:
    try:
        with open_file(source.path) as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            content = file.read(length) if 0 < length <= min(size - 8, MOST_HEADER) else b""
        if not content:
            raise source.refuse(f"cannot be read: a header of {length:,} bytes in {size:,}", join=" ")
        return content.decode()
    except UnicodeDecodeError as error:
        raise source.refuse("cannot be read: its header is no UTF-8", join=" ") from error
    except OSError as error:
        raise source.unreadable(error) from error
