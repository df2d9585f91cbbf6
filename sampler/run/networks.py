"""What a port of the core may do otherwise before the chain: the logits of other prompts, positions and steps."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

import mlx.core as mx
import numpy as np

from sampler.checks.scoring.named import Named
from sampler.engines.core import CoreEngine
from sampler.requests import Logits, Request
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3, Speech

Ids = Sequence[int]


@dataclass(frozen=True)
class Input:
    """What teacher forcing gets. first, advance, shift: see Speech. changed: the prefix, from the right one.

    rotary: fields of the config that make other rotary frequencies. bits: of the weights, 0 for those that they have.
    """

    engine: CoreEngine
    text: Ids
    bos_count: int | None
    first: int = 1
    advance: int = 1
    shift: int = 0
    changed: Callable[[mx.array, "Input"], mx.array] | None = None
    rotary: tuple[tuple[str, float], ...] = ()
    bits: int = 0

    @property
    def checkpoint(self) -> Checkpoint:
        return self.engine.generator.checkpoint

    @property
    def model(self) -> T3:
        return _made(self.checkpoint.model, self.rotary, self.bits)

    def speech(self, tokens: Ids, *, guided: bool) -> Speech:
        prefix = self.model.prefix(self.text, self.checkpoint.voice, bos_count=self.bos_count, guided=guided)
        prefix = prefix if self.changed is None else self.changed(prefix, self)
        return Speech(prefix, tokens[:-1], self.first, self.advance, self.shift)


@lru_cache(maxsize=8)  # all that the tables have: they are asked for in turn, run after run
def _made(model: T3, rotary: tuple[tuple[str, float], ...], bits: int) -> T3:
    turned = model.with_rotary(**dict(rotary)) if rotary else model
    return turned.in_bits(bits) if bits else turned


def _with_voice(**changes: object) -> Callable[[Input], Input]:
    def change(given: Input) -> Input:
        checkpoint = given.checkpoint
        voice = replace(checkpoint.voice, **changes)  # type: ignore[arg-type] # fields of Voice
        generator = replace(given.engine.generator, checkpoint=replace(checkpoint, voice=voice))
        return replace(given, engine=replace(given.engine, generator=generator))

    return change


def _with_rotary(**changes: float) -> Callable[[Input], Input]:
    return lambda given: replace(given, rotary=tuple(changes.items()))


def _with_text(change: Callable[[Ids], Ids]) -> Callable[[Input], Input]:
    return lambda given: replace(given, text=tuple(change(given.text)))


def _blank_text(prefix: mx.array, given: Input) -> mx.array:
    """The unconditional row without the positions of the text."""
    return _blank(prefix, given.checkpoint.model.text_columns(given.text, given.checkpoint.voice))


def _blank_voice(prefix: mx.array, given: Input) -> mx.array:
    """The unconditional row without what is before the text."""
    return _blank(prefix, slice(given.checkpoint.model.text_columns(given.text, given.checkpoint.voice).start))


def _blank(prefix: mx.array, columns: slice) -> mx.array:
    rows = np.array(prefix.astype(mx.float32))
    rows[1:, columns] = 0.0
    return mx.array(rows).astype(prefix.dtype)


def _numbered_bos(prefix: mx.array, given: Input) -> mx.array:
    """The last BOS one position further."""
    bos = given.checkpoint.model.embed_speech([given.checkpoint.config.bos_id], [1])
    return mx.concatenate([prefix[:, :-1], mx.repeat(bos[None], len(prefix), axis=0)], axis=1)


def _filled_up(size: int) -> Callable[[Ids], Ids]:
    return lambda text: [*text, *[text[-1]] * (-len(text) % size)]


def _cut(size: int) -> Callable[[Ids], Ids]:
    return lambda text: [*text[: size - 1], text[-1]] if len(text) > size else text


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
"""By what is done otherwise, as a change of the input. These are bet on."""

CAUSES: Mapping[Named, Callable[[Input], Input]] = {
    Named("position", "no BOS"): lambda given: replace(given, bos_count=0),
    Named("position", "a position of its own for the last BOS"): lambda given: replace(given, changed=_numbered_bos),
    Named("position", "speech positions that stay at 0"): lambda given: replace(given, first=0, advance=0),
    Named("position", "rotary positions one ahead after the prompt"): lambda given: replace(given, shift=1),
    Named("position", "rotary positions one behind after the prompt"): lambda given: replace(given, shift=-1),
    Named("position", "the text fed twice"): _with_text(lambda text: [*text[:-1], *text[1:]]),
    **{Named("position", f"a text cut after {size} ids"): _with_text(_cut(size)) for size in (16, 24, 32, 48, 64)},
    **{
        Named("position", f"an emotion of {size:g}"): _with_voice(emotion=size)
        for size in (0.1, 0.25, 0.4, 0.6, 0.75, 0.9)
    },
    **{
        Named("position", f"a text filled up with stop ids to a multiple of {size}"): _with_text(_filled_up(size))
        for size in (8, 16, 32, 64)
    },
    Named("position", "rotary frequencies without their scaling"): _with_rotary(rope_factor=1.0),
    Named("position", "a rotary base of 10,000"): _with_rotary(rope_theta=10_000.0),
    Named("position", "a rotary base of 10,000 without scaling"): _with_rotary(rope_theta=10_000.0, rope_factor=1.0),
    **{Named("precision", f"weights in {bits} bits"): partial(replace, bits=bits) for bits in (8, 4)},
    Named("cfg", "no text positions in the unconditional row"): lambda given: replace(given, changed=_blank_text),
    Named("cfg", "no voice in the unconditional row"): lambda given: replace(given, changed=_blank_voice),
}
"""Further ones, which are asked only when runs are rejected: each is a forward pass of every run."""

STALE = Named("cache", "the logits of the step before")

OTHER_NETWORKS = (*NETWORKS, STALE)


def other_logits(
    engine: CoreEngine, request: Request, tokens: Ids, among: Container[Named] | None, *, guided: bool
) -> Mapping[Named, Callable[[], Logits]]:
    """The logits (T, 2 if guided else 1, V) of other networks, all computed when the first are called for.

    among: None: all that are known.
    """
    text = tuple(engine.ids(request.prompt, request.language))
    given = Input(engine, text, engine.generator.bos_count)
    changes = {**NETWORKS, **CAUSES, **_languages(engine, request)}
    inputs = {named: change(given) for named, change in changes.items() if among is None or named in among}
    inputs = {named: other for named, other in inputs.items() if _differs(other, given, guided=guided)}
    if among is None or STALE in among:
        inputs[STALE] = given

    @cache
    def found() -> Mapping[Named, Logits]:
        logits = dict[Named, Logits]()
        for rotary, bits in dict.fromkeys((one.rotary, one.bits) for one in inputs.values()):
            same = {named: one for named, one in inputs.items() if (one.rotary, one.bits) == (rotary, bits)}
            speech = [one.speech(tokens, guided=guided) for one in same.values()]
            for named, (of, _) in zip(same, next(iter(same.values())).model.forced_together(speech), strict=True):
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


def _differs(other: Input, given: Input, *, guided: bool) -> bool:
    """Whether an input is another one, and can be computed."""
    config = given.checkpoint.config
    usual = config.bos_count if given.bos_count is None else given.bos_count
    if other.changed in (_blank_text, _blank_voice):
        return guided
    if other.bits:
        return config.backbone == "llama"
    if other.rotary:
        return config.backbone == "llama" and any(getattr(config, name) != value for name, value in other.rotary)
    if other.changed == _numbered_bos:
        return usual > 1
    if (other.first, other.advance) != (given.first, given.advance):
        return config.backbone == "llama"  # GPT-2 has no speech positions
    if other.bos_count != given.bos_count:
        return other.bos_count != usual
    if other.shift != given.shift or other.engine is not given.engine:
        return True
    return other.text != given.text and 1 < len(other.text) <= config.text_positions
