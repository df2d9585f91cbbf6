"""Files that torch has pickled: tensors by dotted names, read without running what a pickle may call."""

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sampler.errors import MissingPackage
from sampler.runtime.reading.formats import TORCH
from sampler.runtime.reading.source import short
from sampler.runtime.reading.tensors import Entry, Tensors
from sampler.t3.files import AGAIN, CheckpointFile

DEEPEST: Final = 16
"""Objects in each other: a pickled module has twelve."""

INSTALL: Final = "pip install 'sampler-suite[reference]'"

DTYPES: Final = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "uint32": "U32", "bool": "BOOL",
}  # fmt: skip
"""Names of safetensors for torch's dtypes."""


class Attributes:
    """Stands for an object of a class that is not loaded, such as upstream's Conditionals: its attributes alone."""


class TorchTensors(Tensors):
    """Tensors of a pickle. file: torch's tensors by name."""

    def get(self, name: str) -> NDArray[Any]:
        """One tensor, bfloat16 as float32. Raises the source's error if NumPy lacks its dtype."""
        try:
            return as_array(self.file[name])
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.source.refuse(f"cannot be read: {name!r}: {error}", join=" ") from error


@contextmanager
def open_pickled(source: CheckpointFile) -> Iterator[TorchTensors]:
    """The tensors of a pickled file of any size. Raises the source's error, MissingPackage without torch."""
    tensors = {name: value for name, value in named(load(source, whole=False)) if hasattr(value, "numel")}
    entries = {
        name: Entry(dtype=_dtype(value), shape=list(value.shape), data_offsets=[0, 0])
        for name, value in tensors.items()
    }
    yield TorchTensors(source, entries, {}, tensors)


def load(source: CheckpointFile, *, whole: bool = True) -> Any:
    """What a file holds, with `Attributes` in place of objects. whole: read it into memory, at most 64 MiB."""
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(f"{source.path.name} needs torch to be read", hint=INSTALL) from error
    is_zip = source.format() == TORCH
    content = source.content() if whole else b""
    objects: list[str] = []

    def file() -> io.BytesIO | str:
        return io.BytesIO(content) if whole else str(source.path)

    if is_zip and not zipfile.is_zipfile(file()):
        raise source.refuse("cannot be read: it ends before its table of contents", AGAIN, join=" ")
    try:
        if is_zip:
            objects = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file()))
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Attributes, name) for name in objects]):
            warnings.simplefilter("ignore")  # torch tells of its own older types
            return torch.load(file(), map_location="cpu", weights_only=True, mmap=is_zip and not whole)
    except Exception as error:  # torch raises many types of exceptions for an invalid file
        if objects:
            complaint = f"cannot be read: it holds {short(objects[0])[1:-1]}, which is not loaded"
            raise source.refuse(complaint, "save a dictionary of tensors, such as state_dict()", join=" ") from error
        if "Weights only load failed" in str(error):
            hint = "save a dictionary of tensors with torch.save"
            raise source.refuse("is a pickle with other objects than tensors", hint, join=" ") from error
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise source.unreadable(reason) from error


def named(data: Any, name: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Values in dictionaries, lists and objects in each other, by dotted names; None is left out."""
    parts: Mapping[Any, Any] | None = None
    if isinstance(data, Mapping):
        parts = data
    elif isinstance(data, Attributes):
        parts = vars(data)
    elif isinstance(data, list | tuple) and any(isinstance(each, Mapping | Attributes) for each in data):
        parts = dict(enumerate(data))
    if parts is None:
        if data is not None:
            yield name, data
    elif len(above) < DEEPEST and id(data) not in above:
        for key, value in parts.items():
            yield from named(value, f"{name}.{key}" if name else str(key), (*above, id(data)))


def as_array(value: Any) -> NDArray[Any]:
    """A tensor, number or list as an array, bfloat16 as float32."""
    if hasattr(value, "detach"):
        value = value.detach()
        value = value.float() if _dtype(value) == "BF16" else value
    return np.asarray(value)


def _dtype(value: Any) -> str:
    name = str(value.dtype).removeprefix("torch.")
    return DTYPES.get(name, name)
