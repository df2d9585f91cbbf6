"""Call an engine that may hang or crash: in this process with an alarm, or in a separate process."""

import contextlib
import functools
import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import psutil

from sampler.engines.base import Engine, EngineError
from sampler.engines.calls import Answer, Call, Interrupted, Method, Offer, describe, offer_of, perform
from sampler.errors import SamplerError

WARM_UP_TIMEOUT = 30.0
"""Time limit in seconds of an engine's very first call, which may import a framework or compile."""

FIRST_TIMEOUT = 10.0
"""Time limit until an engine has hung for the first time, and for its first call after a restart."""

NEXT_TIMEOUT = 3.0
MOST_HANGS = 4
"""An engine that hung this often is not called again."""

MOST_DEATHS = 4
"""A method that never answered is not called again after its process ended this often."""

MOST_DEATHS_BETWEEN = 30
"""Likewise for a method that answered at least once: each restart takes seconds."""

START_TIMEOUT = 120.0
"""Time limit for loading an engine."""

STARVED = 10
"""On a busy machine a working call may take this many times its limit, until it has used that processor time."""

LOOK = 1.0
"""Seconds between two checks for progress."""


class _Effort:
    """Whether a late call is working or only waiting."""

    def __init__(self, seconds: float, spent: Callable[[], float]) -> None:
        self._seconds, self._spent = seconds, spent
        self._start, self._first = time.monotonic(), spent()
        self._seen, self._looked = self._first, self._start

    def goes_on(self) -> bool:
        """Whether it worked since the last check and has not used its seconds of processor time yet."""
        now, spent = time.monotonic(), self._spent()
        works = spent - self._seen > 0.01 * (now - self._looked)
        self._seen, self._looked = spent, now
        return works and spent - self._first < self._seconds and now - self._start < STARVED * self._seconds


def _processor_time(number: int) -> float:
    """Processor time in seconds that a process has used on all cores."""
    try:
        times = psutil.Process(number).cpu_times()
    except psutil.Error:  # it has ended, which the pipe reports
        return 0.0
    return float(times.user + times.system)


class _Patience:
    """How long to wait for an engine, and whether to call it at all."""

    def __init__(self) -> None:
        self.hangs = 0
        self.deaths: Counter[Method] = Counter()
        self.answers: Counter[Method] = Counter()
        self.fresh = True

    @property
    def seconds(self) -> float:
        if not self.answers:
            return NEXT_TIMEOUT if self.hangs else WARM_UP_TIMEOUT
        return FIRST_TIMEOUT if self.fresh or not self.hangs else NEXT_TIMEOUT

    def answered(self, method: Method) -> None:
        self.answers[method] += 1
        self.fresh = False

    def refuse(self, method: Method) -> Answer | None:
        if self.hangs >= MOST_HANGS:
            return Answer(None, "given_up", f"not asked any more: {self.hangs} calls had no answer")
        deaths = self.deaths[method]
        if deaths >= (MOST_DEATHS_BETWEEN if self.answers[method] else MOST_DEATHS):
            reason = f"not asked any more: {method}() has ended its process {deaths} times"
            return Answer(None, "given_up", reason)
        return None

    def hung(self) -> Answer:
        answer = Answer(None, "hung", f"no answer within {self.seconds:g} s")
        self.hangs += 1
        return answer

    def died(self, method: Method, reason: str) -> Answer:
        self.deaths[method] += 1
        return Answer(None, "died", reason)


class Local:
    """Client of an engine in this process. On the main thread of a Unix system a hanging call is interrupted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.offer = offer_of(engine)
        self._patience = _Patience()

    def ask(self, call: Call) -> Answer:
        refused = self._patience.refuse(call.method)
        if refused:
            return refused
        try:
            with _alarm(self._patience.seconds):
                answer = _in_thread(self._engine, call) if call.thread else perform(self._engine, call)
        except Interrupted:
            return self._patience.hung()
        self._patience.answered(call.method)
        return answer


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise Interrupted after some seconds, if signals are available."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    effort = _Effort(seconds, time.process_time)

    def ring(_number: int, _frame: FrameType | None) -> None:
        if not effort.goes_on():
            raise Interrupted
        signal.setitimer(signal.ITIMER_REAL, LOOK)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _in_thread(engine: Engine, call: Call) -> Answer:
    answers: list[Answer] = []
    worker = threading.Thread(target=lambda: answers.append(perform(engine, call)), daemon=True)
    worker.start()
    worker.join()
    return answers[0] if answers else Answer(None, "died", "its thread ended without an answer")


class Isolated:
    """Client of an engine in a separate process, which is restarted after it hung or died.

    load: picklable, loads the engine there. Raises what `load` raises if it is a SamplerError.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._patience = _Patience()
        self._process: Any = None
        self._pipe: Connection | None = None
        self.offer = self._start()

    def ask(self, call: Call) -> Answer:
        refused = self._patience.refuse(call.method)
        if refused:
            return refused
        if self._pipe is None:
            try:
                self._start()
            except SamplerError as error:
                return Answer(None, "died", f"it cannot be started again: {error.message}")
        answer: Any = self._exchange(call, self._patience.seconds)
        if isinstance(answer, Answer):
            self._patience.answered(call.method)
            return answer
        broken = self._patience.hung() if answer is None else self._patience.died(call.method, str(answer))
        self._patience.fresh = True
        return broken

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _start(self) -> Offer:
        # spawn: a fork would copy the locks of threads that a framework has started in this process.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._load), daemon=True)
        self._process.start()
        theirs.close()
        answer = self._receive(START_TIMEOUT)
        if isinstance(answer, Offer):
            return answer
        if isinstance(answer, SamplerError):
            self.close()
            raise answer
        reason = f"it was not loaded within {START_TIMEOUT:g} s" if answer is None else str(answer)
        self.close()
        raise EngineError(f"the engine cannot be started: {reason}", hint="load it in Python to see where")

    def _exchange(self, call: Call, seconds: float) -> Any:
        assert self._pipe is not None  # noqa: S101 - ensured by ask
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died, which _receive reports
            self._pipe.send(call)
        return self._receive(seconds)

    def _receive(self, seconds: float) -> Any:
        """The received object, None after the time limit, a text if the process ended."""
        assert self._pipe is not None  # noqa: S101 - ensured by the callers
        effort = _Effort(seconds, functools.partial(_processor_time, self._process.pid))
        try:
            there = self._pipe.poll(seconds)
            while not there and effort.goes_on():
                there = self._pipe.poll(LOOK)
            if there:
                return self._pipe.recv()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self._process.join(1)
            code = self._process.exitcode
            self.close()
            how = f"with signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            return f"its process ended {how}"
        self.close()
        return None


def _serve(pipe: Connection, load: Callable[[], Engine]) -> None:
    """Answer calls until the pipe closes; runs in the engine's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent ends this process
    try:
        engine = load()
        pipe.send(offer_of(engine))
    except SamplerError as error:
        pipe.send(EngineError(error.message, hint=error.hint) if isinstance(error, EngineError) else error)
        return
    while True:
        try:
            call = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_in_thread(engine, call) if call.thread else perform(engine, call))
        except KeyboardInterrupt as error:  # raised by the engine itself, since SIGINT is ignored
            pipe.send(Answer(None, "raised", describe(error)))
