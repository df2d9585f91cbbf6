"""Files next to run.jsonl: the tokens of every request, attention and scoring for the pictures of cells.

run.jsonl is complete without them. Its footer has the SHA-256 of each, so files of two runs cannot be mixed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from safetensors.numpy import save

from sampler.checks.scoring.summary import ScoreSummary
from sampler.results.store.run_file import ReportError
from sampler.results.store.scoring import SCORING, read_scoring
from sampler.results.store.tokens import TokenLine, read_lines
from sampler.runtime.files import Write, partial_of, write_whole
from sampler.runtime.reading.json_text import JsonDocument, parse
from sampler.runtime.reading.source import Source, open_file, short
from sampler.runtime.reading.tensors import open_tensors

TOKENS: Final = "tokens.jsonl"
ATTENTION: Final = "attention.safetensors"
MOST_BYTES: Final = 512 << 20
"""Of a file: eight maps of 4,000 steps over 2,000 pieces have 128 MiB."""

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
    scored: Mapping[str, ScoreSummary] = field(default_factory=dict)
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
    tokens, attention, scoring = (found.get(name) for name in (TOKENS, ATTENTION, SCORING))
    runs: dict[str, list[TokenLine]] = {}
    for run in read_lines(tokens) if tokens is not None and tokens.stat().st_size else ():
        runs.setdefault(run.cell, []).append(run)
    maps = _read_attention(attention, runs) if attention is not None else []
    scored = read_scoring(scoring) if scoring is not None else {}
    missing = [name for name, path in found.items() if path is None]
    return Recorded(runs, {run.cell: run for run in maps}, scored, missing)


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
    """SHA-256 of a file; None if there is none, empty for one that is too large to be of a run."""
    try:
        with open_file(path) as file:
            is_large = os.fstat(file.fileno()).st_size > MOST_BYTES
            return "" if is_large else hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Source(path, ReportError, "check its permissions").unreadable(error) from error


class _About(BaseModel):
    """What the file of attention says of one map."""

    model_config = ConfigDict(strict=True)
    cell: str
    request: Annotated[int, Field(ge=0)]
    pieces: list[str]
    flags: list[str]


def _read_attention(path: Path, runs: Mapping[str, Sequence[TokenLine]]) -> list[AttentionRun]:
    """The maps of a run. runs: their tokens, by cell, which they have to fit."""
    source = Source(path, ReportError, "remove it: the report does without it")
    with open_tensors(source) as tensors:
        text = tensors.metadata.get("runs")
        if text is None:
            raise source.refuse("has no 'runs' in its metadata", join=" ")
        document = JsonDocument(source, text, parse(source, text), lambda text, place: None)
        about = document.check(TypeAdapter(list[_About]))
        maps = [tensors.get(str(index)) for index in range(len(about))]
    for index, (entry, attention) in enumerate(zip(about, maps, strict=True)):
        if (problem := _unfit(entry, attention, runs.get(entry.cell, ()))) is not None:
            raise source.refuse(f"map {index} of {short(entry.cell)} {problem}", join=": ")
    return [
        AttentionRun(entry.cell, entry.request, attention, tuple(entry.pieces), tuple(entry.flags))
        for entry, attention in zip(about, maps, strict=True)
    ]


def _unfit(entry: _About, attention: NDArray[Any], runs: Sequence[TokenLine]) -> str | None:
    """Why a map does not fit its run, if so."""
    if attention.ndim != 2 or not attention.size or attention.dtype.kind != "f":
        return f"has shape {attention.shape} of {attention.dtype}, expected steps and pieces of floats"
    steps, pieces = attention.shape
    if not (np.isfinite(attention).all() and (attention >= 0).all()):
        return "has values that are negative, NaN or infinite"
    if entry.pieces and len(entry.pieces) != pieces:
        return f"has {pieces} columns for {len(entry.pieces)} pieces of text"
    if entry.flags and len(entry.flags) != steps:
        return f"has {steps} steps and {len(entry.flags)} flags"
    drawn = [len(run.tokens) for run in runs if run.request == entry.request]
    if drawn and steps not in drawn:
        return f"has {steps} steps, its run has {drawn[0]} tokens"
    return None
