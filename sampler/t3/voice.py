"""The default voice of a folder: upstream's `conds.pt`, mlx-audio's `conds.safetensors`, and what others write."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sampler.errors import WeightsError
from sampler.runtime.reading.formats import PICKLE, SAFETENSORS, TORCH
from sampler.runtime.reading.source import short
from sampler.runtime.reading.tensors import open_tensors
from sampler.t3 import pickled
from sampler.t3.conditioning import Voice
from sampler.t3.config import T3Config
from sampler.t3.files import CheckpointFile, file_of, shown

NAMES: Final = ("conds.safetensors", "conds.pt")
"""Files with a voice, the first that is there."""

FIELD: Final = re.compile(r"(?:(.*)[._])?(speaker_emb|cond_prompt_speech_tokens|emotion_adv)")

MOST_VALUES: Final = 1 << 20
"""Of a tensor of a voice; upstream's have a few hundred."""

LARGEST: Final = 3.4e38
"""No float32 is larger."""


@dataclass(frozen=True)
class VoiceFile:
    """A voice and where it comes from. layout: how its fields are named, in words."""

    voice: Voice
    path: Path
    layout: str


def read_voice(folder: Path, config: T3Config) -> VoiceFile:
    """The default voice. Raises WeightsError naming the file and the field, MissingPackage without torch."""
    path = next((folder / name for name in NAMES if (folder / name).is_symlink() or (folder / name).exists()), None)
    if path is None:
        hint = "expected conds.pt or conds.safetensors beside the weights; that of the base model will do"
        raise WeightsError(f"{shown(folder)} has no voice", hint=hint)
    source = file_of(path)
    found = source.format()
    if found == SAFETENSORS:
        fields = _of_tensors(source)
    elif found in (TORCH, PICKLE):
        fields = {name: value for name, value in pickled.named(pickled.load(source)) if FIELD.fullmatch(name)}
    else:
        raise source.other(found, "safetensors" if path.suffix == ".safetensors" else "a voice that torch has saved")
    prefix, own = _chosen(fields)
    voice = check_voice({name: _array(source, name, value) for name, value in own.items()}, config, source)
    layout = f"{prefix!r} removed" if prefix else "fields without a prefix"
    if config.backbone == "llama" and "emotion_adv" not in own:
        layout += ", emotion_adv is 0.5 as nothing says another"
    return VoiceFile(voice, path, layout)


def _of_tensors(source: CheckpointFile) -> dict[str, Any]:
    with open_tensors(source) as tensors:
        names = [name for name in tensors.entries if FIELD.fullmatch(name)]
        large = [name for name in names if math.prod(tensors.entries[name].shape) > MOST_VALUES]
        if large:
            raise source.refuse(f"{short(large[0])} has more than {MOST_VALUES:,} values")
        return {name: tensors.get(name) for name in names}


def _chosen(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The prefix of T3's fields and these by their own names; `t3.` goes before others."""
    voices = dict[str, dict[str, Any]]()
    for name, value in fields.items():
        own = FIELD.fullmatch(name)[2]  # type: ignore[index] # all names match
        voices.setdefault(name.removesuffix(own), {})[own] = value
    if not voices:
        return "", {}
    prefix = min(voices, key=lambda prefix: (-len(voices[prefix]), not prefix.rstrip("._").endswith("t3"), prefix))
    return prefix, voices[prefix]


def _array(source: CheckpointFile, name: str, value: Any) -> NDArray[Any]:
    """A field as an array. Raises WeightsError for one that would fill the memory."""
    try:
        size = value.numel() if hasattr(value, "numel") else np.size(value)
        if size > MOST_VALUES:
            raise source.refuse(f"{name} has {size:,} values")
        return pickled.as_array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise source.refuse(f"{name} cannot be read: {error}") from error


def check_voice(data: Mapping[str, NDArray[Any]], config: T3Config, source: CheckpointFile) -> Voice:
    """Build a Voice from upstream's `T3Cond` fields; WeightsError names the missing or invalid field."""
    speaker = _field(data, "speaker_emb", source)
    prompt = _field(data, "cond_prompt_speech_tokens", source)
    most = config.prompt_length if config.backbone == "gpt2" else config.speech_positions
    if speaker.shape != (config.speaker_size,) or not _is_finite(speaker):
        raise source.refuse(
            f"speaker_emb has {speaker.size} values, or not all are finite", f"expected {config.speaker_size}"
        )
    if not speaker.any():
        raise source.refuse(f"speaker_emb is 0 in all of its {speaker.size} values", "take the voice of the base model")
    if (
        not np.issubdtype(prompt.dtype, np.integer)
        or prompt.size > most
        or prompt.min(initial=0) < 0
        or prompt.max(initial=0) >= config.speech_vocab_size
    ):
        raise source.refuse(
            "cond_prompt_speech_tokens do not fit",
            f"expected at most {most} whole numbers under {config.speech_vocab_size}",
        )
    voice = Voice(speaker.astype(np.float32), prompt.astype(np.int64))
    if config.backbone == "gpt2" or "emotion_adv" not in data:
        return voice
    emotion = _field(data, "emotion_adv", source)
    if emotion.shape != (1,) or not _is_finite(emotion):
        raise source.refuse(f"emotion_adv is {short(emotion[:9].tolist())}", "expected one number")
    return replace(voice, emotion=float(emotion[0]))


def _is_finite(values: NDArray[Any]) -> bool:
    """Whether all are numbers that float32 can hold."""
    return values.dtype.kind in "fiu" and bool((np.abs(values.astype(np.float64)) < LARGEST).all())


def _field(data: Mapping[str, NDArray[Any]], name: str, source: CheckpointFile) -> NDArray[Any]:
    if name not in data:
        raise source.refuse(
            f"has no {name!r}", "expected speaker_emb, cond_prompt_speech_tokens, emotion_adv", join=" "
        )
    return data[name].reshape(-1)
