"""The process of an engine as the tool sees it: messages within a time limit, and an end with all its children."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from sampler.engines.wire import Message, read_message

SUPERVISOR = Path(__file__).with_name("supervisor.py")
STARVED = 10
"""On a busy machine a working call may take this many times its limit, until it has used that processor time."""

LOOK = 1.0
"""Seconds between two checks for progress."""

SECONDS_TO_REPORT = 3.0
"""Seconds from the end of an engine, whose memory is freed, to the report of its supervisor."""

PATIENCE = 10.0
"""Seconds that the supervisor has to end the engine and its children."""

TAIL = 4096
"""Bytes of the engine's output that are kept: the last ones."""

MOST_LINE = 200


class Late(Exception):
    """The time limit has passed."""


class EndedError(Exception):
    """The process ended; the text says how."""


class Effort:
    """The time limit of one call, which a late call may pass as long as it is working and not only waiting."""

    def __init__(self, seconds: float, spent: Callable[[], float]) -> None:
        self._seconds, self._spent = seconds, spent
        self._start, self._first = time.monotonic(), spent()
        self._seen, self._looked = self._first, self._start

    @property
    def wait(self) -> float:
        """Seconds until the next check."""
        left = self._start + self._seconds - time.monotonic()
        return left if left > 0 else LOOK

    def goes_on(self) -> bool:
        """Whether it worked since the last check and has not used its seconds of processor time yet."""
        now, spent = time.monotonic(), self._spent()
        works = spent - self._seen > 0.01 * (now - self._looked)
        self._seen, self._looked = spent, now
        return works and spent - self._first < self._seconds and now - self._start < STARVED * self._seconds


class EngineProcess:
    """A supervisor and, under it, the engine. memory: bytes that the engine and its children may use."""

    def __init__(self, memory: int) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(0)
        life, self._life = os.pipe()
        self._report, report = os.pipe()
        output, written = os.pipe()
        given = (theirs.fileno(), life, report)
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter
            [
                sys.executable,
                "-P",
                str(SUPERVISOR),
                json.dumps([str(place) for place in sys.path]),
                *map(str, given),
                str(memory),
            ],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            pass_fds=given,
            start_new_session=True,
        )
        theirs.close()
        for end in (life, report, written):
            os.close(end)
        self._engine: list[psutil.Process] = []
        self._looked = 0.0
        self._tail: deque[bytes] = deque(maxlen=2)
        threading.Thread(target=_drain, args=(output, self._tail), daemon=True).start()
        # However this object goes, and at the end of the interpreter, the processes go with it.
        self.close = weakref.finalize(self, _end, self._process, self._channel, self._life, self._report)

    def send(self, parts: Sequence[bytes], effort: Effort) -> None:
        """Write everything within the time limit. Raises Late and EndedError."""
        for part in parts:
            view = memoryview(part)
            while view:
                self._wait(effort, to_write=True)
                try:
                    view = view[self._channel.send(view) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise EndedError(self._how()) from error

    def receive(self, effort: Effort, most_bytes: int) -> Message:
        """The next message within the time limit. Raises Late, EndedError and GarbledError."""

        def read(view: memoryview) -> None:
            while view:
                self._wait(effort)
                try:
                    count = self._channel.recv_into(view)
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise EndedError(self._how()) from error
                if not count:
                    raise EndedError(self._how())
                view = view[count:]

        return read_message(read, most_bytes)

    def processor_time(self) -> float:
        """Processor time in seconds that the engine's processes have used on all cores."""
        if time.monotonic() - self._looked > LOOK:  # milliseconds: it reads every process of the system
            self._looked = time.monotonic()
            with contextlib.suppress(psutil.Error):
                self._engine = psutil.Process(self._process.pid).children(recursive=True)
        total = 0.0
        for process in self._engine:
            with contextlib.suppress(psutil.Error):  # it has ended, which the pipe reports
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _wait(self, effort: Effort, *, to_write: bool = False) -> None:
        """Wait until the channel can be used. Raises Late where the limit has passed and nothing is working."""
        channel = self._channel.fileno()
        poller = select.poll()
        poller.register(channel, select.POLLOUT if to_write else select.POLLIN)
        poller.register(self._report, select.POLLIN)
        while True:
            ready = {end for end, _ in poller.poll(1000 * effort.wait)}
            if channel in ready:  # an answer that was sent before the end counts
                return
            if ready:
                raise EndedError(self._how())
            if not effort.goes_on():
                raise Late

    def _how(self) -> str:
        """How the process ended, by its supervisor."""
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        if not poller.poll(1000 * SECONDS_TO_REPORT):
            return "it closed the channel of its process"
        report = os.read(self._report, 1000)
        how = json.loads(report) if report else {}
        if "memory" in how:
            return f"it used {how['memory'] / 2**30:.2g} GiB of memory, more than it may (--memory)"
        code = how.get("code")
        if code is None:
            return "its process ended, and what watches it as well"
        names = {number.value: number.name for number in signal.Signals}
        named = f"signal {-code} ({names.get(-code, 'unknown')})" if code < 0 else f"exit code {code}"
        said = self._said()
        return f"its process ended with {named}{f'; the last that it wrote: {said}' if said else ''}"

    def _said(self) -> str:
        """The last line that the process wrote, or where Python says that it crashed."""
        lines = [line.strip() for line in b"".join(self._tail)[-TAIL:].decode(errors="replace").splitlines()]
        crash = next((place for place, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
        if crash is not None:
            place = next((line for line in lines[crash:] if line.startswith("File ")), "")
            lines = [f"{lines[crash]} {place}"]
        last = next((line for line in reversed(lines) if line), "")
        return "".join(character if character.isprintable() else "?" for character in last[:MOST_LINE])


def _drain(output: int, tail: deque[bytes]) -> None:
    """Read what the engine's processes write, so that they never wait for it, and keep the end."""
    with open(output, "rb", buffering=0) as file:
        while part := file.read(TAIL):
            tail.append(part)


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket, life: int, report: int) -> None:
    """End the engine by closing the pipe that its supervisor watches; kill both where that does not help."""
    channel.close()
    os.close(life)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:  # it was stopped or is wedged
        found = []
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(process.pid).children(recursive=True)
        for each in (*found, process):
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait()
    os.close(report)
