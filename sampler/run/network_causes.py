"""What a port of the core may do otherwise before the chain: tables of changes to the input of a forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import mlx.core as mx
import numpy as np

from sampler.checks.scoring.named import Named
from sampler.engines.core import CoreEngine
from sampler.run import other_models
from sampler.run.other_models import OtherModel, OtherRotary
from sampler.t3.checkpoint import Checkpoint
from sampler.t3.model import T3, Speech
from sampler.t3.prefix_attention import Places, Reading

Ids = Sequence[int]


@dataclass(frozen=True)
class Input:
    """What teacher forcing gets. first, advance, reading: see Speech. changed: the prefix, from the right one.

    counted: what the speech positions count from: the speech, or all that is before it, or the text. made: another
    model than the engine's.
    """

    engine: CoreEngine
    text: Ids
    bos_count: int | None
    first: int = 1
    advance: int = 1
    changed: Callable[[mx.array, "Input"], mx.array] | None = None
    counted: Literal["speech", "prefix", "text"] = "speech"
    made: OtherModel | None = None
    reading: Reading | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        return self.engine.generator.checkpoint

    @property
    def model(self) -> T3:
        return self.checkpoint.model if self.made is None else _made(self.checkpoint.model, self.made)

    def speech(self, tokens: Ids, *, guided: bool) -> Speech:
        prefix = self.model.prefix(self.text, self.checkpoint.voice, bos_count=self.bos_count, guided=guided)
        prefix = prefix if self.changed is None else self.changed(prefix, self)
        counted = {"speech": self.first, "prefix": prefix.shape[1], "text": len(self.text)}[self.counted]
        most = self.checkpoint.config.speech_positions - len(tokens)
        return Speech(prefix, tokens[:-1], min(counted, most), self.advance, self.reading)


@lru_cache(maxsize=1)  # one is asked for at a time, run after run; rounded weights take as much memory as right ones
def _made(model: T3, change: OtherModel) -> T3:
    return change(model)


Change = Callable[[Input], Input]


def _with(**changes: object) -> Change:
    return lambda given: replace(given, **changes)  # type: ignore[arg-type] # fields of Input


def _with_voice(**changes: object) -> Change:
    def change(given: Input) -> Input:
        checkpoint = given.checkpoint
        voice = replace(checkpoint.voice, **changes)  # type: ignore[arg-type] # fields of Voice
        generator = replace(given.engine.generator, checkpoint=replace(checkpoint, voice=voice))
        return replace(given, engine=replace(given.engine, generator=generator))

    return change


def _with_rotary(**changes: float) -> Change:
    return _with(made=OtherRotary(tuple(changes.items())))


def _with_text(change: Callable[[Ids], Ids]) -> Change:
    return lambda given: replace(given, text=tuple(change(given.text)))


def _without_pieces(is_lost: Callable[[str], bool]) -> Change:
    """Without the ids of some pieces of the text."""

    def change(given: Input) -> Input:
        pairs = zip(given.text, given.checkpoint.tokenizer.pieces(given.text), strict=True)
        return replace(given, text=tuple(token for token, piece in pairs if not is_lost(piece)))

    return change


def _blank_text(prefix: mx.array, given: Input) -> mx.array:
    """The unconditional row without the positions of the text."""
    return _other_unconditional(prefix, _columns(given), mx.zeros_like)


def _blank_voice(prefix: mx.array, given: Input) -> mx.array:
    """The unconditional row without what is before the text."""
    return _other_unconditional(prefix, slice(_columns(given).start), mx.zeros_like)


def _padded_text(prefix: mx.array, given: Input) -> mx.array:
    """The unconditional row with the id 0 in place of each of the text."""
    return _other_unconditional(prefix, _columns(given), lambda rows: rows + given.checkpoint.model.embed_text([0]))


UNCONDITIONAL = (_blank_text, _blank_voice, _padded_text)
"""Changes of the unconditional row alone."""


def _columns(given: Input) -> slice:
    """Of the text in the prefix."""
    return given.checkpoint.model.text_columns(given.text, given.checkpoint.voice)


def _other_unconditional(prefix: mx.array, columns: slice, change: Callable[[mx.array], mx.array]) -> mx.array:
    rows = mx.array(prefix)  # a copy, which is written to
    rows[1:, columns] = change(rows[1:, columns])
    return rows


def _numbered_bos(prefix: mx.array, given: Input) -> mx.array:
    """The last BOS one position further."""
    bos = given.checkpoint.model.embed_speech([given.checkpoint.config.bos_id], [1])
    return mx.concatenate([prefix[:, :-1], mx.repeat(bos[None], len(prefix), axis=0)], axis=1)


def _plain_prompt(prefix: mx.array, given: Input) -> mx.array:
    """The voice's prompt without positions."""
    rows = given.checkpoint.model.conditioning(given.checkpoint.voice, numbered=False)[None]
    return mx.concatenate([mx.repeat(rows, len(prefix), axis=0), prefix[:, rows.shape[1] :]], axis=1)


def _filled_up(size: int) -> Callable[[Ids], Ids]:
    return lambda text: [*text, *[text[-1]] * (-len(text) % size)]


def _cut(size: int) -> Callable[[Ids], Ids]:
    return lambda text: [*text[: size - 1], text[-1]] if len(text) > size else text


def _turned(change: Callable[[int, Places], Places]) -> Change:
    return _with(reading=Reading(turned=change))


NETWORKS: Mapping[Named, Change] = {
    Named("position", "one BOS in place of two"): _with(bos_count=1),
    Named("position", "two BOS in place of one"): _with(bos_count=2),
    Named("position", "no start id of the text"): _with_text(lambda text: text[1:]),
    Named("position", "no stop id of the text"): _with_text(lambda text: text[:-1]),
    Named("position", "a text without its last mark"): _with_text(lambda text: [*text[:-2], text[-1]]),
    Named("position", "a text without its first id"): _with_text(lambda text: [text[0], *text[2:]]),
    Named("position", "the first half of the text"): _with_text(lambda text: [*text[: len(text) // 2], text[-1]]),
    Named("position", "speech positions one behind"): _with(first=0),
    Named("position", "speech positions one ahead"): _with(first=2),
    Named("position", "no voice prompt"): _with_voice(prompt=np.zeros(0, np.int64)),
    Named("position", "no emotion"): _with_voice(emotion=0.0),
    Named("position", "full emotion"): _with_voice(emotion=1.0),
    Named("position", "a voice of zeros"): _with_voice(speaker=np.zeros(256, np.float32)),
}
"""By what is done otherwise, as a change of the input. These are bet on."""


WINDOWS = (32, 48, 64, 80, 96, 100, 112, 128, 150, 160, 192, 200, 224, 256, 300, 320, 384, 400, 448, 500, 512)
CHUNKS = (8, 10, 16, 20, 25, 32, 40, 50, 64)


POSITIONS: Mapping[str, Change] = {
    "no BOS": _with(bos_count=0),
    "a position of its own for the last BOS": _with(changed=_numbered_bos),
    "speech positions that stay at 0": _with(first=0, advance=0),
    "speech positions that go on from the whole prompt": _with(counted="prefix"),
    "speech positions that go on from the text": _with(counted="text"),
    "rotary positions one ahead after the prompt": _turned(lambda prompt, places: places + 1),
    "rotary positions one behind after the prompt": _turned(lambda prompt, places: places - 1),
    "rotary positions that are counted twice": _turned(lambda prompt, places: 2 * places),
    "rotary positions that stay at 0 after the prompt": _turned(lambda prompt, places: 0 * places),
    "rotary positions that begin anew after the prompt": _turned(lambda prompt, places: places - prompt),
    "rotary frequencies without their scaling": _with_rotary(rope_factor=1.0),
    "a rotary base of 10,000": _with_rotary(rope_theta=10_000.0),
    "a rotary base of 10,000 without scaling": _with_rotary(rope_theta=10_000.0, rope_factor=1.0),
    "rotary pairs of neighbouring channels": _with(made=other_models.interleaved_rotary),
    "the text fed twice": _with_text(lambda text: [*text[:-1], *text[1:]]),
    "a text without its spaces": _without_pieces(lambda piece: piece.strip("▁Ġ ") in ("", "[SPACE]")),
    "a text without its language tag": _without_pieces(lambda piece: len(piece) == 4 and piece[0] + piece[-1] == "[]"),
    **{f"a text cut after {size} ids": _with_text(_cut(size)) for size in (16, 24, 32, 48, 64)},
    **{
        f"a text filled up with stop ids to a multiple of {size}": _with_text(_filled_up(size))
        for size in (8, 16, 32, 64)
    },
    **{f"an emotion of {size:g}": _with_voice(emotion=size) for size in (0.1, 0.25, 0.4, 0.6, 0.75, 0.9)},
    "the voice's prompt without positions": _with(changed=_plain_prompt),
    "what is before the text made without biases": _with(made=other_models.without_biases),
}

PRECISIONS: Mapping[str, Change] = {
    **{f"weights in {bits} bits": _with(made=other_models.rounded_by_mlx(bits)) for bits in (8, 4)},
    **{
        f"weights {of}in GGML's Q{bits}_0": _with(made=other_models.rounded_by_ggml(bits, layers=bool(of)))
        for bits in (8, 4)
        for of in ("", "of the layers ")
    },
    "weights in bfloat16": _with(made=other_models.in_dtype(mx.bfloat16)),
}

LAYERS: Mapping[str, Change] = {
    "attention without its scale": _with(made=other_models.scaled_attention(0.5)),
    "attention that is scaled twice": _with(made=other_models.scaled_attention(-0.5)),
    "GELU in place of SiLU": _with(made=other_models.with_gelu),
    "no first layer": _with(made=other_models.without_layer(0)),
    "no last layer": _with(made=other_models.without_layer(-1)),
}

GUIDANCE: Mapping[str, Change] = {
    "no text positions in the unconditional row": _with(changed=_blank_text),
    "no voice in the unconditional row": _with(changed=_blank_voice),
    "the text id 0, not zeros, in the unconditional row": _with(changed=_padded_text),
}

CACHES: Mapping[str, Reading] = {
    **{f"a window of the last {size} positions": other_models.window(size) for size in WINDOWS},
    **{f"no speech before the last multiple of {size} tokens": other_models.chunk(size) for size in CHUNKS},
    "no speech but the newest token": other_models.chunk(1),
    "each token without its own keys and values": Reading(visible=lambda prompt, queries, keys: keys < queries),
    **{
        f"zeros behind the newest token, up to a multiple of {size} positions": other_models.zeros_up_to(size)
        for size in (64, 128, 256, 512, 1024)
    },
    **{
        f"{count} positions of zeros before the prompt, as of padding that no mask hides": other_models.zeros(count)
        for count in (8, 16, 32, 64, 128)
    },
    **{f"keys and values in {bits} bits": other_models.kept_in_steps(bits) for bits in (8, 4)},
    "keys and values in bfloat16": other_models.kept_in(mx.bfloat16),
}

STAGES: Mapping[str, Mapping[str, Change]] = {
    "position": POSITIONS,
    "precision": PRECISIONS,
    "network": LAYERS,
    "cfg": GUIDANCE,
    "cache": {text: _with(reading=reading) for text, reading in CACHES.items()},
}

CAUSES: Mapping[Named, Change] = {
    Named(stage, text): change for stage, changes in STAGES.items() for text, change in changes.items()
}
"""Further ones, which are asked only when runs are rejected: each is a forward pass of every run."""


def differs(other: Input, given: Input, *, guided: bool) -> bool:
    """Whether an input is another one, and can be computed."""
    config = given.checkpoint.config
    llama, usual = config.backbone == "llama", config.bos_count if given.bos_count is None else given.bos_count
    if other.text != given.text:
        return 1 < len(other.text) <= config.text_positions
    if other.changed in UNCONDITIONAL:
        return guided
    if other.changed == _numbered_bos:
        return usual > 1
    if other.changed == _plain_prompt:
        return llama and len(given.checkpoint.voice.prompt) > 0
    if isinstance(other.made, OtherRotary):
        return llama and other.made.differs(config)
    if other.bos_count != given.bos_count:
        return other.bos_count != usual
    if other.engine is not given.engine or other.reading is not None:
        return True
    return llama and other != given  # GPT-2 has no speech positions, and other layers
