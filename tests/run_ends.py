"""The end of a run, broken at its k-th file operation: a child process is killed there, or the operation fails.

`python -m tests.run_ends FOLDER MODE [PICTURES]` prints a line of JSON for every k; MODE is kill, ENOSPC, EACCES or
interrupt. Either the new run or the one before has pictures.
"""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sampler import SamplingConfig
from sampler.checks.verdict import Verdict
from sampler.cli.report import draw_page
from sampler.engines.base import EngineInfo
from sampler.errors import SamplerError
from sampler.matrix.matrix import Case, Workload
from sampler.requests import Generation, Record, Request, Steps
from sampler.results.report.html import write_report
from sampler.results.store.attachments import read_recorded
from sampler.results.store.crash import read_crash
from sampler.results.store.folder import Kept, page_of, settle
from sampler.results.store.run_file import read_run
from sampler.run.events import CaseResult, Finished, Judged, Started
from sampler.run.recorder import recorded

EMPTY = np.zeros(0, dtype=np.float32)
AUDITED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir", "os.listdir", "fcntl.flock"}
HEADER = {"engine": {"name": "made"}, "matrix": {"name": "made"}, "why": "Made by hand.", "checks": {}}


def write_run(folder: Path, seed: int, *, attention: bool) -> list[str]:
    """A run with two crash files and a page. Returns what was not put in place."""
    rows = np.full((2, 3, 4), 0.25, dtype=np.float32) if attention else None
    record = Record(EMPTY, EMPTY.astype(np.int32), EMPTY, EMPTY, 0, 1, attention=rows)
    engine = SimpleNamespace(info=EngineInfo(name="made", version="1", vocab_size=9))
    session = SimpleNamespace(engine=engine, engine_for=lambda case: engine)
    config, tokens = SamplingConfig(), (seed, 1, 2)
    verdicts = []
    with recorded(session, folder, draw_page) as recorder:
        recorder.take(Started(HEADER | {"seed": seed}, 2))
        for cell in ("a:1", "a:2"):
            failed = Verdict(f"made/{cell}/allowed", "draw", "allowed", "top_p", "failed", 3, 1.0, 0.0, message="wrong")
            verdicts.append(failed)
            logits = np.array([[1.0, 2.0, float(seed)]], dtype=np.float32)
            step = Steps(logits, [(1,)], [config], gumbel=logits, tokens=np.array([1]))
            made = [Request("One.", config, 0, 5)], [Generation(tokens, "eos", record)]
            case = Case("made", cell, config, Workload(prompts=["One."]))
            kept = made if cell == "a:1" and attention else ((), ())
            recorder.take(Judged(CaseResult(case, (failed,), {"allowed": step}, 3, 1.0, *kept)))
        recorder.take(Finished(verdicts, 6, 1.0))
    return [recorder.unsettled] if recorder.unsettled else []


class Break:
    """Counts the file operations of a process in a folder and breaks the k-th."""

    def __init__(self, folder: Path, at: int, strike: Callable[[], None]) -> None:
        self.folder, self.at, self.strike, self.count = str(folder), at, strike, 0

    def operation(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.strike()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in AUDITED and (event == "fcntl.flock" or str(arguments[0]).startswith(self.folder)):
            self.operation()

    def install(self) -> None:
        sys.addaudithook(self.audit)
        real_open, real_fsync = Path.open, os.fsync

        def opened(path: Path, mode: str = "r", *further: Any, **named: Any) -> Any:
            file = real_open(path, mode, *further, **named)
            return File(file, self) if "w" in mode and str(path).startswith(self.folder) else file

        def fsync(handle: int) -> None:
            self.operation()
            real_fsync(handle)

        Path.open, os.fsync = opened, fsync  # type: ignore[method-assign,assignment]


class File:
    """A file whose writes, and closing, are operations too; a broken write leaves half of it."""

    def __init__(self, file: Any, breaks: Break) -> None:
        self.file, self.breaks = file, breaks

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.breaks.operation()
        self.file.write(content[len(content) // 2 :])

    def close(self) -> None:
        self.breaks.operation()
        self.file.close()


def strike_of(mode: str) -> Callable[[], None]:
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def fail() -> None:
        number = getattr(errno, mode)
        raise OSError(number, os.strerror(number))

    return {"kill": kill, "interrupt": interrupt}.get(mode, fail)


def child(folder: Path, mode: str, at: int, answer: int, *, pictures: bool) -> None:
    """One run in a process of its own; writes what came of it into a pipe."""
    breaks = Break(folder, at, strike_of(mode))
    breaks.install()
    result: dict[str, Any] = {"ended": "kept"}
    try:
        result["unsettled"] = write_run(folder, 2, attention=pictures)
    except (SamplerError, KeyboardInterrupt) as error:
        result = {"ended": type(error).__name__, "message": str(error), "notes": getattr(error, "__notes__", [])}
    result["broken"] = breaks.count >= at
    os.write(answer, json.dumps(result).encode())
    os._exit(0)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def judged(folder: Path, before: dict[str, bytes]) -> dict[str, Any]:
    """What a reader finds: the run before or the new one, and each way in which it is not whole."""
    partial = [name for name in contents(folder) if name.endswith(".partial")]
    settled, problems = settle(folder), []
    if not (folder / "run.jsonl").exists():
        return {"holds": "nothing", "problems": [], "partial": partial}
    run, kept = read_run(folder / "run.jsonl"), Kept.of(folder)
    recorded_files = read_recorded(folder, run.footer["files"])
    problems += [f"missing {name}" for name in recorded_files.missing]
    problems += [name for name in kept.crashes if read_crash(folder / name)[0]["case"] not in run.footer["crashes"]]
    page = page_of(folder / "report.html")
    problems += ["the page is of another run"] if page not in (None, run.checksum) else []
    names = {"run.jsonl", *run.footer["files"], *run.footer["crashes"].values()} | ({"report.html"} if page else set())
    found = {name for name in contents(folder) if not name.endswith(".partial")}
    problems += [f"has {sorted(found)}, expected {sorted(names)}"] if found != names else []
    holds = {1: "old", 2: "new"}[run.header["seed"]]
    if holds == "old":
        same = {name: content for name, content in contents(folder).items() if not name.endswith(".partial")}
        problems += ["the earlier run was changed"] if same != before else []
    return {"holds": holds, "problems": problems, "partial": partial, "settled": settled, "page": bool(page)}


def breaks(folder: Path, mode: str, *, pictures: bool) -> Iterator[dict[str, Any]]:
    """Break one run after the other, at operation 1, 2, ... until one comes to its end unbroken."""
    old = folder / "old"
    write_run(old, 1, attention=not pictures)
    write_run(folder / "warm", 1, attention=True)  # what is imported at first use is no operation of the run
    before = contents(old)
    for at in range(1, 1_000):
        place = folder / f"{mode}-{at}"
        shutil.copytree(old, place)
        result = broken(place, mode, at, pictures=pictures) | {"at": at} | judged(place, before)
        if at % 9 == 0:
            write_report(place)
        if at % 4 == 1 or not result["broken"]:  # the next run is not disturbed by what is left
            write_run(place, 2, attention=False)
            result["next"] = judged(place, before)
        yield result
        shutil.rmtree(place)
        if not result["broken"]:
            return


def broken(place: Path, mode: str, at: int, *, pictures: bool) -> dict[str, Any]:
    """What came of a run that was broken at one operation."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        child(place, mode, at, writing, pictures=pictures)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitpid(process, 0)[1]
    killed = {"ended": "killed" if os.WIFSIGNALED(status) else "crashed", "broken": True}
    return json.loads(text) if text else killed


if __name__ == "__main__":
    for found in breaks(Path(sys.argv[1]), sys.argv[2], pictures="PICTURES" in sys.argv):
        print(json.dumps(found), flush=True)  # noqa: T201
