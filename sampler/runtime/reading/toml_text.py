"""Strict TOML: finite numbers of 64 bits, no endless nesting; what is wrong is named with its key and line."""

import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

from sampler.errors import SamplerError
from sampler.runtime.reading.document import (
    DEEPEST,
    FLATTER,
    NOT_FINITE,
    ONCE,
    TOO_LARGE,
    Document,
    Place,
    named,
)
from sampler.runtime.reading.source import Source, short

NAME: Final = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
KEY: Final = re.compile(rf"\s*({NAME}(?:\s*\.\s*{NAME})*)\s*=")
TABLE: Final = re.compile(rf"\s*(\[\[?)\s*({NAME}(?:\s*\.\s*{NAME})*)\s*\]")
DEEP: Final = re.compile(rf"(?<![\w-])(?:{NAME}\s*\.\s*){{{DEEPEST}}}")
DIGITS: Final = re.compile(r"(?<![\w.])[+-]?[\d_]{1000,}")
PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_toml(source: Source) -> Document:
    """A whole file as TOML. Raises the source's error."""
    text = source.text()
    if (deep := DEEP.search(text)) is not None:
        line = text.count("\n", 0, deep.start()) + 1
        raise source.refuse(f"{short(deep[0])[1:-1]} is nested too deeply", FLATTER, line)
    document = Document(source, text, _parsed(source, text), line_of)
    problem = next(_problems(document.data), None)
    if problem is not None:
        complaint, hint, place = problem
        raise document.refuse(complaint, hint, place)
    return document


def _parsed(source: Source, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(source, text, str(error)) from error
    except RecursionError as error:
        lines = text.split("\n")
        worst = max(range(len(lines)), key=lambda place: lines[place].count("[") + lines[place].count("{"))
        key = _key(lines[worst])
        raise source.refuse(f"{key or 'a value'} is nested too deeply", FLATTER, worst + 1) from error
    except ValueError as error:  # more digits than Python reads, or a date that is none
        found = DIGITS.search(text)
        if found is None:
            raise source.refuse(f"is no TOML: {error}", join=" ") from error
        line = text.count("\n", 0, found.start()) + 1
        key = _key(text.split("\n")[line - 1])
        raise source.refuse(f"{key} = a number of {len(found[0]):,} digits", TOO_LARGE, line) from error


def _syntax(source: Source, text: str, says: str) -> SamplerError:
    where = PLACE.search(says)
    line = int(where[1]) if where and where[1] else None
    said = says[: where.start()] if where else says
    at = f" at column {where[2]}" if where and where[2] else " at its end" if where else ""
    line, key = _nearest(text, line) if line else (None, "")
    if said.startswith(("Cannot overwrite", "Cannot declare", "Duplicate", "Cannot mutate", "Cannot define")) and line:
        return source.refuse(f"the key {key!r} occurs twice", ONCE, line)
    return source.refuse(f"is no TOML: {said}{at}", line=line, join=" ")


def _nearest(text: str, line: int) -> tuple[int, str]:
    """The line with the key of a value that ends in another line."""
    lines = text.split("\n")[:line]
    return next(((place + 1, key) for place in reversed(range(len(lines))) if (key := _key(lines[place]))), (line, ""))


def _key(line: str) -> str:
    """The key or the table that a line begins with."""
    found = KEY.match(line) or TABLE.match(line)
    return short(found[found.lastindex or 1])[1:-1] if found else ""


def _problems(data: dict[str, Any]) -> Iterator[tuple[str, str, Place]]:
    """What no reader may take, without recursion."""
    waiting: list[tuple[Place, Any]] = [((), data)]
    while waiting:
        place, value = waiting.pop()
        if len(place) > DEEPEST:
            yield f"{named(place[:3])} is nested too deeply", FLATTER, place[:3]
        elif isinstance(value, dict):
            waiting += [((*place, key), each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [((*place, index), each) for index, each in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{named(place)} = {value}", NOT_FINITE, place
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            yield f"{named(place)} = {short(value)}", TOO_LARGE, place


def line_of(text: str, place: Place) -> int | None:
    """The line of a place, or of the innermost table around it that is there."""
    best, found = 0, None
    table: Place = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if (header := TABLE.match(line)) is not None:
            table = _table(header, counts)
            here = table
        elif (key := KEY.match(line)) is not None:
            here = (*table, *_names(key[1]))
        else:
            continue
        if len(here) > best and here == place[: len(here)]:
            best, found = len(here), number
    return found


def _names(written: str) -> list[str]:
    return [each.strip("\"'") for each in re.findall(NAME, written)]


def _table(header: re.Match[str], counts: dict[str, int]) -> Place:
    names = _names(header[2])
    if header[1] == "[":
        return tuple(names)
    counts[header[2]] = counts.get(header[2], -1) + 1
    return (*names, counts[header[2]])
