"""A file of a checkpoint: told by its first bytes, and refused in a line of at most 200 characters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sampler.errors import SamplerError, WeightsError
from sampler.runtime.reading import formats
from sampler.runtime.reading.formats import format_of
from sampler.runtime.reading.source import Source, cut, open_file

MOST_LINE: Final = 200 - len("error: ")
"""Characters of a refusal, as the command line shows it."""

MOST_HINT: Final = 110
MOST_NAME: Final = 40

AGAIN: Final = "is the download complete?"

OF_UPSTREAM: Final = "take the safetensors that it was made from"

REMEDIES: Final[Mapping[str, str]] = {
    formats.POINTER: "run `git lfs pull` where it was cloned, or download the file itself",
    formats.HTML: "download the file itself; a model that asks for a login needs one",
    "XML": "the server may have answered with an error: download the file itself",
    formats.JSON: "is it the file that you mean? Weights are read from safetensors",
    formats.TEXT: "the server may have answered with an error: download the file itself",
    formats.NPZ: "convert it: mx.save_safetensors('NAME.safetensors', mx.load('FILE.npz'))",
    formats.GGUF: f"{OF_UPSTREAM}, or write its tensors dequantised with the package gguf",
    "GGML": OF_UPSTREAM,
    formats.ONNX: f"{OF_UPSTREAM}: a graph has no names of T3",
    "TensorFlow Lite": OF_UPSTREAM,
    formats.HDF5: "save its tensors under upstream's names as safetensors",
    formats.ZEROS: "download it again",
    formats.EMPTY: AGAIN,
}
"""What to do with a format that holds no tensors that can be read."""


class CheckpointFile(Source):
    """A file in a folder of weights, which its messages name without the folder."""

    def refuse(self, complaint: str, hint: str = "", line: int | None = None, join: str = ": ") -> SamplerError:
        """The error about the file. What is too long for a line is cut, the complaint first."""
        name, hint = cut(self.path.name, MOST_NAME), cut(hint or self.hint, MOST_HINT)
        where = f"{name}, {self.unit} {line}" if line else name
        room = MOST_LINE - len(where) - len(join) - len(hint) - len(" ()")
        return self.error(f"{where}{join}{cut(complaint, room)}", hint=hint)

    def format(self) -> str | None:
        """What the file is by its first bytes, None if that is not known. Raises `error` if it cannot be read."""
        try:
            with open_file(self.path) as file:
                return format_of(file.read(formats.HEAD))
        except (OSError, ValueError) as error:
            if self.path.is_symlink() and not self.path.exists():
                raise self.refuse("is a link to a file that is not there", "download it again", join=" ") from error
            raise self.unreadable(error) from error

    def other(self, found: str | None, wanted: str) -> SamplerError:
        """The error about a file of another format than the wanted one."""
        if found in (formats.EMPTY, formats.ZEROS):
            return self.refuse(f"cannot be read: it is {found}", REMEDIES[found], join=" ")
        if found is None:
            return self.refuse(f"is no {wanted}, and of a format that is not known here", join=" ")
        packed = found.endswith("archive") or found.startswith("compressed")
        hint = "unpack it" if packed else REMEDIES.get(found, "is it the file that you mean?")
        return self.refuse(f"is {found}, not {wanted}", hint, join=" ")

    def text(self) -> str:
        """The text. Raises `error` for a file that is none, such as a Git LFS pointer."""
        found = self.format()
        if found not in (None, formats.JSON, formats.TEXT, formats.EMPTY, formats.ZEROS):
            raise self.other(found, "JSON" if self.path.suffix == ".json" else "a text")
        return super().text()


def file_of(path: Path, hint: str = AGAIN) -> CheckpointFile:
    """A file whose errors are WeightsError."""
    return CheckpointFile(path, WeightsError, hint)


def shown(path: Path) -> str:
    """A folder as a message names it: its end, if it is long."""
    text = str(path)
    return cut(text, 60) if len(text) <= 60 else f"...{cut(text[-57:], 57)}"
