"""The process in which spoiled files are read one after the other: a line of JSON on stdout for each."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from sampler.cli.app import app
from tests.tools.fuzzing.formats import FORMATS, Format
from tests.tools.fuzzing.mutations import Spoiled

MOST_MEMORY = 2 << 30
"""Bytes that a file may cost."""

ABSENT = ("nothing", "a link to nowhere")
LONGEST = 300
"""Characters of a message without its hint."""


class Place:
    """A folder with the right files of a format, one of which is spoiled and put right again."""

    def __init__(self, form: Format, folder: Path) -> None:
        self.form, self.folder = form, folder
        folder.mkdir()
        form.make(folder)
        self.target = folder / form.target
        self.right = self.target.read_bytes()

    @contextlib.contextmanager
    def holding(self, spoiled: Spoiled) -> Iterator[None]:
        self.target.unlink()
        if isinstance(spoiled.content, bytes):
            self.target.write_bytes(spoiled.content)
        else:
            spoiled.content(self.target)
        self.form.fit(self.folder)
        self.form.prepare(self.folder)
        try:
            yield
        finally:
            if self.target.is_dir() and not self.target.is_symlink():
                shutil.rmtree(self.target)
            else:
                self.target.unlink(missing_ok=True)
            self.target.write_bytes(self.right)
            self.form.fit(self.folder)


def spoiled_file(form: Format, right: bytes, seed: int, index: int) -> Spoiled:
    """The file of a number: every way to spoil in turn, all else by chance."""
    rng = random.Random(f"{seed} {form.name} {index}")
    return form.mutations[index % len(form.mutations)](right, rng)


def ask(command: tuple[str, ...], folder: Path, errors: Path) -> dict[str, Any]:
    """Run a command. complaint: what it should not have done, if anything."""
    sys.stderr.flush()
    with contextlib.chdir(folder):
        result = CliRunner().invoke(app, command)
    beside = errors.read_text(encoding="utf-8", errors="replace")
    os.truncate(errors, 0)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    raised = result.exception
    complaint = ""
    if raised is not None and not isinstance(raised, SystemExit):
        where = traceback.extract_tb(raised.__traceback__)[-1]
        complaint = (
            f"traceback: {type(raised).__name__}: {str(raised)[:80]!r} at {Path(where.filename).name}:{where.lineno}"
        )
    elif beside:
        complaint = f"printed beside its message: {beside[:100]!r}"
    elif result.exit_code not in (0, 1, 2, 3):
        complaint = f"exit code {result.exit_code}"
    elif result.exit_code == 2:
        complaint = _about(lines)
    return {"code": result.exit_code, "lines": lines, "complaint": complaint}


def _about(lines: list[str]) -> str:
    """What is wrong with a refusal."""
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines"
    message = re.sub(r" \([^()]*(\([^()]*\)[^()]*)*\)$", "", lines[0])
    return f"{len(message)} characters" if len(message) > LONGEST else ""


def judged(place: Place, spoiled: Spoiled, result: dict[str, Any]) -> str:
    """What was wrong with the answer to a spoiled file, if anything.

    A file that does not fit its neighbour may be named by either; weights that overflow, by the name of the engine.
    """
    names = {path.name for path in place.target.parent.iterdir()} | {place.target.stem, "core:tiny drew no token"}
    if result["complaint"]:
        return str(result["complaint"])
    code, line = result["code"], "".join(result["lines"])
    if spoiled.refused and code != 2 and not (place.form.is_optional and spoiled.label in ABSENT):
        return f"taken, exit code {code}"
    if code == 2 and not any(name in line for name in names):
        return "no file named"
    if code == 2 and spoiled.refused and spoiled.key and spoiled.key.strip() not in line:
        return "no key named"
    if code == 2 and spoiled.refused and spoiled.line and f"line {spoiled.line}" not in line:
        return "no line named"
    return ""


def limit_memory() -> None:
    """Let this process have MOST_MEMORY more than it has, so that nothing can take the machine down."""
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MOST_MEMORY, resource.RLIM_INFINITY))


def memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def read_all(form: Format, place: Place, numbers: range, seed: int, errors: Path) -> Iterator[dict[str, Any]]:
    for index in numbers:
        command = form.commands[index // len(form.mutations) % len(form.commands)]
        spoiled = spoiled_file(form, place.right, seed, index)
        yield {"begun": index, "label": spoiled.label}
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, start = memory("VmRSS"), time.perf_counter()
        with place.holding(spoiled):
            result = ask(command, place.folder, errors)
        peak = memory("VmHWM") - before
        complaint = judged(place, spoiled, result) or ("too much memory" if peak > MOST_MEMORY else "")
        yield {
            "index": index, "label": spoiled.label, "command": command, "code": result["code"],
            "lines": result["lines"], "complaint": complaint, "seconds": time.perf_counter() - start, "memory": peak,
        }  # fmt: skip


def main(folder: Path, seed: int) -> None:
    """Take jobs - format, first and last number - from stdin, one a line."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    errors = folder / "errors.txt"
    errors.touch()
    told_errors = os.fdopen(os.dup(2), "w", encoding="utf-8")
    sys.excepthook = lambda *error: traceback.print_exception(*error, file=told_errors)
    kept = os.open(errors, os.O_WRONLY | os.O_APPEND)
    os.dup2(kept, 2)
    os.dup2(kept, 1)
    places: dict[str, Place] = {}
    forms = {form.name: form for form in FORMATS}
    for line in sys.stdin:
        name, first, last = json.loads(line)
        form = forms[name]
        if name not in places:
            places[name] = Place(form, folder / re.sub(r"\W", "-", name))
            form.prepare(places[name].folder)
            for command in form.commands:  # which also imports what the command needs
                found = ask(command, places[name].folder, errors)
                if found["complaint"] or found["code"] == 2:
                    raise RuntimeError(f"the right file of {name} is not taken: {found}")
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            limit_memory()
        for found in read_all(form, places[name], range(first, last), seed, errors):
            print(json.dumps(found), file=told, flush=True)
        print(json.dumps({"done": name}), file=told, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
