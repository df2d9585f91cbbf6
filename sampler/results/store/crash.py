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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.checks.verdict import Verdict
from sampler.config import SamplingConfig
from sampler.errors import ConfigError
from sampler.requests import Steps
from sampler.results.store.run_file import ReportError
from sampler.runtime.files import output_errors, write_whole

FORMAT: Final = "sampler-crash/1"
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
            if ours and _has_the_format(path):
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
        **{
            name: None if (rows := getattr(step, name)) is None else _encode(rows[0])
            for name in ("logits", "uncond_logits", "gumbel", "scores")
        },
    }
    text = json.dumps(content, indent=1)
    path = crashes / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    write(path, text)
    return path


class _Content(BaseModel):
    """The shape of a crash file."""

    model_config = ConfigDict(strict=True)
    format: Literal["sampler-crash/1"]
    case: str
    check: str
    stage: str
    message: str
    config: str
    history: list[Annotated[int, Field(ge=0)]]
    token: Annotated[int, Field(ge=0)]
    logits: str
    uncond_logits: str | None
    gumbel: str
    scores: str | None


def read_crash(path: Path) -> tuple[dict[str, Any], Steps]:
    """Read a crash file: the description of the failure, and the step. Raises ReportError."""
    try:
        content = _Content.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}", hint="give a crash file") from error
    except ValidationError as error:
        first = error.errors()[0]
        complaint = ": ".join(filter(None, [".".join(str(part) for part in first["loc"]), first["msg"]]))
        raise ReportError(f"{path} is no crash file: {complaint}", hint="was it cut off?") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is no crash file: {error.reason}", hint="give a file of a crashes folder") from error
    size = len(_decode(path, content.logits))
    uncond, gumbel, scores = (
        None if text is None else _decode(path, text, size)[None]
        for text in (content.uncond_logits, content.gumbel, content.scores)
    )
    if not content.token < size:
        raise ReportError(f"{path}: token = {content.token}", hint=f"the logits have ids 0 to {size - 1}")
    try:
        config = SamplingConfig.parse(content.config)
    except ConfigError as error:
        raise ReportError(f"{path} is no crash file: config: {error.message}", hint=error.hint) from error
    logits = _decode(path, content.logits)[None]
    tokens = np.array([content.token], dtype=np.int64)
    step = Steps(logits, [content.history], (config,), uncond, gumbel=gumbel, tokens=tokens, scores=scores)
    return content.model_dump(), step


def _encode(values: NDArray[np.float32]) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _decode(path: Path, text: str, size: int | None = None) -> NDArray[np.float32]:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except ValueError as error:
        raise ReportError(f"{path} is no crash file: {error}", hint="was it cut off?") from error
    if not len(values):
        raise ReportError(f"{path} is no crash file: a row of it is empty", hint="was it edited?")
    if size not in (None, len(values)):
        raise ReportError(f"{path} is no crash file: rows of {size} and {len(values)} values", hint="was it edited?")
    return np.asarray(values)
