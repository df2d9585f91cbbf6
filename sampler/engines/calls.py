"""One call of an engine, and its answer, which never raises; checks use nothing else of an engine."""

import copy
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines import capabilities
from sampler.engines.arrays import plain_array
from sampler.engines.base import Context, Engine, EngineInfo, Generation, Request, by_signature, takes_context
from sampler.errors import SamplerError, Unsupported

Method = Literal["process", "draw", "pick", "predict", "generate", "validate", "pieces"]
Failure = Literal["unsupported", "given_up", "raised", "hung", "died", "type", "invalid"]
"""given_up: the engine hung or ended too often and is not called again. invalid: it refuses the requests."""

OnStep = Callable[[int, int], None]
"""Gets the numbers of drawn tokens and of finished requests in a step."""

MOST_TEXT = 300
"""Characters of an engine's error message that are shown."""

MOST_VOCABULARY, MOST_ATTENTION, MEBIBYTE = 2**18, 2**15, 2**20
"""Tokens of an engine that does not say how many it has; numbers of attention that it may record for each token."""

OWN_FOLDER = str(Path(__file__).parents[1])


class Interrupted(BaseException):
    """Raised by the alarm in a call that takes too long."""


def ignore_step(tokens: int, finished: int) -> None:
    """Ignore the progress of a generation."""


@dataclass(frozen=True)
class Call:
    """Arguments by name, in the order of the protocol; those that are None are left out.

    thread: call in a new thread, as a server does. context: for engines whose signature has it. variant: the
    rules that the engine follows in this call, if it can.
    """

    method: Method
    arguments: Mapping[str, Any]
    context: Context | None = None
    thread: bool = False
    then: "Call | None" = None
    """A second call while the first answer is held: an engine must not change its earlier answer."""

    variant: str = ""
    records: tuple[bool, bool] | None = None
    """Whether records are to have logits, and attention; None: as they are."""


@dataclass(frozen=True)
class Answer:
    """value: the array, None with a failure. wrote: the names of the arguments that were changed.

    generations, pieces: results of these methods, with value None. error: class and hint of an `invalid`.
    """

    value: NDArray[Any] | None
    failure: Failure | None = None
    message: str = ""
    wrote: tuple[str, ...] = ()
    generations: tuple[Generation, ...] = ()
    pieces: tuple[str, ...] = ()
    error: tuple[str, str] = ("", "")


def most_bytes(call: Call, info: EngineInfo) -> int:
    """The largest answer that is read: a few times of what it should be, in the widest numbers."""
    given, size = call.arguments, info.vocab_size or MOST_VOCABULARY
    numbers = sum(value.size for value in given.values() if isinstance(value, np.ndarray)) + given.get("n", 0)
    if call.method == "predict":
        numbers += 2 * size * (len(given["tokens"]) + 1)
    if call.method == "generate":
        numbers += sum(2 * (size + MOST_ATTENTION) * (each.max_new_tokens + 1) for each in given["requests"])
    return int(MEBIBYTE + 32 * numbers)


def refusal(answer: Answer) -> Unsupported | None:
    """Why an engine refused a call without an error; None for every other answer."""
    if answer.failure == "unsupported":
        return Unsupported(answer.message, reason="refused")
    return Unsupported(answer.message, reason="after_failure") if answer.failure == "given_up" else None


def raise_refusal(answer: Answer) -> None:
    """Raise Unsupported if `refusal` has a reason."""
    refused = refusal(answer)
    if refused is not None:
        raise refused


@dataclass(frozen=True)
class Offer:
    """An engine's info, the methods of the protocols and of `capabilities` that it has, and its traits.

    contexts: the methods that take the keyword `context`.
    """

    info: EngineInfo
    methods: frozenset[str] = field(default_factory=frozenset)
    further: frozenset[str] = field(default_factory=frozenset)
    width: int | None = None
    bitwise: bool = False
    weights_checksum: str | None = None
    records_attention: bool = True
    contexts: frozenset[str] = frozenset()


class EngineClient(Protocol):
    """Sends calls to an engine, in this process or another."""

    @property
    def offer(self) -> Offer: ...

    def ask(self, call: Call, on_step: OnStep = ignore_step) -> Answer:
        """Send one call; never raises, whatever the engine does. on_step: for `generate`."""


METHODS = ("process", "draw", "pick", "predict", "generate")
FURTHER = ("following", "recording", "validate", "pieces")


def offer_of(engine: Engine) -> Offer:
    """Find out which methods and traits an engine has. The info is a copy, which the engine cannot change any more."""
    width = capabilities.slots_of(engine)
    checksum = capabilities.weights_of(engine)
    methods = frozenset(name for name in METHODS if callable(getattr(engine, name, None)))
    return Offer(
        replace(engine.info),
        methods,
        frozenset(name for name in FURTHER if callable(getattr(engine, name, None))),
        None if width is None else int(width),
        capabilities.is_bitwise(engine),
        None if checksum is None else str(checksum),
        getattr(engine, "records_attention", True) is not False,
        frozenset(name for name in methods if takes_context(getattr(engine, name))),
    )


def perform(engine: Engine, call: Call, on_step: OnStep = ignore_step) -> Answer:
    """Call the engine with copies of the arguments and return the result. Only interruptions are raised."""
    lent = {name: _lend(value) for name, value in call.arguments.items()}
    try:
        if call.method in ("generate", "validate", "pieces"):
            return _perform_whole(engine, call, lent, on_step)
        if call.method == "predict" and call.variant:
            engine = capabilities.following(engine, call.variant, "")
        method: Callable[..., Any] = getattr(engine, call.method)
        left_out = () if _takes(method, "language") else ("language",)
        further = {"context": _lend(call.context)} if call.context is not None and takes_context(method) else {}
        given = {name: value for name, value in lent.items() if value is not None and name not in left_out}
        arguments, named = by_signature(method, given)
        raw = method(*arguments, **named, **further)
        returned = plain_array(raw)
        if call.then is not None and not isinstance(returned, str):
            perform(engine, call.then)
            if not np.array_equal(plain_array(raw), returned, equal_nan=returned.dtype.kind == "f"):
                return Answer(returned, wrote=("the scores of the call before",))
        wrote = _written(call.arguments, lent)
    except Unsupported as error:
        return Answer(None, "unsupported", error.message)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # noqa: BLE001 - an engine may raise anything; other checks still run
        return Answer(None, "raised", describe(error))
    if isinstance(returned, str):
        return Answer(None, "type", returned, wrote)
    return Answer(returned, wrote=wrote)


def in_thread(engine: Engine, call: Call) -> Answer:
    """Call the engine in a new thread."""
    answers: list[Answer] = []
    worker = threading.Thread(target=lambda: answers.append(perform(engine, call)), daemon=True)
    worker.start()
    worker.join()
    return answers[0] if answers else Answer(None, "died", "its thread ended without an answer")


def _perform_whole(engine: Engine, call: Call, lent: Mapping[str, Any], on_step: OnStep) -> Answer:
    """The methods that take requests."""
    if call.variant:
        engine = capabilities.following(engine, call.variant, "")
    if call.records is not None:
        engine = capabilities.recording(engine, logits=call.records[0], attention=call.records[1])
    if call.method == "generate":
        return Answer(None, generations=tuple(capabilities.generate(engine, lent["requests"], on_step)))
    try:
        if call.method == "validate":
            capabilities.validate(engine, lent["requests"], lent["processes"])
            return Answer(None)
        return Answer(None, pieces=tuple(map(str, capabilities.pieces_of(engine, lent["request"]))))
    except Unsupported:
        raise
    except SamplerError as error:
        return Answer(None, "invalid", error.message, error=(type(error).__name__, error.hint))


def describe(error: BaseException) -> str:
    """Type, message and the line of the engine's own code that raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OWN_FOLDER)]
    own = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), None)
    place = f" ({Path(own.filename).name}, line {own.lineno})" if own else ""
    name = type.__dict__["__name__"].__get__(type(error))  # a metaclass may have a `__name__` of its own
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - it is the engine's own exception
        text = "(its text cannot be had)"
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return f"{name}: {shown if len(shown) <= MOST_TEXT else f'{shown[:MOST_TEXT]} ...'}{place}"


def _takes(method: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(method).parameters
    except ValueError:  # a compiled function may have none
        return False


def _lend(value: Any) -> Any:
    """A copy, so that an engine cannot change what it is judged by."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, SamplingConfig):
        return copy.copy(value)
    if isinstance(value, Context | Request):
        return copy.deepcopy(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [row if type(row) is int else list(row) if isinstance(row, Sequence) else _lend(row) for row in value]
    return value


def _written(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    def same(value: Any, other: Any) -> bool:
        is_array = isinstance(value, np.ndarray)
        return np.array_equal(value, other, equal_nan=True) if is_array else bool(_lend(value) == other)

    return tuple(name for name, value in before.items() if not same(value, after[name]))
