"""Answers of servers and of libraries, as runs: vLLM, OpenAI, llama.cpp, SGLang, TGI, and what wraps them.

Their log-probabilities are left out: they are those of the raw model, before temperature and filters, except where
llama.cpp says that they are not (`post_sampling_probs`).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sampler.results.store.logs.around import Data, Run, asked_of, known_of, with_known
from sampler.results.store.logs.columns import columns_of, holds, rows_of
from sampler.results.store.logs.names import plain
from sampler.results.store.logs.records import object_in
from sampler.results.store.logs.translated import BESIDE, is_run
from sampler.results.store.logs.values import ASK_FOR_IDS, TOKEN_ID, Notes, Unclear, name_of_ids, parameters

PART: Final = "part of"
"""The key by which a part of a streamed answer names the whole."""

ANSWER: Final = "answer"
"""The key of an answer's own id, by which its prompt is called if nothing else names it."""

WRAPPERS: Final = (
    *("response", "body", "result", "output", "completion", "data", "generation", "generated", "prediction"),
    *("json_payload", "row", "run", "record", "fields", "_source"),
)
"""Keys that hold an answer, beside what was asked, or a run, beside what a logger or a table says of it."""

MESSAGES: Final = ("log", "message", "msg", "event", "line", "text")
"""Keys under which loggers write a text."""

LISTS: Final = (
    *("runs", "results", "generations", "samples", "items", "lines", "records", "rows", "data", "events", "entries"),
    *("responses", "predictions", "examples", "outputs", "completions", "utterances"),
)
"""Usual names of a list of runs, which are not the name of a prompt."""

DEEPEST: Final = 4
"""Objects in each other around a run."""

FLAGGED: Final = {"stopped_eos": "eos", "stopped_limit": "limit", "stopped_word": "word"}
"""Flags of llama.cpp before it had `stop_type`."""

STAGES: Final = {
    "penalties": "repetition_penalty",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typ_p": "typical_p",
    "temperature": "temperature",
}
"""Samplers of llama.cpp, as stages; others are off unless they were asked for."""


def runs_in(data: Data, notes: Notes, around: Data | None = None, depth: int = 0) -> Iterator[Run]:
    """The runs of an object: itself, or those in it. around: what was asked. Raises Unclear."""
    known = known_of(data, around or {})
    served = _served(data, notes)
    if served is not None:
        yield from (with_known(known, run) for run in served)
        return
    if (columns := columns_of(data, notes, known)) is not None:
        yield from columns
        return
    if (rows := rows_of(data)) is not None:
        notes.say("a table's rows as runs")
        for row in rows:
            yield from runs_in(row, notes, known, DEEPEST)
        return
    if is_run(data) or depth >= DEEPEST:
        yield with_known(known, data)
        return
    _refuse_others(data)
    plainly = {plain(name): value for name, value in data.items()}
    wrapper = next((name for name in WRAPPERS if isinstance(plainly.get(name), dict)), None)
    inner = plainly[wrapper] if wrapper else _message(plainly, notes)
    if wrapper:
        notes.say(f"what is in `{wrapper}`")
    if inner is not None:
        beside = {name: value for name, value in data.items() if not isinstance(value, dict | list)}
        yield from runs_in(inner, notes, asked_of(beside, known), depth + 1)
    else:
        yield from _nested(data, notes, known, depth)


def _message(data: Data, notes: Notes) -> Any:
    """An object that a logger wrote in the text of its message; None if there is none."""
    for name in MESSAGES:
        text = data.get(name)
        found = object_in(text) if isinstance(text, str) else None
        if found is not None:
            notes.say(f"the JSON in `{name}`")
            return found
    return None


def _refuse_others(data: Data) -> None:
    """Raise Unclear for objects that are known to hold no run."""
    if data.get("kind") in ("header", "verdict", "footer"):
        raise Unclear("is the run file of sampler, not its tokens", "they are in tokens.jsonl beside it")
    if data.get("error") and not any(isinstance(data.get(name), dict) for name in WRAPPERS):
        raise Unclear("is the error of a server, without tokens", "leave it out")
    if isinstance(data.get("sequences"), list):
        complaint = "has `sequences` of generate(), which may hold the prompt too"
        raise Unclear(complaint, "log sequences[:, input_ids.shape[1]:]")
    if {"outcome", "verdicts"} <= data.keys():
        raise Unclear("is a report of sampler check, not the log", "give the log that it judges")
    if isinstance(data.get("detail"), str) and len(data) == 1:
        raise Unclear("is the error of a server, without tokens", "leave it out")
    if isinstance(data.get("token"), int | dict) or isinstance(data.get("token_id"), int):
        raise Unclear("has one token", "write all tokens of a run in one line")
    is_message = data.get("object") == "response" or data.get("type") in ("message", "text", "output_text")
    if is_message or isinstance(data.get("response"), str) or isinstance(data.get("content"), str):
        raise Unclear("is an answer with text and no ids", ASK_FOR_IDS)


def _nested(data: Data, notes: Notes, known: Run, depth: int) -> Iterator[Run]:
    """The runs of the one list of an object, those of objects by the name of their prompt, or of columns."""
    lists = {name: value for name, value in data.items() if holds(value, dict)}
    usual = {name: value for name, value in lists.items() if plain(name) in LISTS}
    lists = usual if len(usual) == 1 else lists
    if data and len(lists) == len(data) and not usual:
        notes.say("names of lists as prompt")
        for name, runs in lists.items():
            for run in runs:
                yield from runs_in(run, notes, {**known, "prompt": name}, depth + 1)
    elif len(lists) == 1:
        ((name, runs),) = lists.items()
        notes.say(f"the list `{name}`")
        beside = asked_of({key: value for key, value in data.items() if key != name}, known)
        for run in runs:
            yield from runs_in(run, notes, beside, depth + 1)
    elif data and all(isinstance(value, dict) and is_run(value) for value in data.values()):
        notes.say("names of objects as prompt")
        for name, run in data.items():
            yield with_known({**known, "prompt": name}, run)
    else:
        yield with_known(known, data)


def _served(data: Data, notes: Notes) -> list[Run] | None:
    """The runs of a server's answer; None if it is none."""
    choices = data.get("choices")
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        return [_choice(data, choice, notes, single=len(choices) == 1) for choice in choices]
    outputs: Any = data.get("outputs")
    if holds(outputs, dict) and all("token_ids" in one for one in outputs):
        return [_choice(data, output, notes, single=len(outputs) == 1) for output in outputs]
    meta = data.get("meta_info")
    if isinstance(meta, dict) and "finish_reason" in meta:
        notes.say("answers of SGLang")
        rows = meta.get("output_token_logprobs") or ()
        ids = data.get("output_ids") or [row[1] for row in rows if isinstance(row, list) and len(row) > 1]
        return [
            {
                **_named(data, {"id": meta.get("id")}),
                "tokens": ids,
                "stop_reason": meta["finish_reason"],
                PART: "SGLang",
            }
        ]
    details = data.get("details")
    if isinstance(details, dict) and "finish_reason" in details:
        notes.say("answers of TGI")
        own = {"seed": details["seed"]} if isinstance(details.get("seed"), int) else {}
        ids = _ids_of(details.get("tokens"))
        return [{**own, **_named(data), "tokens": ids, "stop_reason": details["finish_reason"], PART: "TGI"}]
    if "tokens_predicted" in data or "generation_settings" in data or "completion_probabilities" in data:
        return [_llama(data, notes)]
    return None


def _choice(data: Data, choice: Data, notes: Notes, *, single: bool) -> Run:
    """One choice of vLLM, OpenAI or llama.cpp's server, whole or a part of a stream."""
    delta = choice.get("delta") if isinstance(choice.get("delta"), dict) else {}
    logprobs = choice.get("logprobs") if isinstance(choice.get("logprobs"), dict) else {}
    sources = (
        *(choice.get(name) for name in ("token_ids", "output_token_ids", "response_token_ids")),
        (delta or {}).get("token_ids"),
        _ids_of((logprobs or {}).get("tokens")),
        _ids_of((logprobs or {}).get("content")),
        _ids_of(((data.get("__verbose") or {}) if isinstance(data.get("__verbose"), dict) else {}).get("tokens")),
    )
    ids = next((found for found in sources if found), [])
    if logprobs:
        notes.left_out["logprobs"] = None
    reason, by = choice.get("finish_reason"), choice.get("stop_reason")
    if isinstance(by, str) and by and reason == "stop":
        raise Unclear("was ended by a string, not by the model", "ask without stop strings")
    notes.say("choices as runs" if "choices" in data else "outputs of vLLM as runs")
    found = {**_named(data, choice if choice.get("prompt_token_ids") else data), "tokens": ids, "stop_reason": reason}
    if single and isinstance(data.get("seed"), int):
        found["seed"] = data["seed"]
    return {**found, PART: f"{data.get('id')}/{choice.get('index', 0)}"}


def _llama(data: Data, notes: Notes) -> Run:
    """An answer of llama.cpp's `/completion`, whole or a part of a stream."""
    notes.say("answers of llama.cpp")
    rows = data.get("completion_probabilities")
    ids = data.get("tokens") or _ids_of(rows)
    flags = (word for name, word in FLAGGED.items() if data.get(name) is True)
    reason = None if data.get("stop") is False else data.get("stop_type") or next(flags, None)
    found = {**_named(data), "tokens": ids, "stop_reason": reason}
    settings = data.get("generation_settings")
    if isinstance(settings, dict):
        found["config"] = _settings(settings)
        notes.say("`generation_settings` as config")
    drawn = [row.get("prob") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else []
    chances = [chance for chance in drawn if isinstance(chance, float | int) and chance > 0]
    if ids and len(chances) == len(drawn) == len(ids):
        found["logprobs"] = [min(0.0, math.log(chance)) for chance in chances]
    found[PART] = f"slot {data.get('id_slot')}/{data.get('index', 0)}"
    return found


def _settings(settings: Data) -> Run:
    """The sampling parameters and the order of llama.cpp, whose numbers were float32."""
    own = {name: value for name, value in settings.items() if plain(name) in BESIDE}
    config = parameters(own, strict=False)
    config = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in config.items()}
    stages = [STAGES[name] for name in settings.get("samplers") or () if name in STAGES]
    return {**config, **({"order": ["cfg", "alignment", *stages]} if stages else {})}


def joined(runs: Iterable[Run], parts: dict[str, Run]) -> Iterator[Run]:
    """Whole runs, whose parts may be in several objects of a log. parts: those without an end so far, by name.

    Raises Unclear for an answer that has no ids.
    """
    for run in runs:
        name = run.pop(PART, None)
        before = parts.pop(name, {}) if name else {}
        tokens = [*before.get("tokens", ()), *run["tokens"]] if name else run.get("tokens")
        whole = {**run, "tokens": tokens} if name else run
        if name and run["stop_reason"] is None:
            parts[name] = whole
        elif name and not tokens:
            raise Unclear("is an answer with text and no ids", ASK_FOR_IDS)
        else:
            yield whole


def _ids_of(rows: Any) -> list[int]:
    """Ids in rows that have them, as `{"id": 5}`, or as vLLM's `token_id:5`; none if one has not."""
    found = []
    for row in rows if isinstance(rows, list) else ():
        text = row.get("token") if isinstance(row, dict) else row
        own = row.get("id") if isinstance(row, dict) else row
        match = TOKEN_ID.match(text) if isinstance(text, str) and text.startswith("token_id:") else None
        if type(own) is not int and match is None:
            return []
        found.append(own if type(own) is int else int(match[1]) if match else 0)
    return found


def _named(data: Data, asked: Data | None = None) -> Run:
    """The prompt of an answer: the text, the ids, or the answer's own id, which no other has."""
    prompt = data.get("prompt")
    ids = (asked or {}).get("prompt_token_ids") or data.get("prompt_token_ids")
    if prompt not in (None, "", []):
        return {"prompt": prompt}
    if isinstance(ids, list):
        return {"prompt": name_of_ids(ids)}
    return {ANSWER: next((one for one in ((asked or {}).get("id"), data.get("id"), data.get("request_id")) if one), "")}
