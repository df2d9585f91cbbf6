"""Start the process of an engine, and end it with all its children: with the tool, or where it takes too much memory.

Run by its path, `python -P supervisor.py SYS_PATH CHANNEL LIFE REPORT MEMORY`, before anything is imported, since it
forks. The supervisor adopts processes that the engine leaves behind (Linux), so that those in sessions of their own are
found too. It ends when its end of the pipe LIFE does: the tool holds the other end, and however the tool ends, the
system closes it. It writes to the pipe REPORT how the engine ended. MEMORY: bytes that all of them may use, 0: any.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

TICK = 0.05
"""Seconds between two looks at the memory of the known processes."""

TICKS_TO_SCAN = 5
"""A look at all processes of the system, for new children, takes milliseconds: one in so many ticks."""

LONGEST_END = 5.0
"""Seconds until processes that cannot be killed are left alone."""

ADOPT, WITH_PARENT = 36, 1
"""Linux: PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG."""

IS_LINUX = sys.platform == "linux"


def main() -> None:
    """Fork: the child becomes the engine, this process watches it."""
    channel, life, report, memory = map(int, sys.argv[2:])
    own = os.getpid()
    if IS_LINUX:
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
    engine = os.fork()
    if engine == 0:
        for end in (life, report):
            os.close(end)
        _become_the_engine(channel, own)
        return
    os.close(channel)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    how = _watch(engine, life, memory)
    _end_all(engine)
    with suppress(OSError):  # the tool may be gone
        os.write(report, json.dumps(how).encode())


def _become_the_engine(channel: int, supervisor: int) -> None:
    os.setsid()  # neither the terminal's Ctrl-C nor a signal to the supervisor's group is for the engine
    if IS_LINUX:
        ctypes.CDLL(None).prctl(WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            return
        with suppress(OSError):  # where memory ends before the limit, the engine is ended and not the tool
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    sys.path[:] = json.loads(sys.argv[1])
    from sampler.engines.serving import serve

    serve(channel)


def _watch(engine: int, life: int, memory: int) -> dict[str, int]:
    """Wait until the engine ends, the tool ends, or there is too much memory in use."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    known, tick = [engine], 0
    while True:
        readable, _, _ = select.select([life, woken], [], [], TICK)
        if woken in readable:
            os.read(woken, 4096)
        for number, status in _ended():
            if number == engine:
                return {"code": os.waitstatus_to_exitcode(status)}
        if life in readable:
            return {}
        if not memory:
            continue
        tick += 1
        if tick % TICKS_TO_SCAN == 0:
            known = _descendants()
        if _memory(known) > memory and (used := _shared_memory(known)) > memory:
            return {"memory": used}


def _ended() -> list[tuple[int, int]]:
    """Number and status of the children that ended."""
    found = []
    with suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


def _descendants() -> list[int]:
    if not IS_LINUX:
        import psutil

        return [process.pid for process in psutil.Process().children(recursive=True)]
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names alone
        if name.isdigit():
            with suppress(OSError):
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[1])
    found, above = [], [os.getpid()]
    while above:
        above = [number for number, parent in parents.items() if parent in above]
        found += above
    return found


def _memory(numbers: Iterable[int]) -> int:
    """Bytes that processes use; files that they map are not counted, what they share counts in each."""
    numbers = list(numbers)
    if not IS_LINUX:
        import psutil

        total = 0
        for number in numbers:
            with suppress(psutil.Error):
                total += psutil.Process(number).memory_info().rss
        return total
    return sum(_kilobytes(number, "status", ("RssAnon:", "RssShmem:", "VmSwap:")) for number in numbers) * 1024


def _shared_memory(numbers: Iterable[int]) -> int:
    """As `_memory`, with pages that processes share counted once; on Linux it takes long for large processes."""
    if not IS_LINUX:
        return _memory(numbers)
    return sum(_kilobytes(number, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")) for number in numbers) * 1024


def _kilobytes(number: int, file: str, names: Sequence[str]) -> int:
    with suppress(OSError):
        lines = (line.split() for line in Path(f"/proc/{number}/{file}").read_text(encoding="ascii").splitlines())
        return sum(int(line[1]) for line in lines if line and line[0] in names)
    return 0


def _end_all(engine: int) -> None:
    """Kill every descendant until there is none, and the engine's process group where none are adopted."""
    last = time.monotonic() + LONGEST_END
    if not IS_LINUX:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(engine, signal.SIGKILL)
    while (found := _descendants()) and time.monotonic() < last:
        for number in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        _ended()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
