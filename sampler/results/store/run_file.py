"""A run as JSON lines: header, verdicts, footer; a file without a footer is rejected."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sampler.checks.verdict import Verdict, exit_code, overall
from sampler.errors import SamplerError
from sampler.results.store.run_schema import FOOTER, FORMAT, HEADER, VERDICT
from sampler.runtime.files import Write, partial_of
from sampler.runtime.reading.document import Fault
from sampler.runtime.reading.json_text import parse
from sampler.runtime.reading.source import Source, short

T = TypeVar("T")
MOST_BYTES = 256 << 20
ANOTHER = "was it written by another version?"


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
    begun = partial_of(path).exists()
    hint = "a run into this folder goes on or was interrupted" if begun else "give the folder of a run"
    source = Source(path, ReportError, hint, MOST_BYTES)
    content = source.content()
    if not content.strip():
        raise source.refuse("has no header: it is empty", "the run was interrupted; run it again", join=" ")
    source = replace(source, hint="was the run interrupted?")
    lines = [
        Line(source, number, parse(source, line, number))
        for number, line in enumerate(source.decoded(content).removesuffix("\n").split("\n"), 1)
    ]
    for line in lines:
        if not isinstance(line.data, dict):
            raise line.refuse(f"is no object: {short(line.data)}", "expected header, verdicts, footer")
    first, *verdict_lines, last = lines if len(lines) > 1 else [*lines, *lines]
    if first.kind != "header" or first.data.get("format") != FORMAT:
        raise source.refuse(f"has no header of the format {FORMAT}", "was it written by another version?", join=" ")
    if last.kind != "footer":
        raise source.refuse("has no footer", "the run was interrupted; run it again", join=" ")
    for line in verdict_lines:
        if line.kind != "verdict":
            raise line.refuse(f"is of kind {short(line.kind)}", "expected verdicts")
    first.checked(HEADER)
    last.checked(FOOTER)
    verdicts = tuple(_verdict(line) for line in verdict_lines)
    case, count = Counter(verdict.case for verdict in verdicts).most_common(1)[0] if verdicts else ("", 0)
    if count > 1:
        raise source.refuse(f"has {count} verdicts of {short(case)}", "were two runs joined?", join=" ")
    _check_footer(last, verdicts)
    return Run(first.content, verdicts, last.content, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Line:
    """One line of a run file, and the errors about it."""

    source: Source
    number: int
    data: Any

    @property
    def kind(self) -> object:
        return self.data.get("kind")

    @property
    def content(self) -> dict[str, Any]:
        return {name: value for name, value in self.data.items() if name != "kind"}

    def refuse(self, complaint: str, hint: str = "") -> SamplerError:
        join = " " if complaint.startswith("is ") else ": "
        return self.source.refuse(complaint, hint or ANOTHER, self.number, join)

    def checked(self, adapter: TypeAdapter[T]) -> T:
        """The data by their schema, which lets keys pass that it does not know."""
        try:
            return adapter.validate_json(json.dumps(self.content), strict=True)
        except ValidationError as error:
            fault = Fault.of(error)
            if fault.kind == "missing":
                raise self.refuse(f"key {fault.key!r} is missing") from error
            raise self.refuse(f"{self.data['kind']}.{fault.key} = {short(fault.value)}", fault.says) from error


def _verdict(line: Line) -> Verdict:
    verdict = line.checked(VERDICT)
    for name, is_right, expected in (
        ("case", verdict.case.count("/") >= 2 and verdict.id.check == verdict.check, "matrix/cell/check, of its check"),
        ("n", verdict.n >= 0, "0 or more"),
        ("p_value", verdict.p_value is None or 0 <= verdict.p_value <= 1, "a probability"),
        ("alpha", verdict.alpha is None or 0 <= verdict.alpha <= 1, "a probability"),
        ("request", verdict.request is None or verdict.request >= 0, "0 or more"),
    ):
        if not is_right:
            raise line.refuse(f"verdict.{name} = {short(getattr(verdict, name))}", f"expected {expected}")
    return verdict


def _check_footer(line: Line, verdicts: Sequence[Verdict]) -> None:
    """What a footer says of the verdicts has to be so."""
    footer = line.content
    counted, written = dict(Counter(verdict.outcome for verdict in verdicts)), footer["verdicts"]
    if counted != written:
        complaint = f"the file has verdicts {counted}, its footer says {written}"
        raise line.refuse(complaint, "were lines removed?")
    whole = overall(verdicts)
    for name, value in (("outcome", whole), ("exit_code", exit_code(whole))):
        if footer.get(name) not in (None, value):
            raise line.refuse(f"footer.{name} = {footer[name]!r}, the verdicts make {value!r}", "was it edited?")
    unknown = set(footer.get("crashes", ())) - {verdict.case for verdict in verdicts}
    if unknown:
        raise line.refuse(f"footer.crashes names {short(min(unknown))}, which has no verdict", "was it edited?")
