"""What a run generated, beside run.jsonl: the tokens of every request, and attention for the pictures of failing cells.

run.jsonl is complete without them. Its footer has the SHA-256 of each, so that files of two runs are never mixed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sampler.results.store.run_file import ReportError
from sampler.results.store.tokens import TokenLine, read_lines
from sampler.runtime.files import Write, output_errors, write_whole

TOKENS: Final = "tokens.jsonl"
ATTENTION: Final = "attention.safetensors"
PICTURED: Final = 8
"""How many failing cells of a run get pictures: each has its attention generated again, and weighs a part of a page."""


@dataclass(frozen=True)
class AttentionRun:
    """The attention of one request. attention: (T, S), the mean of the aligned heads; pieces: the S pieces of the text.

    flags: of the alignment analyzer, one entry a step, or none. It is stored as float16.
    """

    cell: str
    request: int
    attention: NDArray[np.floating]
    pieces: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recorded:
    """What was found beside a run.jsonl, by cell. missing: files that it names and that are not there."""

    runs: Mapping[str, Sequence[TokenLine]] = field(default_factory=dict)
    attention: Mapping[str, AttentionRun] = field(default_factory=dict)
    missing: Sequence[str] = ()


class TokenWriter:
    """Writes tokens.jsonl, one line a request."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._hash = hashlib.sha256()

    def write(self, line: TokenLine) -> None:
        self._hash.update(str(line).encode())
        self._write(str(line))

    def checksum(self) -> str:
        return self._hash.hexdigest()


def write_attention(folder: Path, maps: Sequence[AttentionRun]) -> dict[str, str]:
    """Write attention.safetensors and return its checksum by its name; without maps, remove that of an earlier run."""
    path = folder / ATTENTION
    if not maps:
        with output_errors(path):
            path.unlink(missing_ok=True)
        return {}
    tensors = {str(index): each.attention.astype(np.float16) for index, each in enumerate(maps)}
    about = [{name: value for name, value in vars(each).items() if name != "attention"} for each in maps]
    content = save(tensors, metadata={"runs": json.dumps(about)})
    write_whole(path, content)
    return {ATTENTION: hashlib.sha256(content).hexdigest()}


def read_recorded(folder: Path, files: Mapping[str, str]) -> Recorded:
    """Read what lies beside a run.jsonl. files: name and SHA-256, as its footer has them.

    A file that is missing is named in the answer. Raises ReportError for one that is not the run's, or cannot be read.
    """
    present = [name for name in files if _is_there(folder / name, files[name])]
    runs: dict[str, list[TokenLine]] = {}
    for run in read_lines(folder / TOKENS) if TOKENS in present and (folder / TOKENS).stat().st_size else ():
        runs.setdefault(run.cell, []).append(run)
    maps = _read_attention(folder / ATTENTION) if ATTENTION in present else []
    return Recorded(runs, {each.cell: each for each in maps}, [name for name in files if name not in present])


def _is_there(path: Path, checksum: str) -> bool:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    if found != checksum:
        raise ReportError(f"{path} is not the file of this run", hint="remove it: the report does without its pictures")
    return True


def _read_attention(path: Path) -> list[AttentionRun]:
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["runs"])
            return [_attention_run(entry, file.get_tensor(str(index))) for index, entry in enumerate(about)]
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}", hint="remove it: the report does without it") from error


def _attention_run(entry: dict[str, Any], attention: NDArray[np.floating]) -> AttentionRun:
    pieces, flags = tuple(entry["pieces"]), tuple(entry["flags"])
    return AttentionRun(entry["cell"], entry["request"], attention, pieces, flags)
