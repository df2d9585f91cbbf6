"""Call an engine that may hang or crash: in this process with an alarm, or in a separate process."""

import contextlib
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

from sampler import errors
from sampler.engines.base import Engine, EngineError
from sampler.engines.calls import (
    Answer,
    Call,
    Interrupted,
    Method,
    Offer,
    OnStep,
    ignore_step,
    in_thread,
    most_bytes,
    offer_of,
    perform,
)
from sampler.engines.generations import checked_generations
from sampler.engines.limits import DEFAULT_LIMITS, Limits
from sampler.engines.process import LOOK, Effort, EndedError, EngineProcess, Late
from sampler.engines.serving import LENGTH
from sampler.engines.wire import GARBLED, GarbledError, Message, read_answer, read_offer
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

MOST_OFFER = 2**20
"""Bytes of the first message of an engine's process."""


class _Patience:
    """How long to wait for an engine, and whether to call it at all."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.hangs = 0
        self.deaths: Counter[Method] = Counter()
        self.answers: Counter[Method] = Counter()
        self.fresh = True

    def seconds(self, call: Call) -> float:
        if call.method == "generate":
            return self._limits.to_generate(call.arguments["requests"])
        if self._limits.timeout is not None:
            return self._limits.timeout
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

    def hung(self, call: Call) -> Answer:
        more = " (--timeout gives it more)" if call.method == "generate" else ""
        answer = Answer(None, "hung", f"no answer within {self.seconds(call):g} s{more}")
        self.hangs += 1
        return answer

    def died(self, method: Method, reason: str) -> Answer:
        self.deaths[method] += 1
        return Answer(None, "died", reason)


class Local:
    """Client of an engine in this process. On the main thread of a Unix system a hanging call is interrupted."""

    def __init__(self, engine: Engine, limits: Limits = DEFAULT_LIMITS) -> None:
        self._engine = engine
        self.offer = offer_of(engine)
        self._patience = _Patience(limits)

    def ask(self, call: Call, on_step: OnStep = ignore_step) -> Answer:
        refused = self._patience.refuse(call.method)
        if refused:
            return refused
        try:
            with _alarm(self._patience.seconds(call)):
                answer = in_thread(self._engine, call) if call.thread else perform(self._engine, call, on_step)
        except Interrupted:
            return self._patience.hung(call)
        self._patience.answered(call.method)
        return answer


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise Interrupted after some seconds, if signals are available."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    effort = Effort(seconds, time.process_time)

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


class Isolated:
    """Client of an engine in a separate process, which is restarted after it hung or died.

    load: picklable, loads the engine there. Raises what `load` raises if it is a SamplerError.
    """

    def __init__(self, load: Callable[[], Engine], limits: Limits = DEFAULT_LIMITS) -> None:
        self._load, self._limits = load, limits
        self._patience = _Patience(limits)
        self._process: EngineProcess | None = None
        self._number = 0
        self.offer = self._start()

    def ask(self, call: Call, on_step: OnStep = ignore_step) -> Answer:
        refused = self._patience.refuse(call.method)
        if refused:
            return refused
        try:
            if self._process is None:
                self._start()
        except SamplerError as error:
            return self._patience.died(call.method, f"it cannot be started again: {error.message}")
        try:
            answer = self._exchange(call, self._patience.seconds(call), on_step)
        except Late:
            broken = self._patience.hung(call)
        except (EndedError, GarbledError) as error:
            broken = self._patience.died(call.method, str(error))
        except BaseException:  # of the user, in the middle of a message
            self.close()
            raise
        else:
            self._patience.answered(call.method)
            return answer
        self.close()
        self._patience.fresh = True
        return broken

    def close(self) -> None:
        """End the process of the engine and all its children."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def _start(self) -> Offer:
        seconds = START_TIMEOUT if self._limits.timeout is None else self._limits.timeout
        self._process = EngineProcess(self._limits.bytes)
        try:
            return _offer(self._send_and_receive(pickle.dumps(self._load, 5), seconds, MOST_OFFER))
        except Late:
            error = EngineError(f"it was not loaded within {seconds:g} s", hint="--timeout gives it more")
        except (EndedError, GarbledError) as problem:
            error = EngineError(f"the engine cannot be started: {problem}", hint="load it in Python to see where")
        except BaseException:
            self.close()
            raise
        self.close()
        raise error

    def _exchange(self, call: Call, seconds: float, on_step: OnStep) -> Answer:
        self._number += 1
        most = most_bytes(call, self.offer.info)
        content = pickle.dumps((self._number, call), 5)
        message = self._send_and_receive(content, seconds, most, on_step)
        if message.kind != "answer" or message.call != self._number:
            raise GarbledError(GARBLED)
        answer = read_answer(message)
        if call.method != "generate" or answer.failure:
            return answer
        try:
            checked = checked_generations(answer.generations, call.arguments["requests"], self.offer.info)
        except (ValueError, TypeError) as error:
            return Answer(None, "type", str(error))
        return replace(answer, generations=tuple(checked))

    def _send_and_receive(self, content: bytes, seconds: float, most: int, on_step: OnStep = ignore_step) -> Message:
        """Send a pickle and return the next message that is no progress."""
        process = self._process
        assert process is not None  # noqa: S101 - ensured by the callers
        effort = Effort(seconds, process.processor_time)
        process.send((LENGTH.pack(len(content)), content), effort)
        while (message := process.receive(effort, most)).kind == "progress":
            tokens, finished = (message.content.get(name) for name in ("tokens", "finished"))
            if message.call != self._number or type(tokens) is not int or type(finished) is not int:
                raise GarbledError(GARBLED)
            on_step(max(0, tokens), max(0, finished))
        return message


def _offer(message: Message) -> Offer:
    """What an engine offers. Raises what its process could not load it for."""
    if message.kind == "offer":
        return read_offer(message.content)
    raise error_of(*(str(message.content.get(part, "")) for part in ("error", "message", "hint")))


def error_of(name: str, message: str, hint: str) -> SamplerError:
    """An error of `sampler.errors` by the name of its class; EngineError for any other."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, SamplerError):
        return found(message, hint=hint)
    return EngineError(message, hint=hint)
