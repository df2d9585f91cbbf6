"""One run of a log under the names and values of TOKENS.jsonl."""

import difflib
from collections.abc import Mapping
from typing import Any, Final

from sampler.checks.longform.runs import STEPS
from sampler.results.store.logs.names import CANONICAL, CHUNKS, FLAGS, KEY_OF, KEYS, PARAMETERS, plain
from sampler.results.store.logs.values import (
    Notes,
    Unclear,
    flagged,
    ids_of,
    measures,
    name_of_ids,
    parameters,
    reason_of,
)
from sampler.runtime.reading.source import short

ALIKE: Final = 0.84
"""How alike an unknown name is to a key, if it is one that is misspelt."""

BESIDE: Final = {seen: key for key, names in PARAMETERS.items() for seen in (key, *names)}
"""Sampling parameters that stand beside the tokens."""

RANKS: Final = {name: place for key, names in KEYS.items() for place, name in enumerate((key, *names))}


def rank_of(name: str) -> int:
    """Of two names for one key the surer one has the lower rank."""
    return RANKS.get(plain(name), 0)


def is_run(data: Mapping[str, Any]) -> bool:
    """Whether an object has tokens under any of their names."""
    return any(KEY_OF.get(plain(name)) == "tokens" and isinstance(value, list | str) for name, value in data.items())


def translated(data: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """The run as TOKENS.jsonl has it. Raises Unclear for what may mean two things."""
    found = _by_key(data, notes)
    run: dict[str, Any] = {}
    if not data:
        return {}
    if "tokens" not in found:
        shown = ", ".join(short(name, 20)[1:-1] for name in list(data)[:5])
        raise Unclear("key 'tokens' is missing", f"its keys: {shown}")
    name, value = _the_ids(found.pop("tokens"))
    tokens = run["tokens"] = ids_of(name, value, notes)
    _read(name, "tokens", notes)
    _cut(found, value, tokens)
    for key, pairs in found.items():
        values = [(name, _value(key, name, value, tokens, notes)) for name, value in pairs]
        name, value = next(((name, value) for name, value in values if value is not None), values[0])
        if value is not None or (name == key and key not in ("stop_reason", "logprobs")):
            run[key] = value
            _read(name, key, notes)
    if "stop_reason" not in run and (reason := flagged(data, notes)):
        run["stop_reason"] = reason
    _prompt(run, notes)
    beside = {name: value for name, value in data.items() if plain(name) in BESIDE}
    if asked := parameters(beside, strict=False):
        own = run.get("config")
        run["config"] = {**asked, **(own if isinstance(own, dict) else {})}
        notes.say(f"{', '.join(f'`{name}`' for name in beside)} as config")
    return run


def _by_key(data: Mapping[str, Any], notes: Notes) -> dict[str, list[tuple[str, Any]]]:
    """Names and values for each key, the surest name first."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for name, value in data.items():
        small = plain(name)
        key = name if name in CANONICAL else KEY_OF.get(small)
        if key is not None:
            found.setdefault(key, []).append((name, value))
        elif small not in FLAGS and small not in BESIDE:
            near = difflib.get_close_matches(small, [one for one in CANONICAL if one not in data], 1, ALIKE)
            if near:
                raise Unclear(f"unknown key {short(name)}", f"did you mean {near[0]!r}?")
            notes.left_out[name] = None
    for names in found.values():
        names.sort(key=lambda pair: rank_of(pair[0]))
    return found


def _the_ids(names: list[tuple[str, Any]]) -> tuple[str, Any]:
    """The name and value that hold ids: pieces of text may stand beside them. Raises Unclear if two of them differ."""
    holding = [(name, value) for name, value in names if _are_ids(value)]
    if not holding:
        return names[0]
    (first, ids), *others = holding
    other = next((name for name, value in others if value != ids), None)
    if other is not None:
        raise Unclear(f"`{first}` and `{other}` differ: which has the tokens?", "leave the other one out")
    return first, ids


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int | None) for one in value)


def _cut(found: dict[str, list[tuple[str, Any]]], before: Any, tokens: Any) -> None:
    """Cut what each step has where padding was left out."""
    if not (isinstance(before, list) and isinstance(tokens, list)) or len(tokens) >= len(before):
        return
    for key in STEPS:
        for place, (name, value) in enumerate(found.get(key, ())):
            if isinstance(value, list) and len(value) == len(before):
                found[key][place] = (name, value[: len(tokens)])


def _value(key: str, name: str, value: Any, tokens: Any, notes: Notes) -> Any:
    if key == "stop_reason":
        reason = reason_of(name, value, tokens, notes)
        return None if isinstance(reason, str) and name != key and plain(reason) in CHUNKS else reason
    if key in STEPS:
        return measures(key, name, value, notes)
    if key == "config" and isinstance(value, dict):
        return parameters(value, strict=name == key) or (value if name == key else None)
    if key == "seed" and (isinstance(value, str) and value.lstrip("-").isdigit()):
        return int(value)
    return value


def _read(name: str, key: str, notes: Notes) -> None:
    if name != key:
        notes.read[name] = key


def _prompt(run: dict[str, Any], notes: Notes) -> None:
    """Give a run the name of its prompt, if another key has it."""
    prompt = run.get("prompt")
    if isinstance(prompt, list) and prompt and all(type(one) is int for one in prompt):
        run["prompt"] = name_of_ids(prompt)
        notes.say("a name for the ids of `prompt`")
    elif prompt is None and isinstance(run.get("text"), str):
        run["prompt"] = run["text"]
        notes.say("`text` as the name of the prompt as well")
    elif isinstance(prompt, float) and prompt.is_integer():
        run["prompt"] = int(prompt)
