"""What stands at the keys of a log, as TOKENS.jsonl has it: ids, stop reasons, sampling parameters."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sampler.results.store.logs.names import FLAGS, PARAMETER_OF, REASON_OF, STOP_STRINGS, plain
from sampler.runtime.reading.source import short

ONE_RUN: Final = "write one run a line"
ASK_FOR_IDS: Final = "log ids: ask vLLM for return_token_ids, llama.cpp for return_tokens"
TOKEN_ID: Final = re.compile(r"^(?:token_id:)?\s*(\d+)$")
PRINTED: Final = re.compile(r"^\s*(?:torch\.|np\.|numpy\.|mx\.)?(?:tensor|array)\((\[[^\]]*\])(?:,[^\[\])]*)?\)\s*$")
"""An array of NumPy, PyTorch or MLX as it is printed."""

ENUM: Final = re.compile(r"^(?:k_)?(?:finish|stop|end|done|generation_stop)_reason_(?=.)")
"""The name of an enumeration before its value, as in `FinishReason.STOP`."""

NUMBER: Final = re.compile(r"^-?\d{1,9}(?:\.\d{0,17})?$")
HEX: Final = re.compile(r"^0x[0-9a-fA-F]{1,8}$")
WRITTEN: Final = re.compile(r"^[\s\[(]*\d+(?:[\s,;]+\d+)*[\s,\])]*$")
IGNORED: Final = -100
"""What trainers put in place of ids that do not count."""


class Unclear(Exception):
    """What no log may hold, or what may mean two things. complaint, hint: as `Source.refuse` has them."""

    def __init__(self, complaint: str, hint: str) -> None:
        super().__init__(complaint)
        self.complaint, self.hint = complaint, hint


@dataclass
class Notes:
    """What was translated. read: key by name; words: stop reason by word; said: what else; left_out: other names.

    dropped: why a key that some run has no numbers for is left out of all of them.
    """

    read: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    said: dict[str, None] = field(default_factory=dict)
    left_out: dict[str, None] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.said[text] = None


def ids_of(name: str, value: Any, notes: Notes) -> Any:
    """Ids of a run; what is none as it is, for its schema to refuse. Raises Unclear for what may mean two things."""
    if isinstance(value, str) and (printed := PRINTED.match(value)):
        value = printed[1]
    if isinstance(value, str) and "..." in value and WRITTEN.match(value.replace("...", " ")):
        raise Unclear(f"{name} leaves ids out, as a long array that is printed does", "log ids.tolist()")
    if isinstance(value, str) and WRITTEN.match(value):
        notes.say(f"`{name}` from text")
        return [int(digits) for digits in re.findall(r"\d+", value)]
    if not isinstance(value, list) or not value:
        return value
    if all(type(token) is int or token is None for token in value):
        return _unpadded(value, notes)
    if all(isinstance(row, list) for row in value):
        return _flat(name, value, notes)
    if all(isinstance(token, Mapping) for token in value):
        found = [token.get("id", token.get("token_id")) for token in value]
        if all(type(token) is int for token in found):
            notes.say(f"the ids of `{name}`")
            return found
    found = [_id(token) for token in value]
    if all(one is not None or token is None for one, token in zip(found, value, strict=True)):
        other = next(token for token in value if type(token) is not int and token is not None)
        notes.say(f"`{name}` from values such as {short(other)}")
        return _unpadded(found, notes)
    if all(isinstance(token, str) for token in value):
        place = next(place for place, one in enumerate(found) if one is None)
        raise Unclear(f"{name}[{place}] = {short(value[place], 30)} is a piece of text", ASK_FOR_IDS)
    return value


def _id(token: Any) -> int | None:
    """The id that a value stands for; None if it stands for none."""
    if isinstance(token, str):
        if HEX.match(token):
            return int(token, 16)
        found = TOKEN_ID.match(token)
        return int(found[1]) if found else None
    if isinstance(token, float):
        return int(token) if math.isfinite(token) and token == int(token) else None
    return token if type(token) is int else None


def _unpadded(tokens: list[int | None], notes: Notes) -> list[int | None]:
    """Without the same negative id at its end, several times, or the one that trainers use."""
    last, count = tokens[-1], 0
    if last is None or last >= 0:
        return tokens
    while count < len(tokens) and tokens[-1 - count] == last:
        count += 1
    if count < 2 and last != IGNORED:
        return tokens
    notes.left_out[f"{last} at the ends"] = None
    return tokens[: len(tokens) - count]


def _flat(name: str, rows: list[list[Any]], notes: Notes) -> Any:
    if len(rows) == 1:
        notes.say(f"the one row of `{name}`")
        return ids_of(name, rows[0], notes)
    if all(len(row) == 1 for row in rows):
        notes.say(f"the one column of `{name}`")
        return ids_of(name, [row[0] for row in rows], notes)
    raise Unclear(f"{name} has {len(rows)} lists: a batch of runs, or codebooks", f"{ONE_RUN}, or the first codebook")


def reason_of(name: str, value: Any, tokens: Any, notes: Notes) -> Any:
    """A stop reason; None where a value says nothing of it. Raises Unclear for a run that a string ended."""
    if isinstance(value, Mapping) and "type" in value:  # SGLang
        if isinstance(value.get("matched"), str):
            raise _by_a_string(name, value["matched"])
        return reason_of(name, value["type"], tokens, notes)
    if isinstance(value, bool):
        return FLAGS[plain(name)][0 if value else 1] if plain(name) in FLAGS else None
    if isinstance(value, int) and isinstance(tokens, list) and tokens[-1:] == [value]:
        notes.words[str(value)] = "eos"
        return "eos"
    if not isinstance(value, str):
        return value
    word = ENUM.sub("", plain(value.strip("<>[]|/ ")))
    if word in STOP_STRINGS:
        raise _by_a_string(name, value)
    found = REASON_OF.get(word)
    if found is not None and found != value:
        notes.words[value] = found
    return found or value


def _by_a_string(name: str, value: str) -> Unclear:
    return Unclear(f"{name} = {short(value, 30)}: a string ended the run, not the model", "ask without stop strings")


def flagged(data: Mapping[str, Any], notes: Notes) -> str | None:
    """The stop reason that keys which are true or false give."""
    flags = {name: value for name, value in data.items() if isinstance(value, bool)}
    if any(plain(name) == "stopped_word" and value for name, value in flags.items()):
        raise _by_a_string("stopped_word", "true")
    found = {name: FLAGS[plain(name)] for name in flags if plain(name) in FLAGS}
    for reasons in ([each for each in found if data[each]], [each for each in found if not data[each]]):
        for name in reasons:
            reason = found[name][0 if data[name] else 1]
            if reason is not None:
                notes.read[name] = "stop_reason"
                return reason
    return None


def measures(key: str, name: str, value: Any, notes: Notes) -> Any:
    """Numbers of each step; None, and why, where some are missing, or there are none of the drawn tokens."""
    if key == "margin" and isinstance(value, list):
        return [None if one == math.inf else one for one in value]
    if key != "logprobs" or value is None:
        return value
    if not isinstance(value, list) or any(isinstance(one, Mapping | list) for one in value):
        notes.dropped[key] = f"`{name}` has more than a number for each token"
        return None
    if any(one is None or (isinstance(one, float) and one == -math.inf) for one in value):
        notes.dropped[key] = f"`{name}` has null or -inf"
        return None
    return value


def parameters(given: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """Sampling parameters by the names of SamplingConfig. strict: keep what has no such name, for it to be refused."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        key = PARAMETER_OF.get(plain(name), name if strict else "")
        if key and value is not None:
            number = _number(value)
            found.setdefault(key, 0 if key == "top_k" and number == -1 else number)
    return found


def _number(value: Any) -> Any:
    """The number that a text is."""
    if isinstance(value, str) and NUMBER.match(value):
        return int(value) if value.lstrip("-").isdigit() else float(value)
    return value


def name_of_ids(ids: Sequence[Any]) -> str:
    """A name for a prompt of which only the ids are known: the same for the same ids."""
    return f"ids {hashlib.sha256(repr(list(ids)).encode()).hexdigest()[:8]}"
