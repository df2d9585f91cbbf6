"""What a log says of a run around its tokens: the request, or an object that holds several runs."""

from collections.abc import Mapping
from typing import Any, Final

from sampler.results.store.logs.names import KEY_OF, plain
from sampler.results.store.logs.translated import BESIDE, rank_of
from sampler.results.store.logs.values import parameters

Run = dict[str, Any]
Data = Mapping[str, Any]

ASKED: Final = ("request", "payload", "query")


def known_of(data: Data, around: Data) -> Run:
    """What a log says around an object, and what was asked for beside it."""
    known = dict(around)
    for name in ASKED:
        if isinstance(asked := data.get(name), dict):
            known = asked_of(asked, known)
    return known


def asked_of(asked: Data, known: Data) -> Run:
    """What a request, or an object around runs, says of them, by the keys of TOKENS.jsonl."""
    found: Run = {}
    for name, value in sorted(asked.items(), key=lambda pair: rank_of(pair[0])):
        key = KEY_OF.get(plain(name))
        if key in ("prompt", "text", "language", "config", "variant", "seed") and value not in (None, ""):
            found.setdefault(key, value)
    if isinstance(messages := asked.get("messages"), list) and messages and isinstance(messages[-1], dict):
        found.setdefault("prompt", messages[-1].get("content"))
    given = found.get("config")
    config = parameters({name: value for name, value in asked.items() if plain(name) in BESIDE}, strict=False)
    config |= parameters(given, strict=False) if isinstance(given, dict) else {}
    return {**known, **found, **({"config": config} if config else {})}


def with_known(known: Data, run: Data) -> Run:
    """A run with what is known of it from elsewhere, which its own keys come before."""
    own = {KEY_OF.get(plain(name)) for name, value in run.items() if value is not None}
    return {**{key: value for key, value in known.items() if key not in own}, **run}
