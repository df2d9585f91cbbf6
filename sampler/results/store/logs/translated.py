"""One run of a log under the names and values of TOKENS.jsonl."""

import difflib
from collections.abc import Mapping
from typing import Any, Final

from sampler.checks.longform.runs import STEPS
from sampler.results.store.logs.names import CANONICAL, CHUNKS, FLAGS, KEY_OF, KEYS, PARAMETERS, REASON_OF, plain
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

PROMPT_IDS: Final = ("input_ids", "prompt_ids", "prompt_token_ids", "prompt_tokens")
REASONS: Final = frozenset(REASON_OF.values())

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
    tokens = run["tokens"] = _behind_prompt(data, name, ids_of(name, value, notes), notes)
    _read(name, "tokens", notes)
    _cut(found, value, tokens)
    for key, pairs in found.items():
        values = [(name, _value(key, name, value, tokens, notes)) for name, value in pairs]
        name, value = next(((name, value) for name, value in values if value is not None), values[0])
        if key == "stop_reason":
            _agree([(name, word) for name, word in values if isinstance(word, str) and word in REASONS])
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


def _behind_prompt(data: Mapping[str, Any], name: str, tokens: Any, notes: Notes) -> Any:
    """Ids without those of the prompt before them, which another key has: `generate()` returns both together."""
    for other in PROMPT_IDS:
        ids = data.get(other)
        ids = ids[0] if isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], list) else ids
        if isinstance(ids, list) and len(ids) > 1 and isinstance(tokens, list) and tokens[: len(ids)] == ids:
            notes.say(f"what stands behind `{other}` in `{name}`")
            return tokens[len(ids) :]
    return tokens


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
        return parameters(value, strict=name == key) or None
    if key == "seed" and (isinstance(value, str) and value.lstrip("-").isdigit()):
        return int(value)
    return int(value) if key == "seed" and isinstance(value, float) and value.is_integer() else value


def _agree(reasons: list[tuple[str, Any]]) -> None:
    """Raise Unclear if two keys give different stop reasons."""
    other = next((name for name, reason in reasons if reason != reasons[0][1]), None)
    if other is not None:
        complaint = f"`{reasons[0][0]}` is {reasons[0][1]}, `{other}` is {dict(reasons)[other]}: which is right?"
        raise Unclear(complaint, "leave the other one out")


def _read(name: str, key: str, notes: Notes) -> None:
    if name != key:
        notes.read[name] = key


def _prompt(run: dict[str, Any], notes: Notes) -> None:
    """Give a run the name of its prompt, if another key has it."""
    prompt = run.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], Mapping):  # messages of a chat
        prompt = run["prompt"] = prompt[-1].get("content")
        notes.say("the last message of `prompt`")
    if isinstance(prompt, Mapping) and isinstance(own := prompt.get("id", prompt.get("name")), str | int):
        if isinstance(text := prompt.get("text"), str):
            run.setdefault("text", text)
        prompt = run["prompt"] = own
        notes.say("the id in `prompt`")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = run["prompt"] = prompt[0]
        notes.say("the one text of `prompt`")
    if isinstance(prompt, list) and prompt and all(type(one) is int for one in prompt):
        run["prompt"] = name_of_ids(prompt)
        notes.say("a name for the ids of `prompt`")
    elif prompt is None and isinstance(run.get("text"), str):
        run["prompt"] = run["text"]
        notes.say("`text` as the name of the prompt as well")
    elif isinstance(prompt, float) and prompt.is_integer():
        run["prompt"] = int(prompt)
