"""Load model, tokenizer and voice from a folder with a checkpoint's own files."""

import hashlib
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.errors import MissingPackage, WeightsError
from sampler.runtime.reading.source import Source, short
from sampler.runtime.reading.tensors import open_tensors
from sampler.t3.conditioning import Voice
from sampler.t3.config import CHATTERBOX_ENGLISH, CHATTERBOX_MULTILINGUAL, CHATTERBOX_NANO, CHATTERBOX_TURBO, T3Config
from sampler.t3.model import T3
from sampler.t3.tokenizer import TextTokenizer
from sampler.t3.weights import Dtype, read_weights

UPSTREAM_FILES: Mapping[str, tuple[T3Config, str]] = {
    "t3_cfg.safetensors": (CHATTERBOX_ENGLISH, "tokenizer.json"),
    "t3_mtl23ls_v2.safetensors": (CHATTERBOX_MULTILINGUAL, "grapheme_mtl_merged_expanded_v1.json"),
    "t3_mtl23ls_v3.safetensors": (CHATTERBOX_MULTILINGUAL, "grapheme_mtl_merged_expanded_v1.json"),
    "t3_23lang.safetensors": (replace(CHATTERBOX_MULTILINGUAL, text_vocab_size=2352), "mtl_tokenizer.json"),
    "t3_turbo_v1.safetensors": (CHATTERBOX_TURBO, "vocab.json"),
    "t3_nano_v1.safetensors": (CHATTERBOX_NANO, "vocab.json"),
}
"""Upstream's names of weights, with their sizes and their tokenizer (`vocab.json` stands for several files)."""

MOST_VALUES = 1 << 20
"""Of a tensor of a voice; upstream's have a few hundred."""

LARGEST = 3.4e38
"""No float32 is larger."""

OWN_FILES = ("weights.safetensors", "config.json", "tokenizer.json", "conds.safetensors")
"""The files in a folder like Finch's."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. checksum: SHA-256 of the weights file, hexadecimal."""

    model: T3
    tokenizer: TextTokenizer
    voice: Voice
    checksum: str

    @property
    def config(self) -> T3Config:
        return self.model.config


def load_checkpoint(path: Path, dtype: Dtype = "float32") -> Checkpoint:
    """Load a folder, or a weights file in a folder with several.

    dtype: of weights, cache and activations; norms and softmax accumulate in float32, logits are float32. Raises
    WeightsError naming the file and the problem, MissingPackage for a `conds.pt` without torch.
    """
    try:
        weights, config, tokenizer = find_files(path)
    except OSError as error:  # the folder may not be readable
        raise WeightsError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    text = TextTokenizer(weights.parent / tokenizer, config)
    voice = load_voice(weights.parent, config)
    model = T3(read_weights(weights, config, dtype), config)
    with weights.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(model, text, voice, checksum)


def find_files(path: Path) -> tuple[Path, T3Config, str]:
    """Weights file, config and name of the tokenizer for a folder or file."""
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for a name that is too long
        raise WeightsError(f"{path} does not exist", hint="give a folder with t3_cfg.safetensors, or that file")
    names = [OWN_FILES[0], *UPSTREAM_FILES]
    found = [path] if path.is_file() else [path / name for name in names if (path / name).exists()]
    if not found:
        raise WeightsError(f"{path} holds no weights", hint=f"expected one of {', '.join(names)}")
    if len(found) > 1:
        raise WeightsError(
            f"{path} holds {', '.join(file.name for file in found)}", hint="name the one file that you mean"
        )
    weights = found[0]
    if weights.name in UPSTREAM_FILES:
        config, tokenizer = UPSTREAM_FILES[weights.name]
        return weights, config, tokenizer
    settings = weights.parent / "config.json"
    if weights.name != OWN_FILES[0] or not settings.exists():
        raise WeightsError(f"{weights} is of no known kind", hint=f"upstream's names are {', '.join(UPSTREAM_FILES)}")
    return weights, T3Config.read(settings), "tokenizer.json"


def load_voice(folder: Path, config: T3Config) -> Voice:
    """Read the default voice: `conds.safetensors` (`t3.*`, as in mlx-audio) or upstream's `conds.pt`."""
    safe, pickled = folder / "conds.safetensors", folder / "conds.pt"
    if safe.exists():
        return check_voice(_read_safe(safe), config, safe.name)
    if pickled.exists():
        return check_voice(_read_pickled(pickled), config, pickled.name)
    raise WeightsError(f"{folder} has no voice", hint="expected conds.pt or conds.safetensors beside the weights")


def _read_safe(path: Path) -> dict[str, Any]:
    with open_tensors(Source(path, WeightsError, "is the download complete?")) as tensors:
        large = [name for name, entry in tensors.entries.items() if math.prod(entry.shape) > MOST_VALUES]
        if large:
            raise tensors.source.refuse(f"{short(large[0])} has more than {MOST_VALUES:,} values")
        return {name.removeprefix("t3."): tensors.get(name) for name in tensors.entries if name.startswith("t3.")}


def _read_pickled(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(
            f"{path.name} needs torch to be read", hint="pip install 'sampler-suite[reference]'"
        ) from error
    source = Source(path, WeightsError, "expected the conds.pt of upstream")
    content = io.BytesIO(source.content())
    try:
        data = torch.load(content, map_location="cpu", weights_only=True)
        return {name: _array(value) for name, value in data["t3"].items() if value is not None}
    except Exception as error:  # torch raises many types of exceptions for an invalid file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise source.unreadable(reason or type(error).__name__) from error


def _array(value: Any) -> NDArray[Any]:
    """A tensor as an array. Raises ValueError for one that would fill the memory."""
    size = value.numel() if hasattr(value, "numel") else np.size(value)
    if size > MOST_VALUES:
        raise ValueError(f"a tensor of {size:,} values")
    return np.asarray(value)


def check_voice(data: Mapping[str, Any], config: T3Config, source: str) -> Voice:
    """Build a Voice from upstream's `T3Cond` fields; WeightsError names the missing or invalid field."""
    speaker = _field(data, "speaker_emb", source)
    prompt = _field(data, "cond_prompt_speech_tokens", source)
    most = config.prompt_length if config.backbone == "gpt2" else config.speech_positions
    if speaker.shape != (config.speaker_size,) or not _is_finite(speaker):
        raise WeightsError(
            f"{source}: speaker_emb has {speaker.size} values, or not all are finite",
            hint=f"expected {config.speaker_size}",
        )
    if (
        not np.issubdtype(prompt.dtype, np.integer)
        or prompt.size > most
        or prompt.min(initial=0) < 0
        or prompt.max(initial=0) >= config.speech_vocab_size
    ):
        raise WeightsError(
            f"{source}: cond_prompt_speech_tokens do not fit",
            hint=f"expected at most {most} ids under {config.speech_vocab_size}",
        )
    voice = Voice(speaker.astype(np.float32), prompt.astype(np.int64))
    if config.backbone == "gpt2":
        return voice
    emotion = _field(data, "emotion_adv", source)
    if emotion.shape != (1,) or not _is_finite(emotion):
        raise WeightsError(f"{source}: emotion_adv is {short(emotion[:9].tolist())}", hint="expected one number")
    return replace(voice, emotion=float(emotion[0]))


def _is_finite(values: NDArray[Any]) -> bool:
    """Whether all are numbers that float32 can hold."""
    return values.dtype.kind in "fiu" and bool((np.abs(values.astype(np.float64)) < LARGEST).all())


def _field(data: Mapping[str, Any], name: str, source: str) -> NDArray[Any]:
    if name not in data:
        raise WeightsError(
            f"{source} has no {name!r}", hint="expected speaker_emb, cond_prompt_speech_tokens, emotion_adv"
        )
    return np.asarray(data[name]).reshape(-1)
