"""Reads spoiled files in processes of their own, which are ended and begun again when one hangs or dies."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

LONGEST = 30.0
"""Seconds for one file, on a machine that is busy with other things."""

START = 120.0
"""Seconds for imports and the first right files."""


@dataclass
class Finding:
    """A file that was not read as it should be. index: with the seed and the format, it makes the file again."""

    format: str
    index: int
    label: str
    complaint: str
    line: str = ""


@dataclass
class Outcome:
    """All files of one format. codes: how often each exit code; memory: the largest peak, in bytes."""

    format: str
    files: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    memory: int = 0
    longest: float = 0.0
    seconds: float = 0.0


class Child:
    """A process that reads files, and its output line by line."""

    def __init__(self, seed: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="spoiled-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.tools.fuzzing.child", self._folder.name, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self._rest = b""

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._folder.cleanup()

    def ask(self, name: str, first: int, last: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, first, last]).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None if the process ended or said nothing for so long."""
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            if not select.select([self._process.stdout], [], [], seconds)[0]:
                return None
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                return None
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def fate(self) -> str:
        try:
            return f"ended the process with {self._process.wait(1)}"
        except subprocess.TimeoutExpired:
            return f"hung for {LONGEST:g} s"


def _answers(child: Child, outcome: Outcome, last: int) -> tuple[int, bool]:
    """Take answers until one is missing; returns the number of the file after it, and whether none was."""
    begun: dict[str, Any] | None = None
    while (found := child.answer(LONGEST if begun else START)) is not None:
        if "done" in found:
            return last, True
        if "begun" in found:
            begun = found
            continue
        _add(outcome, found)
    if begun is None:
        raise RuntimeError(f"{outcome.format}: the right files could not be read: {child.fate}")
    finding = Finding(outcome.format, begun["begun"], begun["label"], child.fate)
    outcome.findings.append(finding)
    outcome.files += 1
    return finding.index + 1, False


def _add(outcome: Outcome, found: dict[str, Any]) -> None:
    outcome.files += 1
    outcome.codes[found["code"]] += 1
    outcome.memory = max(outcome.memory, found["memory"])
    outcome.longest = max(outcome.longest, found["seconds"])
    outcome.seconds += found["seconds"]
    if found["complaint"]:
        line = " | ".join(found["lines"])[:400]
        finding = Finding(outcome.format, found["index"], found["label"], found["complaint"], line)
        outcome.findings.append(finding)


def read_all(names: Sequence[str], each: int, seed: int) -> Iterator[Outcome]:
    """Read so many files of each format, in another process after each file that made one hang or end."""
    child: Child | None = None
    try:
        for name in names:
            outcome, first = Outcome(name), 0
            while first < each:
                child = child or Child(seed)
                child.ask(name, first, each)
                first, is_alive = _answers(child, outcome, each)
                if not is_alive:
                    child.close()
                    child = None
            yield outcome
    finally:
        if child is not None:
            child.close()
