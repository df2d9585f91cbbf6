"""Crash files: one failing step, complete, so that it shows the failure on any backend."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.checks.verdict import Step, Verdict
from sampler.config import SamplingConfig
from sampler.errors import ConfigError
from sampler.results.store.run_file import ReportError
from sampler.runtime.files import output_errors

FORMAT: Final = "sampler-crash/1"
FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")


def write_crashes(folder: Path, failures: Sequence[tuple[Verdict, Step]]) -> dict[str, Path]:
    """Write `folder/crashes/<fingerprint>.json` for each failure.

    The name follows from the content, so a failure has one file. Returns the file of each case id.
    """
    crashes = folder / "crashes"
    with output_errors(crashes):
        if failures:
            crashes.mkdir(parents=True, exist_ok=True)
        return {verdict.case: _write(crashes, verdict, step) for verdict, step in failures}


def remove_crashes(folder: Path, keep: Iterable[Path]) -> int:
    """Remove the crash files of an earlier run from `folder/crashes`, and no other file. Returns how many."""
    kept, count = set(keep), 0
    with output_errors(folder / "crashes"):
        for path in (folder / "crashes").glob("*.json"):
            if path not in kept and FINGERPRINT.fullmatch(path.stem) and f'"{FORMAT}"' in path.read_text("utf-8")[:60]:
                path.unlink()
                count += 1
    return count


def _write(crashes: Path, verdict: Verdict, step: Step) -> Path:
    content = {
        "format": FORMAT,
        "case": verdict.case,
        "check": verdict.check,
        "stage": verdict.stage,
        "message": verdict.message,
        "reproduce": verdict.reproduce,
        "config": str(step.config),
        "history": list(step.history),
        "token": step.token,
        "logits": _encode(step.logits),
        "uncond_logits": None if step.uncond_logits is None else _encode(step.uncond_logits),
        "gumbel": _encode(step.gumbel),
        "scores": None if step.scores is None else _encode(step.scores),
    }
    text = json.dumps(content, indent=1)
    path = crashes / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
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


def read_crash(path: Path) -> tuple[dict[str, Any], Step]:
    """Read a crash file: what it says about the failure, and the step. Raises ReportError."""
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
    rows = {
        name: None if text is None else _decode(path, text, size)
        for name, text in (
            ("uncond_logits", content.uncond_logits),
            ("gumbel", content.gumbel),
            ("scores", content.scores),
        )
    }
    if not content.token < size:
        raise ReportError(f"{path}: token = {content.token}", hint=f"the logits have ids 0 to {size - 1}")
    try:
        config = SamplingConfig.parse(content.config)
    except ConfigError as error:
        raise ReportError(f"{path} is no crash file: config: {error.message}", hint=error.hint) from error
    step = Step(
        config=config,
        history=tuple(content.history),
        logits=_decode(path, content.logits),
        uncond_logits=rows["uncond_logits"],
        gumbel=np.asarray(rows["gumbel"]),
        token=content.token,
        scores=rows["scores"],
    )
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
