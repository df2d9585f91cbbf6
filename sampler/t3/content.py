"""Open a file with the weights of a T3, whatever its names are; a file that holds none is refused with what it is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from sampler.errors import WeightsError
from sampler.runtime.reading.formats import PICKLE, SAFETENSORS, TORCH
from sampler.runtime.reading.source import short
from sampler.runtime.reading.tensors import Tensors, open_tensors
from sampler.t3 import unusable
from sampler.t3.files import CheckpointFile, file_of
from sampler.t3.names import TRANSPOSED, Layout, Shape, layout_of, prefixes_of
from sampler.t3.pickled import open_pickled

FLOATS: Final = ("F32", "F16", "BF16", "F64")
PICKLED: Final = (".pt", ".pth", ".bin", ".ckpt")
SAFE: Final = ".safetensors"
LEAST: Final = 8
"""Bytes that a file of safetensors begins with before anything tells it; a download may have ended there."""

OF_PICKLES: Final = "is the download complete? If it is, save its state_dict() with safetensors"


class NoT3Error(WeightsError):
    """A file with the tensors of something else."""


class AdapterError(WeightsError):
    """A file with a LoRA that is not merged into its base."""


@dataclass(frozen=True)
class Weights:
    """An open file with a T3. shapes, dtypes: of the tensors that are read, by upstream's names."""

    source: CheckpointFile
    tensors: Tensors
    layout: Layout
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]

    def get(self, name: str) -> NDArray[Any]:
        """One tensor by upstream's name, bfloat16 as float32."""
        values = self.tensors.get((self.layout.names | self.layout.unused)[name])
        return values.T if self.layout.is_transposed and TRANSPOSED.fullmatch(name) else values

    def fits(self, name: str, shape: Shape) -> bool:
        """Whether a tensor that no network reads is as upstream's."""
        entry = self.tensors.entries[self.layout.unused[name]]
        return tuple(entry.shape) == shape and entry.dtype in FLOATS


@contextmanager
def open_weights(path: Path) -> Iterator[Weights]:
    """Open a file. Raises WeightsError for another format or model, MissingPackage for a pickle without torch."""
    source = file_of(path)
    found = source.format()
    _refuse(source, unusable.part(path.name), WeightsError)
    if found in (TORCH, PICKLE) and path.name.endswith(SAFE):  # torch itself goes by the name
        raise source.refuse(f"is {found}, not safetensors", f"rename it to {path.stem[:30]}.pt", join=" ")
    if found in (TORCH, PICKLE):
        with open_pickled(file_of(path, OF_PICKLES)) as tensors:
            yield _weights(source, tensors)
    elif found == SAFETENSORS or (found is None and path.stat().st_size <= LEAST):
        with open_tensors(source) as tensors:
            yield _weights(source, tensors)
    else:
        raise source.other(found, "a PyTorch file" if path.name.endswith(PICKLED) else "safetensors")


def _refuse(source: CheckpointFile, problem: unusable.Problem | None, kind: type[WeightsError]) -> None:
    if problem is not None:
        raise CheckpointFile(source.path, kind, "").refuse(problem.complaint, problem.hint, join=" ")


def _weights(source: CheckpointFile, tensors: Tensors) -> Weights:
    entries = tensors.entries
    prefixes = prefixes_of(entries)
    _refuse(source, unusable.adapter(entries), AdapterError)
    if not prefixes:
        _refuse(source, unusable.other_model(entries), NoT3Error)
    if len(prefixes) > 1:
        listed = " and ".join(short(prefix, 30) for prefix in prefixes[:2])
        raise source.refuse(f"holds {len(prefixes)} T3s, under {listed}", "save the one that you mean alone", join=" ")
    shapes = {name: tuple(entry.shape) for name, entry in entries.items()}
    layout = layout_of(shapes, prefixes[0])
    own = {name: entries[theirs] for name, theirs in layout.names.items()}
    _refuse(source, unusable.stored_otherwise(own), WeightsError)
    turned = [name for name in own if layout.is_transposed and TRANSPOSED.fullmatch(name)]
    own_shapes = {name: shapes[theirs] for name, theirs in layout.names.items()}
    own_shapes |= {name: own_shapes[name][::-1] for name in turned}
    return Weights(source, tensors, layout, own_shapes, {name: entry.dtype for name, entry in own.items()})
