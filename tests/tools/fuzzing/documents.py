"""JSON as a tree whose spoiled parts can be written: keys that occur twice, numbers beyond Python's, any raw text."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Raw:
    """Text that stands for itself. label: what it is, for a report."""

    text: str
    label: str


@dataclass(frozen=True)
class Twice:
    """An object in which a key occurs a second time, with the same value."""

    content: dict[str, Any]
    key: str


DEEP = 100_000

VALUES = (
    *(Raw(text, text) for text in ("NaN", "Infinity", "-Infinity", "1e400", "null", "true", "0", "-1", "1.5", "[]")),
    *(Raw(text, text) for text in ("{}", '""', "9223372036854775808", "18446744073709551616", "-0.0", "1e308")),
    Raw("7" * 5_000, "5,000 digits"),
    Raw("-" + "7" * 4_000, "4,000 digits"),
    Raw("[" * DEEP + "]" * DEEP, "lists in lists"),
    Raw('{"a":' * DEEP + "1" + "}" * DEEP, "objects in objects"),
    Raw("[" * 200 + "]" * 200, "200 lists in lists"),
    Raw('"' + "x" * DEEP + '"', "a long string"),
    Raw(r'"\ud800"', "half a surrogate"),
    Raw(r'"\u001b[31m\u202e\u0000"', "control characters"),
    Raw('["x", 1, null, {}]', "a mixed list"),
)
"""What takes the place of a value."""

NEVER = frozenset(
    (
        *("NaN", "Infinity", "-Infinity", "1e400", "18446744073709551616", "5,000 digits", "4,000 digits"),
        *("lists in lists", "objects in objects", "200 lists in lists", "half a surrogate"),
    )
)
"""Labels of values that no file may hold, whatever the key."""

IN_TEXT = ("NaN", "5,000 digits", "4,000 digits")


def written(node: Any) -> str:
    """The text of a tree."""
    match node:
        case Raw(text=text):
            return text
        case Twice(content=content, key=key):
            parts = [f"{json.dumps(name)}: {written(value)}" for name, value in content.items()]
            return "{" + ", ".join([*parts, f"{json.dumps(key)}: {written(content[key])}"]) + "}"
        case dict():
            return "{" + ", ".join(f"{json.dumps(name)}: {written(value)}" for name, value in node.items()) + "}"
        case list():
            return "[" + ", ".join(map(written, node)) + "]"
    return json.dumps(node)


Path = tuple[str | int, ...]


def paths(node: Any, most: int = 4) -> Iterator[Path]:
    """Places in a tree; of a list its first and last entries."""
    if isinstance(node, dict):
        entries = list(node.items())
    elif isinstance(node, list):
        entries = list(enumerate(node))[: most - 1] + list(enumerate(node))[most - 1 :][-1:]
    else:
        return
    for key, value in entries:
        yield (key,)
        yield from ((key, *rest) for rest in paths(value))


def at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def replaced(node: Any, path: Path, value: Any) -> Any:
    """The tree with another value at a place."""
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


def without(node: Any, path: Path) -> Any:
    parent = at(node, path[:-1])
    copy = dict(parent) if isinstance(parent, dict) else list(parent)
    del copy[path[-1]]
    return replaced(node, path[:-1], copy)


@dataclass(frozen=True)
class Change:
    """One fault of a tree. key: the last name on its path; refused: whether no reader may take it."""

    tree: Any
    label: str
    key: str = ""
    refused: bool = False


def change(tree: Any, rng: random.Random) -> Change:
    """One fault: a value of another kind, a key too few or twice, a list of another length."""
    path = rng.choice(list(paths(tree)) or [()])
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    kind = rng.choice(("value", "value", "value", "missing", "twice", "length", "unknown"))
    value = at(tree, path)
    parent = at(tree, path[:-1])
    if kind == "missing" and path:
        return Change(without(tree, path), f"{key} missing", key)
    if kind == "twice" and path and isinstance(parent, dict):
        return Change(replaced(tree, path[:-1], Twice(parent, path[-1])), f"{key} twice", key, refused=True)
    if kind == "length" and isinstance(value, list) and value:
        longer = value + value[-1:] if rng.random() < 0.5 else value[:-1]
        return Change(replaced(tree, path, longer), f"{key} of another length", key)
    if kind == "unknown" and isinstance(value, dict):
        return Change(replaced(tree, path, {**value, "unheard_of": 1}), "an unknown key", "unheard_of")
    raw = rng.choice(VALUES)
    return Change(replaced(tree, path, raw), f"{key} = {raw.label}", key, refused=raw.label in NEVER)
