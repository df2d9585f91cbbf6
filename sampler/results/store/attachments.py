"""Files next to run.jsonl: the tokens of every request, and attention for the pictures of failing cells.

run.jsonl is complete without them. Its footer has the SHA-256 of each, so files of two runs cannot be mixed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sampler.results.store.run_file import ReportError
from sampler.results.store.tokens import TokenLine, read_lines
from sampler.runtime.files import Write, partial_of, write_whole

TOKENS: Final = "tokens.jsonl"
ATTENTION: Final = "attention.safetensors"
PICTURED: Final = 8
"""Number of failing cells with pictures: each needs its attention generated again, and makes the report larger."""


@dataclass(frozen=True)
class AttentionRun:
    """The attention of one request. attention: (T, S), the mean of the aligned heads; pieces: the S pieces of the text.

    flags: of the alignment analyzer, one entry per step, or none. Attention is stored as float16.
    """

    cell: str
    request: int
    attention: NDArray[np.floating]
    pieces: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recorded:
    """The files found next to a run.jsonl, by cell. missing: files that it names and that do not exist."""

    runs: Mapping[str, Sequence[TokenLine]] = field(default_factory=dict)
    attention: Mapping[str, AttentionRun] = field(default_factory=dict)
    missing: Sequence[str] = ()


class TokenWriter:
    """Writes tokens.jsonl, one line per request."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._hash = hashlib.sha256()

    def write(self, line: TokenLine) -> None:
        self._hash.update(str(line).encode())
        self._write(str(line))

    def checksum(self) -> str:
        return self._hash.hexdigest()


def write_attention(
    folder: Path, maps: Sequence[AttentionRun], write: Callable[[Path, bytes], None] = write_whole
) -> dict[str, str]:
    """Write attention.safetensors, if there are maps, and return its checksum by its name.

    write: `write_partial` leaves it without its name.
    """
    if not maps:
        return {}
    tensors = {str(index): run.attention.astype(np.float16) for index, run in enumerate(maps)}
    about = [{name: value for name, value in vars(run).items() if name != "attention"} for run in maps]
    content = save(tensors, metadata={"runs": json.dumps(about)})
    write(folder / ATTENTION, content)
    return {ATTENTION: hashlib.sha256(content).hexdigest()}


def read_recorded(folder: Path, files: Mapping[str, str]) -> Recorded:
    """Read the files next to a run.jsonl. files: name and SHA-256, from its footer.

    A missing file is named in the result. Raises ReportError for a file of another run, or an unreadable one.
    """
    found = {name: file_of_run(folder / name, files[name]) for name in files}
    tokens, attention = found.get(TOKENS), found.get(ATTENTION)
    runs: dict[str, list[TokenLine]] = {}
    for run in read_lines(tokens) if tokens is not None and tokens.stat().st_size else ():
        runs.setdefault(run.cell, []).append(run)
    maps = _read_attention(attention) if attention is not None else []
    return Recorded(runs, {run.cell: run for run in maps}, [name for name, path in found.items() if path is None])


def file_of_run(path: Path, checksum: str) -> Path | None:
    """The file with a checksum, which may still have to get its name (`results.store.folder`); None if it is gone.

    Raises ReportError if there is only a file of another run.
    """
    found = [(each, _checksum(each)) for each in (path, partial_of(path))]
    right = next((each for each, own in found if own == checksum), None)
    if right is None and found[0][1] is not None:
        raise ReportError(f"{path} is not the file of this run", hint="remove it: the report does without its pictures")
    return right


def _checksum(path: Path) -> str | None:
    """SHA-256 of a file; None if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _read_attention(path: Path) -> list[AttentionRun]:
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["runs"])
            maps = [file.get_tensor(str(index)) for index in range(len(about))]
        return [
            AttentionRun(entry["cell"], entry["request"], attention, tuple(entry["pieces"]), tuple(entry["flags"]))
            for entry, attention in zip(about, maps, strict=True)
        ]
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}", hint="remove it: the report does without it") from error
