"""What `generate` returned, as plain values: tokens are integers, nothing is cut or rounded to fit."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, Final, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sampler.engines.arrays import plain_array
from sampler.engines.base import EngineInfo, Generation, Record, Request, StopReason

MOST_EXTRA = 1000
"""Tokens beyond the limit of a request after which a run is refused; up to there it is judged as too long."""

LARGEST_ID = 2**31 - 1

MOST_TEXT = 200
"""Characters of a text in a record that are kept."""


def checked_generations(returned: Any, requests: Sequence[Request], info: EngineInfo) -> list[Generation]:
    """Answers of `generate()` as plain values. Raises ValueError naming the first that is invalid."""
    generations = _first(returned, len(requests) + 1, "generate() gave")
    if len(generations) != len(requests):
        number = len(generations) if len(generations) <= len(requests) else f"more than {len(requests)}"
        raise ValueError(f"generate() gave {number} generations for {len(requests)} requests")
    return [_checked(*pair, index, info) for index, pair in enumerate(zip(generations, requests, strict=True))]


def _checked(generation: Any, request: Request, index: int, info: EngineInfo) -> Generation:
    name = f"request {index}"
    if not hasattr(generation, "tokens") or not hasattr(generation, "stop_reason"):
        raise ValueError(f"{name} has a {type(generation).__name__}, expected a Generation")
    tokens = _tokens(generation.tokens, request, name, info.vocab_size)
    reason = generation.stop_reason
    if not isinstance(reason, str) or reason not in get_args(StopReason):
        known = ", ".join(get_args(StopReason))
        raise ValueError(f"{name} stopped for {_shown(reason)}, expected one of {known}")
    record = getattr(generation, "record", None)
    plain = None if record is None else _record(record, tokens, name, info.vocab_size)
    return Generation(tokens, cast("StopReason", str(reason)), plain)


def _tokens(values: Any, request: Request, name: str, size: int | None) -> tuple[int, ...]:
    most = request.max_new_tokens + MOST_EXTRA
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) != 1:
        raise ValueError(f"{name} has tokens of shape {tuple(shape)}, expected one dimension")
    given = _first(values, most + 1, f"{name} has tokens in")
    if len(given) > most:
        raise ValueError(f"{name} has more than {most} tokens, the limit is {request.max_new_tokens}")
    last = LARGEST_ID if size is None else size - 1
    return tuple(_token(value, f"{name} has the token", step, last) for step, value in enumerate(given))


def _token(value: Any, name: str, step: int, last: int) -> int:
    """An id; whole numbers of any type are taken, bool is none."""
    if type(value) is not int:
        number = value.item() if hasattr(value, "item") else value  # of NumPy, torch, MLX
        whole = isinstance(number, float) and number.is_integer()
        if isinstance(number, bool) or not (whole or hasattr(number, "__index__")):
            kind = type(number).__name__
            raise ValueError(f"{name} {_shown(number)} ({kind}), expected an integer from 0 to {last} (step {step})")
        value = int(number) if whole else operator.index(number)
    if not 0 <= value <= last:
        raise ValueError(f"{name} {_shown(value)}, expected 0 to {last} (step {step})")
    return int(value)


def _first(values: Any, most: int, name: str) -> list[Any]:
    """At most so many of the values of a sequence, an array or an iterator that may not end."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name} a {type(values).__name__}, expected a sequence")  # noqa: TRY004
    return list(islice(values, most))


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."


def _record(record: Any, tokens: Sequence[int], name: str, size: int | None) -> Record:
    """Only plain values of a record; what it lacks is as in an empty one."""
    names = [item.name for item in fields(Record)]
    if not any(hasattr(record, field) for field in names):
        raise ValueError(f"{name} has a {type(record).__name__} as its record, expected a Record")
    given = {field: getattr(record, field, getattr(_NOTHING, field)) for field in names}
    arrays: dict[str, NDArray[Any] | None] = {
        field: None if given[field] is None else _array(given[field], f"{name} recorded {field}", dtype)
        for field, dtype in _DTYPES.items()
    }
    for field in ("logprob", "entropy", "margin", "rank"):
        found = arrays[field]
        values = arrays[field] = getattr(_NOTHING, field) if found is None else found
        if values.ndim != 1:
            raise ValueError(f"{name} recorded {field} of shape {values.shape}, expected one number of each token")
    logits = arrays["logits"]
    if logits is not None:
        _check_logits(logits.shape, tokens, name, size)
    flags = _first(given["flags"], len(tokens) + 1, f"{name} recorded flags in")
    if len(flags) not in (0, len(tokens)):
        raise ValueError(f"{name} recorded {len(flags)} flags for {len(tokens)} tokens, expected one a token, or none")
    numbers = {field: None if given[field] is None else operator.index(given[field]) for field in _NUMBERS}
    plain = {
        "flags": tuple(str(flag)[:MOST_TEXT] for flag in flags),
        "error": str(given["error"])[:MOST_TEXT],
        "blas": str(given["blas"])[:MOST_TEXT],
        "guided": None if given["guided"] is None else bool(given["guided"]),
    }
    return Record(**{**given, **arrays, **numbers, **plain})


_EMPTY: Final = np.zeros(0, dtype=np.float32)
_NOTHING: Final = Record(_EMPTY, _EMPTY.astype(np.int32), _EMPTY, _EMPTY, 0, 1)
_NUMBERS: Final = ("slot", "width", "threads")
_DTYPES: Final[dict[str, type[np.generic]]] = {
    "logprob": np.float32, "rank": np.int32, "entropy": np.float32, "margin": np.float32, "logits": np.float32,
    "attention": np.float32,
}  # fmt: skip


def _array(value: Any, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    if isinstance(value, np.ndarray) and value.dtype == dtype:
        return value
    array = plain_array(value)
    if isinstance(array, str):
        raise ValueError(f"{name}: {array}")  # noqa: TRY004
    return array.astype(dtype)


def _check_logits(shape: tuple[int, ...], tokens: Sequence[int], name: str, size: int | None) -> None:
    """Fewer steps than tokens are taken, and judged as far as they go."""
    count = len(tokens)
    if len(shape) != 3 or shape[0] > count or shape[1] not in (1, 2) or (size is not None and shape[2] != size):
        expected = f"(up to {count}, 1 or 2, {size or 'vocabulary'})"
        raise ValueError(f"{name} has logits of shape {shape} for {count} tokens, expected {expected}")
    if max(tokens, default=0) >= shape[2]:
        raise ValueError(f"{name} has the token {max(tokens)}, and {shape[2]} logits a step")
