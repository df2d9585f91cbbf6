"""Ways to spoil a file: its bytes, its text, its structure, and what stands at its place."""

import json
import os
import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.tools.fuzzing.documents import DEEP, Change, Raw, change, written

HUGE = 3 << 30
"""Bytes of a file that would fill the memory."""


@dataclass(frozen=True)
class Spoiled:
    """A spoiled file. content: its bytes, or what makes it at its path. key: named by the message, with its line.

    refused: whether nothing but exit code 2 is right.
    """

    content: bytes | Callable[[Path], object]
    label: str
    key: str = ""
    line: int | None = None
    refused: bool = False


Mutation = Callable[[bytes, random.Random], Spoiled]


def _place(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def flipped(content: bytes, rng: random.Random) -> Spoiled:
    changed = bytearray(content or b"\0")
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return Spoiled(bytes(changed), "bits flipped")


def cut(content: bytes, rng: random.Random) -> Spoiled:
    return Spoiled(content[: _place(content, rng)], "truncated")


def without_a_part(content: bytes, rng: random.Random) -> Spoiled:
    start, end = sorted((_place(content, rng), _place(content, rng)))
    return Spoiled(content[:start] + content[end:], "a part removed")


def repeated(content: bytes, rng: random.Random) -> Spoiled:
    start, end = sorted((_place(content, rng), _place(content, rng)))
    return Spoiled(content[:end] + content[start:], "a part repeated")


def inserted(content: bytes, rng: random.Random) -> Spoiled:
    parts = {
        "NUL bytes": b"\0" * 8,
        "random bytes": rng.randbytes(20),
        "Latin-1": b"\xe9",
        "brackets": b"[" * DEEP,
        "braces": b'{"a":' * DEEP,
        "digits": b"7" * 5_000,
        "a long line": b"x" * 1_000_000,
        "a surrogate": b"\xed\xa0\x80",
    }
    label = rng.choice(list(parts))
    place = _place(content, rng)
    return Spoiled(content[:place] + parts[label] + content[place:], f"{label} inserted")


def whole(content: bytes, rng: random.Random) -> Spoiled:
    """Another content altogether."""
    contents = {
        "empty": b"",
        "blank": b" \n\n",
        "zeros": bytes(max(len(content), 16)),
        "random": rng.randbytes(200),
        "a picture": b"\x89PNG\r\n\x1a\n" + rng.randbytes(60),
        "compressed": b"\x1f\x8b\x08\x00" + rng.randbytes(60),
        "null": b"null",
        "a list": b"[]",
        "an object": b"{}",
        "brackets": b"[" * DEEP,
        "digits": b"7" * 5_000,
        "NaN": b"NaN",
    }
    label = rng.choice(list(contents))
    return Spoiled(contents[label], f"{label} alone")


BINARY: tuple[Mutation, ...] = (flipped, cut, without_a_part, repeated, inserted, whole)


def in_place(content: bytes, rng: random.Random) -> Spoiled:
    """Something else at the place of the file."""
    kinds: dict[str, Callable[[Path], object]] = {
        "a folder": Path.mkdir,
        "a named pipe": os.mkfifo,
        "a link to nowhere": lambda path: path.symlink_to(path.parent / "nowhere"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a device without an end": lambda path: path.symlink_to("/dev/zero"),
        "nothing": lambda path: None,
        "3 GiB of zeros": _sparse,
    }
    label = rng.choice(list(kinds))
    return Spoiled(kinds[label], label, refused=True)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def encoded(content: bytes, rng: random.Random) -> Spoiled:
    text = content.decode()
    name = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"))
    return Spoiled(text.encode(name), f"in {name}", refused=name != "utf-8-sig")


def of_lines(content: bytes, rng: random.Random) -> Spoiled:
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    kind = rng.choice(("removed", "repeated", "moved", "blank", "ends in CR"))
    if kind == "removed":
        del lines[place]
    elif kind == "repeated":
        lines.insert(place, lines[place])
    elif kind == "moved":
        lines.append(lines.pop(place))
    elif kind == "blank":
        lines.insert(place, b"\n")
    else:
        return Spoiled(content.replace(b"\n", b"\r"), "lines that end in CR")
    return Spoiled(b"".join(lines), f"a line {kind}")


TEXT: tuple[Mutation, ...] = (*BINARY, encoded, of_lines)


def json_changed(content: bytes, rng: random.Random) -> Spoiled:
    found = change(json.loads(content), rng)
    return Spoiled(written(found.tree).encode(), found.label, found.key, refused=found.refused)


def json_line_changed(content: bytes, rng: random.Random) -> Spoiled:
    lines = content.decode().splitlines()
    place = rng.choice([rng.randrange(len(lines)), 0, len(lines) - 1])
    found = change(json.loads(lines[place]), rng)
    lines[place] = written(found.tree)
    text = "\n".join(lines) + "\n"
    return Spoiled(text.encode(), found.label, found.key, place + 1, refused=found.refused)


LOG_TAKES = re.compile(r"in utf-(16|32)|(logprobs|margin) = -?Infinity$")
"""Labels of what logs may hold, though no other file may: other encodings, infinities as Python writes them."""


def of_a_log(mutation: Mutation) -> Mutation:
    """The same for a log, of which more is taken."""

    def spoil(content: bytes, rng: random.Random) -> Spoiled:
        spoiled = mutation(content, rng)
        return replace(spoiled, refused=spoiled.refused and not LOG_TAKES.match(spoiled.label))

    return spoil


TOML_VALUES = (
    *("nan", "inf", "-inf", "0", "-1", "true", "[]", "{}", '""', "1e400", "2026-11-30", "12:00:00", "1.5", "'x'"),
    *("7" * 5_000, "7" * 4_000, "0x" + "f" * 5_000, "[" * DEEP + "]" * DEEP, "[" * 200 + "]" * 200),
    *('"' + "x" * DEEP + '"', "{a." + "a." * 500 + "a = 1}", r'"\u001b[31m\u202e"', "9223372036854775808", "1e308"),
)
TOML_NEVER = {*TOML_VALUES[:3], "1e400", *TOML_VALUES[14:19], "9223372036854775808"}


def toml_changed(content: bytes, rng: random.Random) -> Spoiled:
    lines = content.decode().splitlines()
    place = rng.choice([place for place, line in enumerate(lines) if " = " in line])
    key, _, _ = lines[place].partition(" = ")
    kind = rng.choice(("value", "value", "value", "missing", "twice", "unknown", "deep", "table"))
    refused, line = False, place + 1
    if kind == "value":
        value = rng.choice(TOML_VALUES)
        lines[place], refused = f"{key} = {value}", value in TOML_NEVER
        kind = f"= {value[:20]}"
    elif kind == "missing":
        del lines[place]
    elif kind == "twice":
        lines.insert(place, lines[place])
        refused, line = True, place + 2
    elif kind == "unknown":
        lines[place], refused, key = f"un{lines[place]}", True, f"un{key}"
    elif kind == "deep":
        lines.insert(place, "a." * rng.choice((100, 5_000)) + "a = 1")
        refused, key = True, ""
    else:
        tables = [each for each in lines if each.startswith("[")]
        lines.append(rng.choice([*tables, "[" + "a." * 5_000 + "a]", "[[why]]"]))
        key = ""
    return Spoiled("\n".join(lines).encode(), f"{key} {kind}", key, line, refused=refused)


def _of_tensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def tensors(header: str, data: bytes, length: int | None = None) -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensors_changed(content: bytes, rng: random.Random) -> Spoiled:
    """Faults of a safetensors file: of its header, of the length of it, of its data."""
    header, data = _of_tensors(content)
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    kind = rng.choice(("tree", "tree", "tree", "shape", "offsets", "dtype", "length", "data", "metadata", "values"))
    if kind == "metadata" and header.get("__metadata__"):
        return _metadata_changed(header, data, rng)
    if kind == "shape":
        shapes = ([2**40, 2**40], [2**62], [0, 2**62], [-1], [1.5], [], [1] * 2_000, [*entry["shape"], 1])
        entry["shape"] = rng.choice(shapes)
    elif kind == "offsets":
        start, end = entry["data_offsets"]
        offsets = ([-8, end - start - 8], [0, end - start], [end, start], [start, end + 4], [start, 2**63], [start])
        entry["data_offsets"] = rng.choice(offsets)
    elif kind == "dtype":
        entry["dtype"] = rng.choice(("F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "x", "", "I32"))
    elif kind == "length":
        length = rng.choice((0, 1, 7, 2**31, 2**63, 2**64 - 1, len(content), len(content) * 2))
        return Spoiled(tensors(json.dumps(header), data, length), f"a header of {length} bytes", refused=True)
    elif kind == "data":
        changed = data[: rng.randrange(len(data))] if rng.random() < 0.5 else data + bytes(rng.randrange(1, 100))
        return Spoiled(tensors(json.dumps(header), changed), "data of another length")
    elif kind == "values":
        start, end = entry["data_offsets"]
        fill = rng.choice((b"\xff", b"\x7f", b"\x00", b"\x80", b"\x7c"))
        data = data[:start] + fill * (end - start) + data[end:]
    else:
        found = change(header, rng)
        return Spoiled(tensors(written(found.tree), data), found.label, refused=found.refused)
    return Spoiled(tensors(json.dumps(header), data), f"{kind} of {name}")


def _metadata_changed(header: dict[str, Any], data: bytes, rng: random.Random) -> Spoiled:
    """JSON inside a text of the metadata."""
    name = rng.choice(list(header["__metadata__"]))
    text = header["__metadata__"][name]
    try:
        found = change(json.loads(text), rng)
    except ValueError:
        found = Change(Raw("x", "x"), f"{name} = x")
    changed = {**header, "__metadata__": {**header["__metadata__"], name: written(found.tree)}}
    return Spoiled(tensors(json.dumps(changed), data), f"metadata: {found.label}", refused=found.refused)
