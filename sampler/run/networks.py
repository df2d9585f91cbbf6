"""What a port of the core may do otherwise before the chain: the logits of other prompts, positions and steps."""

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import cache, partial

import numpy as np

from sampler.checks.scoring.named import Named
from sampler.engines.core import CoreEngine
from sampler.requests import Logits, Request
from sampler.run.network_causes import CAUSES, NETWORKS, Ids, Input, differs
from sampler.t3.branches import Prefixes

STALE = Named("cache", "the logits of the step before")

OTHER_NETWORKS = (*NETWORKS, STALE)


def other_logits(
    engine: CoreEngine,
    request: Request,
    tokens: Ids,
    among: Container[Named] | None,
    *,
    guided: bool,
    prefixes: Prefixes | None = None,
) -> Mapping[Named, Callable[[], Logits]]:
    """The logits (T, 2 if guided else 1, V) of other networks, all computed when the first are called for.

    among: None: all that are known. prefixes: of the engine's own model.
    """
    text = tuple(engine.ids(request.prompt, request.language))
    given = Input(engine, text, engine.generator.bos_count)
    changes = {**NETWORKS, **CAUSES, **_languages(engine, request)}
    inputs = {named: change(given) for named, change in changes.items() if among is None or named in among}
    inputs = {named: other for named, other in inputs.items() if differs(other, given, guided=guided)}
    if among is None or STALE in among:
        inputs[STALE] = given

    @cache
    def found() -> Mapping[Named, Logits]:
        logits = dict[Named, Logits]()
        for made in dict.fromkeys(one.made for one in inputs.values()):
            same = {named: one for named, one in inputs.items() if one.made is made}
            speech = [one.speech(tokens, guided=guided) for one in same.values()]
            model, known = next(iter(same.values())).model, prefixes if made is None else None
            for named, (of, _) in zip(same, model.forced_together(speech, prefixes=known), strict=True):
                logits[named] = np.ascontiguousarray(np.array(of).transpose(1, 0, 2))
        if STALE in logits:
            logits[STALE] = np.concatenate([logits[STALE][:1], logits[STALE][:-1]])
        return logits

    def of(named: Named) -> Logits:
        return found()[named]

    return {named: partial(of, named) for named in inputs}


def prompts(engine: CoreEngine, request: Request) -> dict[str, Ids]:
    """Ids that come before the speech, by what they are."""
    text, voice = engine.ids(request.prompt, request.language), engine.generator.checkpoint.voice.prompt.tolist()
    found = {"the ids of the text": text, "the tokens of the voice's prompt": voice}
    return {what: ids for what, ids in found.items() if len(ids)}


def _languages(engine: CoreEngine, request: Request) -> Mapping[Named, Callable[[Input], Input]]:
    """The same text in each language of the model."""
    if not isinstance(request.prompt, str):
        return {}

    def spoken(language: str, given: Input) -> Input:
        return replace(given, text=tuple(given.engine.ids(request.prompt, language)))

    languages = engine.generator.checkpoint.config.languages
    return {Named("position", f"{language} as the language"): partial(spoken, language) for language in languages}
