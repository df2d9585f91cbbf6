"""Runs that a table library wrote by columns."""

from collections.abc import Mapping
from typing import Any

from sampler.results.store.logs.around import Data, Run, asked_of, with_known
from sampler.results.store.logs.names import KEY_OF, plain
from sampler.results.store.logs.values import Notes


def holds(value: Any, kind: type) -> bool:
    """Whether a value is a list of such values, and not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, kind) for one in value)


def columns_of(data: Data, notes: Notes, known: Run) -> list[Run] | None:
    """Runs of columns, as `{"prompts": [...], "tokens": [[...], ...], "stop_reasons": [...]}`; None if it has none."""
    keys = {name: KEY_OF.get(plain(name)) or KEY_OF.get(plain(name).removesuffix("s")) for name in data}
    rows: list[Any] = next((each for name, each in data.items() if keys[name] == "tokens" and holds(each, list)), [])
    found = {name: value for name, value in data.items() if isinstance(value, list) and len(value) == len(rows)}
    if not rows or not {"prompt", "stop_reason"} & {keys[name] for name in found}:
        return None
    notes.say("columns as runs")
    shared = asked_of({name: value for name, value in data.items() if name not in found}, known)
    return [
        with_known(shared, {keys[name] or name: column[place] for name, column in found.items()})
        for place in range(len(rows))
    ]


def rows_of(data: Data) -> list[Run] | None:
    """The rows of what pandas (`orient="split"` or its default) or a dashboard's table writes; None if it is none."""
    names: Any = data.get("columns")
    rows: Any = data.get("data")
    if holds(names, str) and holds(rows, list) and all(len(row) == len(names) for row in rows):
        return [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: value for name, value in data.items() if isinstance(value, Mapping)}
    tokens = next((value for name, value in columns.items() if KEY_OF.get(plain(name)) == "tokens"), {})
    if not tokens or len(columns) != len(data) or any(value.keys() != tokens.keys() for value in columns.values()):
        return None
    return [{name: value[place] for name, value in columns.items()} for place in tokens]
