"""One call of an engine, and its answer, which never raises; checks use nothing else of an engine."""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import Context, Engine, EngineInfo, by_signature
from sampler.errors import Unsupported

Method = Literal["process", "draw", "pick", "predict"]
Failure = Literal["unsupported", "given_up", "raised", "hung", "died", "type"]
"""given_up: the engine hung or ended too often and is not called again."""

MOST_TEXT = 300
"""Characters of an engine's error message that are shown."""

OWN_FOLDER = str(Path(__file__).parents[1])


class Interrupted(BaseException):
    """Raised by the alarm in a call that takes too long."""


@dataclass(frozen=True)
class Call:
    """Arguments by name, in the order of the protocol; those that are None are left out.

    thread: call in a new thread, as a server does. context: for engines whose signature has it.
    """

    method: Method
    arguments: Mapping[str, Any]
    context: Context | None = None
    thread: bool = False
    then: "Call | None" = None
    """A second call while the first answer is held: an engine must not change its earlier answer."""


@dataclass(frozen=True)
class Answer:
    """value: the result, None with a failure. wrote: the names of the arguments that were changed."""

    value: NDArray[Any] | None
    failure: Failure | None = None
    message: str = ""
    wrote: tuple[str, ...] = ()


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
    """An engine's info and the protocol methods that it has."""

    info: EngineInfo
    methods: frozenset[str] = field(default_factory=frozenset)


class EngineClient(Protocol):
    """Sends calls to an engine, in this process or another."""

    @property
    def offer(self) -> Offer: ...

    def ask(self, call: Call) -> Answer:
        """Send one call; never raises, whatever the engine does."""


def offer_of(engine: Engine) -> Offer:
    """Find out which protocol methods an engine has."""
    names = ("process", "draw", "pick", "predict", "generate")
    return Offer(engine.info, frozenset(name for name in names if callable(getattr(engine, name, None))))


def perform(engine: Engine, call: Call) -> Answer:
    """Call the engine with copies of the arguments and return the result. Only interruptions are raised."""
    lent = {name: _lend(value) for name, value in call.arguments.items()}
    method: Callable[..., Any] = getattr(engine, call.method)
    try:
        further = {"context": call.context} if call.context is not None and _takes_context(method) else {}
        given = {name: value for name, value in lent.items() if value is not None}
        arguments, named = by_signature(method, given)
        raw = method(*arguments, **named, **further)
        returned = _as_array(raw)
        if call.then is not None and not isinstance(returned, str):
            perform(engine, call.then)
            if not np.array_equal(_as_array(raw), returned, equal_nan=returned.dtype.kind == "f"):
                return Answer(returned, wrote=("the scores of the call before",))
    except Unsupported as error:
        return Answer(None, "unsupported", error.message)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # noqa: BLE001 - an engine may raise anything; other checks still run
        return Answer(None, "raised", describe(error), _written(call.arguments, lent))
    if isinstance(returned, str):
        return Answer(None, "type", returned, _written(call.arguments, lent))
    return Answer(returned, wrote=_written(call.arguments, lent))


def describe(error: BaseException) -> str:
    """Type, message and the line of the engine's own code that raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OWN_FOLDER)]
    own = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), None)
    place = f" ({Path(own.filename).name}, line {own.lineno})" if own else ""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - it is the engine's own exception
        text = "(its text cannot be had)"
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return f"{type(error).__name__}: {shown if len(shown) <= MOST_TEXT else f'{shown[:MOST_TEXT]} ...'}{place}"


def _takes_context(method: Callable[..., Any]) -> bool:
    try:
        return "context" in inspect.signature(method).parameters
    except ValueError:  # a compiled function may have none
        return False


def _lend(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [list(row) if isinstance(row, Sequence) else row for row in value]
    return value


def _as_array(value: Any) -> NDArray[Any] | str:
    """A copy in NumPy's own types, or the reason why there is none."""
    try:
        # NumPy has no bfloat16; widening is exact.
        array = np.array(_widened(value))
    except (TypeError, ValueError, RuntimeError) as error:
        return f"a {type(value).__name__} that is no array: {error}"
    if array.dtype.kind not in "fiu":
        return f"a {type(value).__name__} of {array.dtype}, expected an array of numbers"
    return array


def _widened(value: Any) -> Any:
    """Arrays of torch and MLX in bfloat16 as float32."""
    if str(getattr(value, "dtype", "")) == "mlx.core.bfloat16":
        return value.astype(mx.float32)
    return value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value


def _written(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    def same(value: Any, other: Any) -> bool:
        is_array = isinstance(value, np.ndarray)
        return np.array_equal(value, other, equal_nan=True) if is_array else bool(_lend(value) == other)

    return tuple(name for name, value in before.items() if not same(value, after[name]))
