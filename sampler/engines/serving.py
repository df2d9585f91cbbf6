"""The engine's side of the channel: calls come as pickles from the tool, answers go as messages of plain values."""

import faulthandler
import pickle
import socket
import struct
import time
from typing import Any

from sampler.engines.base import Engine, EngineError
from sampler.engines.calls import Answer, describe, in_thread, offer_of, perform
from sampler.engines.wire import Message, answer_message, offer_message
from sampler.errors import SamplerError

LENGTH = struct.Struct("<Q")
"""Before each pickle: its number of bytes."""

SECONDS_BETWEEN = 0.1
"""Between two reports of progress."""


def serve(channel: int) -> None:
    """Load the engine and answer calls until the channel closes."""
    faulthandler.enable()  # where a crash happened goes to stderr, whose last lines the tool shows
    server = _Server(socket.socket(fileno=channel))
    engine = server.load()
    while engine is not None:
        server.answer(engine)


class _Server:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._tokens = self._finished = 0
        self._told = 0.0

    def load(self) -> Engine | None:
        """The engine, announced with what it offers; None if it cannot be loaded, which is announced too."""
        try:
            engine: Engine = self._receive()()
            self._send(offer_message(offer_of(engine)))
        except SamplerError as error:
            self._refuse(type(error).__name__, str(error.message), str(error.hint))
        except BaseException as error:  # noqa: BLE001 - its info may raise anything
            self._refuse(EngineError.__name__, f"the engine cannot be started: {describe(error)}", "call it in Python")
        else:
            return engine
        return None

    def answer(self, engine: Engine) -> None:
        number, call = self._receive()
        self._tokens = self._finished = 0

        def on_step(tokens: int, finished: int) -> None:
            self._tokens += int(tokens)
            self._finished += int(finished)
            if time.monotonic() - self._told > SECONDS_BETWEEN:
                self._progress(number)

        try:
            answer = in_thread(engine, call) if call.thread else perform(engine, call, on_step)
        except KeyboardInterrupt as error:  # raised by the engine itself: the terminal's does not come here
            answer = Answer(None, "raised", describe(error))
        if self._tokens or self._finished:
            self._progress(number)
        self._send(answer_message(answer, number))

    def _progress(self, number: int) -> None:
        self._send(Message("progress", number, {"tokens": self._tokens, "finished": self._finished}))
        self._tokens = self._finished = 0
        self._told = time.monotonic()

    def _refuse(self, name: str, message: str, hint: str) -> None:
        self._send(Message("refused", 0, {"error": name, "message": message, "hint": hint}))

    def _receive(self) -> Any:
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return pickle.loads(self._read(length))  # noqa: S301 - from the tool

    def _read(self, length: int) -> bytearray:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            count = self._channel.recv_into(view)
            if not count:
                raise SystemExit
            view = view[count:]
        return buffer

    def _send(self, message: Message) -> None:
        for part in message.parts():
            self._channel.sendall(part)
