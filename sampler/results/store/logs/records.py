"""The JSON objects of a text: one a line, one after the other, in a list, or behind what a logger writes."""

import csv
import json
import re
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple

from sampler.errors import SamplerError
from sampler.results.store.logs.opened import RUN, WRITE
from sampler.runtime.reading.json_text import parse
from sampler.runtime.reading.source import Source, short

DECODER: Final = json.JSONDecoder()
BETWEEN: Final = re.compile(r"[\s,]*")
STREAM_END: Final = "data: [DONE]"

ROWS: Final = 5
"""Lines of a text that tell whether it is a table."""

RECORD: Final = "\x1e"
"""What begins each object of a JSON text sequence."""

FENCE: Final = "```"

BRACES: Final = 20
"""Braces of a line, each of which may begin its JSON."""

TABLE: Final = f"for r in csv.DictReader(file): print(json.dumps({RUN}))"
PYTHON: Final = re.compile(r"^[\[{(]+\s*'")
TEXTS: Final = (
    (re.compile(r"^\s*<(!doctype|html|\?xml)", re.IGNORECASE), "is a page of HTML or XML", WRITE),
    (re.compile(r"^[\d\s,;]+$"), "has ids alone, without prompts", WRITE),
    (re.compile(r"^[A-Za-z_.]*\(|[\[{]'\w+': "), "is Python's repr, not JSON", WRITE),
)
"""What a text without JSON may be, and what to do."""


class Record(NamedTuple):
    """An object of a log. number: of its line, or its place in a list, from 1."""

    number: int
    data: dict[str, Any]


class Records(NamedTuple):
    """The objects of a log. source: whose unit says what their numbers count. notes: how they were found."""

    source: Source
    objects: list[Record]
    notes: list[str]


def records_of(source: Source, text: str) -> Records:
    """All objects of a text. Raises TokensError with what the text is."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise source.refuse("has no lines", "one run a line; docs/tokens.md has an example", join=" ")
    if lines[0][1].strip().startswith(FENCE):
        lines = [(number, line) for number, line in lines if not line.strip().startswith(FENCE)]
        text = "\n".join(line for _, line in lines)
        source, objects, notes = records_of(source, text)
        return Records(source, objects, ["left out the fence of ```", *notes])
    start = lines[0][1].strip()
    if PYTHON.match(start):
        raise source.refuse("is Python's repr, not JSON", WRITE, join=" ")
    if start[0] == "{" and _ends(start) == len(start):
        return Records(source, [_object(source, number, line) for number, line in lines], [])
    if start[0] in "[{" and (pieces := _pieces(text)):
        return _whole(replace(source, unit="run"), text, pieces)
    found = [(number, line, _place(line)) for number, line in lines]
    behind = [(number, line[at]) for number, line, at in found if at is not None]
    if start[0] == "{" or (start[0] == "[" and not behind):
        if len(start) > 2:
            return Records(source, [_object(source, number, line) for number, line in lines], [])
        parse(source, text, infinities=True)
    if not behind:
        raise _without_json(source, text)
    left = len(lines) - len(behind) - sum(line.strip() == STREAM_END for _, line in lines)
    note = "left out what stands around the JSON of a line" + (f", and {_lines(left)} without JSON" if left else "")
    return Records(source, [_object(source, number, line) for number, line in behind], [note])


def _lines(count: int) -> str:
    return f"{count:,} lines" if count > 1 else "1 line"


def _ends(text: str, start: int = 0) -> int | None:
    """Where the JSON value that begins at a place ends; None if there is none."""
    try:
        return DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def _place(line: str) -> slice | None:
    """Where the object in a line stands; there is no other behind it."""
    for found in islice(re.finditer(r"\{", line), BRACES):
        end = _ends(line, found.start())
        if end is not None:
            return None if "{" in line[end:] else slice(found.start(), end)
    return None


def object_in(text: str) -> dict[str, Any] | None:
    """The object in a line, whatever stands around it; None if there is none."""
    place = _place(text)
    found = None if place is None else json.loads(text[place])
    return found if isinstance(found, dict) else None


def _object(source: Source, number: int, text: str) -> Record:
    data = parse(source, text.lstrip(RECORD), number, infinities=True)
    if not isinstance(data, dict):
        what = "is a list, not a run" if isinstance(data, list) else "is no object"
        raise source.refuse(f"{what}: {short(data)}", WRITE, number, join=" ")
    return Record(number, data)


def _pieces(text: str, start: int = 0, closing: str = "") -> list[tuple[int, int]]:
    """Begin and end of the values from a place on, up to the end or a closing bracket; none if it is no JSON."""
    found: list[tuple[int, int]] = []
    at = start
    while True:
        space = BETWEEN.match(text, at)
        at = space.end() if space else at
        if text[at : at + 1] == closing:
            return found
        end = _ends(text, at)
        if end is None:
            return []
        found.append((at, end))
        at = end


def _whole(source: Source, text: str, pieces: list[tuple[int, int]]) -> Records:
    """Objects one after the other, or in one list."""
    start, _ = pieces[0]
    if text[start] == "[" and len(pieces) == 1:
        pieces = _pieces(text, start + 1, "]")
        if not pieces:
            raise source.refuse("is an empty list", WRITE, join=" ")
        first = text[slice(*pieces[0])]
        if first[0] != "{":
            what = "lists" if first[0] == "[" else "ids" if first.isdigit() else "values"
            raise source.refuse(f"is a list of {what}, without prompts", WRITE, join=" ")
    return Records(source, [_object(source, place, text[slice(*piece)]) for place, piece in enumerate(pieces, 1)], [])


def _without_json(source: Source, text: str) -> SamplerError:
    """What a text is that has no object."""
    head = text[:2000]
    found = next(((what, remedy) for form, what, remedy in TEXTS if form.search(head)), None)
    if found is None and any(_is_table(head, delimiter) for delimiter in ",;\t"):
        found = "is a table (CSV)", TABLE
    what, remedy = found or ("has no JSON object", WRITE)
    return source.refuse(what, remedy, join=" ")


def _is_table(text: str, delimiter: str) -> bool:
    """Whether the first lines have the same number of columns, and more than one."""
    rows = [row for row in csv.reader(text.split("\n")[:ROWS], delimiter=delimiter) if row]
    columns = {len(row) for row in rows}
    return len(rows) > 1 and len(columns) == 1 and max(columns) > 1
