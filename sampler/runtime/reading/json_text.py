"""Strict JSON: no key twice, no NaN, no number beyond 64 bits, no half of a surrogate pair, no endless nesting."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from pydantic import TypeAdapter

from sampler.runtime.reading.document import (
    DEEPEST,
    FLATTER,
    NOT_FINITE,
    ONCE,
    TOO_LARGE,
    Document,
    Place,
    Problem,
    named,
)
from sampler.runtime.reading.source import Source, short

T = TypeVar("T")

TOKEN: Final = re.compile(r'([{}\[\],:])|("[^"\\]*(?:\\.[^"\\]*)*")|([^\s{}\[\],:"]+)', re.DOTALL)

SUSPECT: Final = re.compile(r"(?<![\d.])\d{20}|[eE]\+?\d{3}|\\u[dD][89a-fA-F]")
"""A number that may be beyond 64 bits, and half of a surrogate pair: looked at closely."""


class Suspicious(Exception):
    """Something that the parser would take and no reader may."""


class JsonDocument(Document):
    """JSON, whose lists are taken for tuples too."""

    def _parsed(self, adapter: TypeAdapter[T], options: dict[str, Any]) -> T:
        return adapter.validate_json(self.text, **options)


def read_json(source: Source) -> JsonDocument:
    """A whole file as JSON. Raises the source's error."""
    text = source.text()
    return JsonDocument(source, text, parse(source, text), line_of)


def parse(source: Source, text: str, line: int | None = None, *, infinities: bool = False) -> Any:
    """JSON of a text. line: of the file, if the text is one line of it. Raises the source's error.

    infinities: whether Infinity and -Infinity, which Python writes, are taken for numbers.
    """
    problem = None
    if text.count("[") + text.count("{") > DEEPEST or SUSPECT.search(text):
        problem = first_problem(text, infinities=infinities)
    if problem is None:
        constant = _infinity if infinities else _refuse
        try:
            return json.loads(text, object_pairs_hook=_once, parse_constant=constant)
        except json.JSONDecodeError as error:
            raise source.refuse(
                f"is no JSON: {error.msg} at column {error.colno}", line=line or error.lineno, join=" "
            ) from error
        except Suspicious:
            problem = first_problem(text, infinities=infinities)
    if problem is None:  # a text that ends within the suspicious part
        raise source.refuse("is no JSON", line=line, join=" ")
    raise source.refuse(problem.complaint, problem.hint, line or problem.line)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Suspicious
    return found


def _refuse(name: str) -> NoReturn:
    raise Suspicious(name)


def _infinity(name: str) -> float:
    return _refuse(name) if name == "NaN" else float(name)


class Value(NamedTuple):
    """A key or a value in a text. start: its first letter. is_twice: a key that its object has already."""

    place: Place
    start: int
    text: str
    is_twice: bool = False


@dataclass
class _Level:
    is_object: bool
    key: str | int
    known: set[str] = field(default_factory=set)
    wants_key: bool = False


def values(text: str) -> Iterator[Value]:
    """Every key and every value of a text, in order, without recursion."""
    levels: list[_Level] = []
    for found in TOKEN.finditer(text):
        mark, string, _ = found.groups()
        place = tuple(level.key for level in levels)
        if mark in ("{", "["):
            yield Value(place, found.start(), mark)
            levels.append(_Level(mark == "{", "" if mark == "{" else 0, wants_key=mark == "{"))
        elif mark in ("}", "]"):
            if levels:
                levels.pop()
        elif mark == "," and levels:
            _next(levels[-1])
        elif mark is None and string and levels and levels[-1].wants_key:
            level = levels[-1]
            level.key, level.wants_key = _text(string), False
            yield Value((*place[:-1], level.key), found.start(), string, level.key in level.known)
            level.known.add(level.key)
        elif mark is None:
            yield Value(place, found.start(), found[0])


def _next(level: _Level) -> None:
    if level.is_object:
        level.wants_key = True
    elif isinstance(level.key, int):
        level.key += 1


def _text(string: str) -> str:
    try:
        return str(json.loads(string))
    except ValueError:
        return string[1:-1]


def first_problem(text: str, *, infinities: bool = False) -> Problem | None:
    """The first thing in a text that no reader may take."""
    for value in values(text):
        if infinities and value.text in ("Infinity", "-Infinity"):
            continue
        if (found := _problem(value)) is not None:
            return Problem(*found, text.count("\n", 0, value.start) + 1)
    return None


def _problem(value: Value) -> tuple[str, str] | None:
    key, written = named(value.place), value.text
    if value.is_twice:
        return f"the key {named(value.place[-1:])!r} occurs twice", ONCE
    if len(value.place) >= DEEPEST:
        return f"{named(value.place[:3])} is nested too deeply", FLATTER
    if written[0] == '"':
        has_half = "\\u" in written and not _is_utf8(_text(written))
        return (
            (f"{key} = {short(written)} has half of a surrogate pair", "write the letter itself") if has_half else None
        )
    if written in ("NaN", "Infinity", "-Infinity"):
        return f"{key or 'content'} = {written}", NOT_FINITE
    digits = written.lstrip("-")
    if digits.isdigit() and (len(digits) > 20 or int(digits) >= 2**64):
        shown = written if len(written) <= 30 else f"a number of {len(digits):,} digits"
        return f"{key or 'content'} = {shown}", TOO_LARGE
    if re.fullmatch(r"[\d.]+[eE]\+?\d+", digits) and float(digits) == float("inf"):
        return f"{key or 'content'} = {short(written)[1:-1]}", NOT_FINITE
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def line_of(text: str, place: Place) -> int | None:
    """The line of a place, or of the innermost object or list around it that is there."""
    if "\n" not in text.strip():
        return None  # one line has all
    best, start = -1, 0
    wanted = tuple(map(str, place))
    for value in values(text):
        found = tuple(map(str, value.place))
        if len(found) > best and found == wanted[: len(found)]:
            best, start = len(found), value.start
            if best == len(wanted):
                break
    return text.count("\n", 0, start) + 1
