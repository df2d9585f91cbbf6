"""Messages of an engine's process, read without trusting it: a header in JSON, then the bytes of arrays of numbers.

A message is MAGIC, the length of the header (uint32, little-endian), the header, and its arrays one after the other.
The header is an object {"kind", "call", "content", "arrays": [[dtype, shape], ...]}. Nothing in it is executed.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sampler.engines.base import EngineInfo, Generation, Record, StopReason
from sampler.engines.calls import FURTHER, METHODS, Answer, Failure, Offer

MAGIC: Final = b"sampler\n"
START: Final = struct.Struct("<8sI")
MOST_HEADER = 2**26
"""Bytes of a header; tokens are an array, so it has a few hundred bytes for each generation."""

DTYPES: Final = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})

MOST_TEXT = 1000
"""Characters of a text that are read."""


GARBLED = "what came from its process is no message; does it write into file descriptors that are not its own?"


class GarbledError(Exception):
    """Bytes that are no message of the engine's process, or too many of them."""


@dataclass(frozen=True)
class Message:
    """kind: offer, refused, progress or answer. call: number of the call that it belongs to, 0 for the start."""

    kind: str
    call: int
    content: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]] = ()

    def parts(self) -> list[bytes | memoryview]:
        """The bytes to send."""
        arrays = [_native(array) for array in self.arrays]
        described = [[f"{array.dtype.kind}{array.dtype.itemsize}", array.shape] for array in arrays]
        header = {"kind": self.kind, "call": self.call, "content": self.content, "arrays": described}
        text = json.dumps(header).encode()
        return [START.pack(MAGIC, len(text)) + text, *(array.data.cast("B") for array in arrays if array.size)]


def _native(array: NDArray[Any]) -> NDArray[Any]:
    kind = "f8" if array.dtype.kind == "f" and array.dtype.itemsize > 8 else f"{array.dtype.kind}{array.dtype.itemsize}"
    return np.ascontiguousarray(array, dtype=f"<{kind}").reshape(array.shape)


def read_message(read: Callable[[memoryview], None], most_bytes: int) -> Message:
    """The next message; read: fills a buffer. Raises GarbledError before it reads more than it may."""
    start = bytearray(START.size)
    read(memoryview(start))
    magic, length = START.unpack(start)
    if magic != MAGIC or length > MOST_HEADER:
        raise GarbledError(GARBLED)
    text = bytearray(length)
    read(memoryview(text))
    try:
        header = json.loads(text)
        kind, call, content = str(header["kind"]), int(header["call"]), dict(header["content"])
        described = [(f"<{dtype}", tuple(map(int, shape))) for dtype, shape in header["arrays"] if dtype in DTYPES]
        size = sum(math.prod(shape) * int(dtype[2:]) for dtype, shape in described)
        if size > most_bytes:
            raise GarbledError(f"its answer has {size:,} bytes, at most {most_bytes:,} were expected")
        arrays = [np.empty(shape, dtype) for dtype, shape in described]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise GarbledError(GARBLED) from error
    for array in arrays:
        if array.size:
            read(array.data.cast("B"))
    return Message(kind, call, content, arrays)


def offer_message(offer: Offer) -> Message:
    """The first message of an engine's process."""
    info = asdict(offer.info)
    info["supports"] = None if offer.info.supports is None else sorted(offer.info.supports)
    content = {item.name: getattr(offer, item.name) for item in fields(offer)}
    sets = {name: sorted(content[name]) for name in ("methods", "further", "contexts")}
    return Message("offer", 0, {**content, **sets, "info": info})


def read_offer(content: Mapping[str, Any]) -> Offer:
    """The offer of a message. Raises GarbledError, and EngineError for an info that does not fit."""
    try:
        info = dict(content["info"])
        orders = info["orders"]
        info |= {"orders": orders if orders == "any" else tuple(tuple(map(str, order)) for order in orders)}
        width, checksum = content["width"], content["weights_checksum"]
        return Offer(
            EngineInfo(**info),
            frozenset(METHODS) & frozenset(content["methods"]),
            frozenset(FURTHER) & frozenset(content["further"]),
            None if width is None else max(1, int(width)),
            bool(content["bitwise"]),
            None if checksum is None else str(checksum)[:MOST_TEXT],
            bool(content["records_attention"]),
            frozenset(METHODS) & frozenset(content["contexts"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise GarbledError(GARBLED) from error


def answer_message(answer: Answer, call: int) -> Message:
    """The message of an answer; its arrays follow its header."""
    arrays: list[NDArray[Any]] = []

    def placed(array: NDArray[Any] | None) -> int | None:
        if array is None:
            return None
        arrays.append(array)
        return len(arrays) - 1

    def generation(one: Generation) -> dict[str, Any]:
        record = None
        if one.record is not None:
            values = {item.name: getattr(one.record, item.name) for item in fields(Record)}
            record = {**values, **{name: placed(values[name]) for name in _ARRAYS}}
        return {"tokens": placed(np.array(one.tokens, np.int64)), "stop_reason": one.stop_reason, "record": record}

    content = {
        "value": placed(answer.value),
        "failure": answer.failure,
        "message": answer.message,
        "wrote": answer.wrote,
        "generations": [generation(one) for one in answer.generations],
        "pieces": answer.pieces,
        "error": answer.error,
    }
    return Message("answer", call, content, arrays)


_ARRAYS: Final = ("logprob", "rank", "entropy", "margin", "logits", "attention")


def read_answer(message: Message) -> Answer:
    """The answer of a message, of plain values. Raises GarbledError."""
    content, arrays = message.content, message.arrays

    def array(place: Any) -> NDArray[Any] | None:
        return None if place is None else arrays[place]

    def generation(one: Mapping[str, Any]) -> Generation:
        record = None
        if one["record"] is not None:
            given = dict(one["record"])
            given |= {name: array(given[name]) for name in _ARRAYS}
            record = Record(**{**given, "flags": tuple(given["flags"])})
        tokens = array(one["tokens"])
        assert tokens is not None  # noqa: S101 - a TypeError as well
        return Generation(tuple(tokens.tolist()), cast("StopReason", one["stop_reason"]), record)

    try:
        failure = content["failure"]
        if failure is not None and failure not in get_args(Failure):
            raise GarbledError(GARBLED)
        return Answer(
            array(content["value"]),
            failure,
            _text(content["message"]),
            tuple(map(_text, content["wrote"])),
            tuple(generation(one) for one in content["generations"]),
            tuple(str(piece)[:MOST_TEXT] for piece in content["pieces"]),
            (_text(content["error"][0]), _text(content["error"][1])),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError) as error:
        raise GarbledError(GARBLED) from error


def _text(value: Any) -> str:
    """A text with control characters made visible."""
    return "".join(character if character.isprintable() else "?" for character in str(value)[:MOST_TEXT])
