"""What a port of the core may do otherwise before the chain: the logits of other prompts, positions and steps."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from sampler.checks.scoring.named import Named
from sampler.engines.core import CoreEngine
from sampler.requests import Logits, Request
from sampler.t3.model import Speech

Ids = Sequence[int]


@dataclass(frozen=True)
class Input:
    """What teacher forcing gets. first: the position of the first drawn token."""

    engine: CoreEngine
    text: Ids
    bos_count: int | None
    first: int = 1


def _with_voice(**changes: object) -> Callable[[Input], Input]:
    def change(given: Input) -> Input:
        checkpoint = given.engine.generator.checkpoint
        voice = replace(checkpoint.voice, **changes)  # type: ignore[arg-type] # fields of Voice
        generator = replace(given.engine.generator, checkpoint=replace(checkpoint, voice=voice))
        return replace(given, engine=replace(given.engine, generator=generator))

    return change


def _with_text(change: Callable[[Ids], Ids]) -> Callable[[Input], Input]:
    return lambda given: replace(given, text=tuple(change(given.text)))


NETWORKS: Mapping[Named, Callable[[Input], Input]] = {
    Named("position", "one BOS in place of two"): lambda given: replace(given, bos_count=1),
    Named("position", "two BOS in place of one"): lambda given: replace(given, bos_count=2),
    Named("position", "no start id of the text"): _with_text(lambda text: text[1:]),
    Named("position", "no stop id of the text"): _with_text(lambda text: text[:-1]),
    Named("position", "a text without its last mark"): _with_text(lambda text: [*text[:-2], text[-1]]),
    Named("position", "a text without its first id"): _with_text(lambda text: [text[0], *text[2:]]),
    Named("position", "the first half of the text"): _with_text(lambda text: [*text[: len(text) // 2], text[-1]]),
    Named("position", "speech positions one behind"): lambda given: replace(given, first=0),
    Named("position", "speech positions one ahead"): lambda given: replace(given, first=2),
    Named("position", "no voice prompt"): _with_voice(prompt=np.zeros(0, np.int64)),
    Named("position", "no emotion"): _with_voice(emotion=0.0),
    Named("position", "full emotion"): _with_voice(emotion=1.0),
    Named("position", "a voice of zeros"): _with_voice(speaker=np.zeros(256, np.float32)),
}
"""By what is done otherwise, as a change of the input."""

STALE = Named("cache", "the logits of the step before")

OTHER_NETWORKS = (*NETWORKS, STALE)


def other_logits(
    engine: CoreEngine, request: Request, tokens: Ids, among: Container[Named], *, guided: bool
) -> Mapping[Named, Callable[[], Logits]]:
    """For rows of the table the logits (T, 2 if guided else 1, V), all computed when the first are called for."""
    text = tuple(engine.ids(request.prompt, request.language))
    given = Input(engine, text, engine.generator.bos_count)
    inputs = {named: change(given) for named, change in NETWORKS.items() if named in among}
    inputs = {named: other for named, other in inputs.items() if _differs(other, given)}
    if STALE in among:
        inputs[STALE] = given

    @cache
    def found() -> Mapping[Named, Logits]:
        logits = dict(zip(inputs, _forced(list(inputs.values()), tokens, guided=guided), strict=True))
        if STALE in logits:
            logits[STALE] = np.concatenate([logits[STALE][:1], logits[STALE][:-1]])
        return logits

    def of(named: Named) -> Logits:
        return found()[named]

    return {named: partial(of, named) for named in inputs}


def _differs(other: Input, given: Input) -> bool:
    """Whether an input is another one, and can be computed."""
    config = given.engine.generator.checkpoint.config
    usual = config.bos_count if given.bos_count is None else given.bos_count
    if other.first != given.first:
        return config.backbone == "llama"  # GPT-2 has no speech positions
    if other.bos_count != given.bos_count:
        return other.bos_count != usual
    return other.engine is not given.engine or (other.text != given.text and len(other.text) > 1)


def _forced(inputs: Sequence[Input], tokens: Ids, *, guided: bool) -> Iterator[Logits]:
    """The logits of each input, of which only the engine's voice may differ."""
    model = inputs[0].engine.generator.checkpoint.model

    def speech(given: Input) -> Speech:
        voice = given.engine.generator.checkpoint.voice
        return Speech(
            model.prefix(given.text, voice, bos_count=given.bos_count, guided=guided), tokens[:-1], given.first
        )

    for logits, _ in model.forced_together([speech(given) for given in inputs]):
        yield np.ascontiguousarray(np.array(logits).transpose(1, 0, 2))
