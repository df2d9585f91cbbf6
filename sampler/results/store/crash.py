"""Crash files: one failing step with everything needed to reproduce the failure on any backend."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sampler.checks.verdict import Verdict
from sampler.config import SamplingConfig
from sampler.errors import ConfigError
from sampler.requests import Steps
from sampler.results.store.run_file import ReportError
from sampler.runtime.files import output_errors, write_whole
from sampler.runtime.reading.document import Document, named
from sampler.runtime.reading.json_text import read_json
from sampler.runtime.reading.source import Source

FORMAT: Final = "sampler-crash/1"
ROWS: Final = ("logits", "uncond_logits", "gumbel", "scores")
FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")


def write_crashes(
    folder: Path, failures: Sequence[tuple[Verdict, Steps]], write: Callable[[Path, str], None] = write_whole
) -> dict[str, Path]:
    """Write `folder/crashes/<fingerprint>.json` for each failure.

    The name is a hash of the content, so a failure has one file. write: `write_partial` leaves it without its name.
    Returns the file of each case id.
    """
    return {verdict.case: _write(folder / "crashes", verdict, step, write) for verdict, step in failures}


def remove_crashes(folder: Path, keep: Iterable[Path]) -> int:
    """Remove the crash files of an earlier run from `folder/crashes`, but no other files. Returns their number."""
    kept, count = set(keep), 0
    crashes = folder / "crashes"
    with output_errors(crashes):
        for path in crashes.iterdir() if crashes.is_dir() else ():
            ours = path.suffix == ".json" and FINGERPRINT.fullmatch(path.stem) and path not in kept
            if ours and path.is_file() and _has_the_format(path):
                path.unlink()
                count += 1
    return count


def _has_the_format(path: Path) -> bool:
    with path.open("rb") as file:
        return f'"{FORMAT}"'.encode() in file.read(60)


def _write(crashes: Path, verdict: Verdict, step: Steps, write: Callable[[Path, str], None]) -> Path:
    content = {
        "format": FORMAT,
        "case": verdict.case,
        "check": verdict.check,
        "stage": verdict.stage,
        "message": verdict.message,
        "reproduce": verdict.reproduce,
        "config": str(step.config),
        "history": list(step.history[0]),
        "token": int(step.tokens[0]),
        **{name: None if (rows := getattr(step, name)) is None else _encode(rows[0]) for name in ROWS},
    }
    # A lone surrogate, as in a file name, cannot be read back.
    readable = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    text = json.dumps(readable, indent=1)
    path = crashes / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    write(path, text)
    return path


Id = Annotated[int, Field(ge=0)]


class _Content(BaseModel):
    """The shape of a crash file."""

    model_config = ConfigDict(strict=True)
    format: Literal["sampler-crash/1"]
    case: Annotated[str, Field(pattern=r"^[^/]+/.+/[^/]+$")]
    check: str
    stage: str
    message: str
    config: str
    history: list[Id]
    token: Id
    logits: str
    uncond_logits: str | None
    gumbel: str
    scores: str | None


def read_crash(path: Path) -> tuple[dict[str, Any], Steps]:
    """Read a crash file: the description of the failure, and the step. Raises ReportError."""
    document = read_json(Source(path, ReportError, "give a file of a crashes folder"))
    content = document.check(TypeAdapter(_Content))
    rows = {name: _decode(document, name, text) for name in ROWS if (text := getattr(content, name)) is not None}
    size = rows["logits"].size
    for name, row in rows.items():
        if row.size != size:
            complaint = f"{name} has {row.size} values, logits have {size}"
            raise document.refuse(complaint, "expected a value for each token", (name,))
    for place, token in (
        (("token",), content.token),
        *((("history", index), id_) for index, id_ in enumerate(content.history)),
    ):
        if token >= size:
            raise document.refuse(f"{named(place)} = {token}", f"the logits have ids 0 to {size - 1}", place)
    try:
        config = SamplingConfig.parse(content.config)
    except ConfigError as error:
        raise document.refuse(f"config: {error.message}", error.hint, ("config",)) from error
    logits, uncond, gumbel, scores = (None if name not in rows else rows[name][None] for name in ROWS)
    assert logits is not None  # noqa: S101 - the schema requires it
    tokens = np.array([content.token], dtype=np.int64)
    step = Steps(logits, [content.history], (config,), uncond, gumbel=gumbel, tokens=tokens, scores=scores)
    return content.model_dump(), step


def _encode(values: NDArray[np.float32]) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _decode(document: Document, name: str, text: str) -> NDArray[np.float32]:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except ValueError as error:
        raise document.refuse(f"{name} is no row of float32 in base64: {error}", "was it cut off?", (name,)) from error
    if not len(values):
        raise document.refuse(f"{name} has no values", "was it edited?", (name,))
    return np.asarray(values)
