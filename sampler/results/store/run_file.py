"""A run as JSON lines: header, verdicts, footer; a file without a footer is rejected."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sampler.checks.verdict import Verdict
from sampler.errors import SamplerError
from sampler.runtime.files import Write, partial_of

FORMAT = "sampler-run/2"


class ReportError(SamplerError):
    """An incomplete or invalid run file."""


@dataclass(frozen=True)
class Run:
    """A complete run: header and footer as written, verdicts in order. checksum: SHA-256 of the file."""

    header: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    footer: dict[str, Any]
    checksum: str = ""


class RunWriter:
    """Writes one line at a time."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def header(self, content: dict[str, Any]) -> None:
        self.write("header", {"format": FORMAT, **content})

    def write(self, kind: str, content: dict[str, Any]) -> None:
        text = json.dumps({"kind": kind, **content}, allow_nan=False, ensure_ascii=False)
        # A lone surrogate, as in a file name, cannot be read back.
        readable = json.loads(text.encode("utf-8", "replace"))
        self._write(json.dumps(readable) + "\n")

    def verdict(self, verdict: Verdict) -> None:
        self.write("verdict", asdict(verdict))


def read_run(path: Path) -> Run:
    """Read a run. Raises ReportError for a truncated file, a wrong line or two verdicts of one case."""
    try:
        content = path.read_bytes()
        lines = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    except OSError as error:
        begun = partial_of(path).exists()
        hint = "a run into this folder goes on or was interrupted" if begun else "give the folder of a run"
        raise ReportError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise ReportError(f"{path} is no run: {error}", hint="was the run interrupted?") from error
    if not all(isinstance(line, dict) for line in lines):
        raise ReportError(f"{path} has a line that is no object", hint="expected header, verdicts, footer")
    kinds = [line.pop("kind", None) for line in lines]
    if kinds[:1] != ["header"] or lines[0].get("format") != FORMAT:
        raise ReportError(f"{path} has no header of the format {FORMAT}", hint="was it written by another version?")
    if kinds[-1] != "footer" or len(kinds) < 2:
        raise ReportError(f"{path} has no footer", hint="the run was interrupted; run it again")
    if set(kinds[1:-1]) - {"verdict"}:
        raise ReportError(
            f"{path} has a line of kind {min(set(kinds[1:-1]) - {'verdict'})!r}", hint="expected verdicts"
        )
    verdicts = _verdicts(path, lines[1:-1])
    case, count = Counter(verdict.case for verdict in verdicts).most_common(1)[0] if verdicts else ("", 0)
    if count > 1:
        raise ReportError(f"{path} has {count} verdicts of {case}", hint="were two runs joined?")
    counted, written = Counter(verdict.outcome for verdict in verdicts), lines[-1].get("verdicts")
    if counted != written:
        raise ReportError(f"{path} has verdicts {dict(counted)}, its footer says {written}", hint="were lines removed?")
    return Run(lines[0], verdicts, lines[-1], hashlib.sha256(content).hexdigest())


def _verdicts(path: Path, lines: list[dict[str, Any]]) -> tuple[Verdict, ...]:
    try:
        return tuple(TypeAdapter(list[Verdict]).validate_json(json.dumps(lines), strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReportError(
            f"{path}: verdict {place}: {first['msg']}", hint="was it written by another version?"
        ) from error
