"""Load model, tokenizer and voice from a folder with a checkpoint's files, of upstream or of others."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sampler.errors import WeightsError
from sampler.t3.conditioning import Voice
from sampler.t3.config import (
    CHATTERBOX_ENGLISH,
    CHATTERBOX_MULTILINGUAL,
    CHATTERBOX_NANO,
    CHATTERBOX_TURBO,
    FINCH,
    T3Config,
    UnfitError,
)
from sampler.t3.content import Weights, open_weights
from sampler.t3.files import shown
from sampler.t3.folder import Chosen, find_weights, instead, read_own_config
from sampler.t3.model import T3
from sampler.t3.names import Layout
from sampler.t3.recognition import Structure, fitted, sizes_of
from sampler.t3.tokenizer import TextTokenizer, TokenizerFile, find_tokenizer
from sampler.t3.voice import VoiceFile, read_voice
from sampler.t3.weights import Dtype, check_shapes, read_weights, values_of

UPSTREAM_FILES: Mapping[str, tuple[T3Config, str]] = {
    "t3_cfg.safetensors": (CHATTERBOX_ENGLISH, "tokenizer.json"),
    "t3_mtl23ls_v2.safetensors": (CHATTERBOX_MULTILINGUAL, "grapheme_mtl_merged_expanded_v1.json"),
    "t3_mtl23ls_v3.safetensors": (CHATTERBOX_MULTILINGUAL, "grapheme_mtl_merged_expanded_v1.json"),
    "t3_23lang.safetensors": (replace(CHATTERBOX_MULTILINGUAL, text_vocab_size=2352), "mtl_tokenizer.json"),
    "t3_turbo_v1.safetensors": (CHATTERBOX_TURBO, "vocab.json"),
    "t3_nano_v1.safetensors": (CHATTERBOX_NANO, "vocab.json"),
}
"""Upstream's names of weights, with their sizes and their tokenizer (`vocab.json` stands for several files)."""

OWN_FILES = ("weights.safetensors", "config.json", "tokenizer.json", "conds.safetensors")
"""The files in a folder like Finch's."""

KNOWN_SIZES = "heads and special ids are in no tensor: write them into a config.json beside it, as docs/run.md shows"


@dataclass(frozen=True)
class Recognised:
    """What a folder holds, before its weights are read. dtypes: tensors by dtype; has_config: one of its own."""

    chosen: Chosen
    config: T3Config
    layout: Layout
    dtypes: Mapping[str, int]
    tokenizer: TextTokenizer
    voice: VoiceFile
    has_config: bool

    @property
    def weights(self) -> Path:
        return self.chosen.path

    def __str__(self) -> str:
        """Kind, file and layout, and how to choose another file if several would do."""
        choice = f"; {instead(self.chosen.others)}" if self.chosen.others else ""
        return f"{self.config.name} in {self.weights.name}: {self.layout}{choice}"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. checksum: SHA-256 of the weights file, hexadecimal; origin: the file and its layout."""

    model: T3
    tokenizer: TextTokenizer
    voice: Voice
    checksum: str
    origin: str = ""

    @property
    def config(self) -> T3Config:
        return self.model.config


def load_checkpoint(path: Path, dtype: Dtype = "float32") -> Checkpoint:
    """Load a folder, or a weights file in a folder with several (`find_weights` says which is taken).

    dtype: of weights, cache and activations; norms and softmax accumulate in float32, logits are float32. Raises
    WeightsError naming the file and the problem, MissingPackage for what torch has pickled without torch.
    """
    found = recognise(path)
    model = T3(read_weights(found.weights, found.config, dtype), found.config)
    with found.weights.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(model, found.tokenizer, found.voice.voice, checksum, str(found))


def load_voice(folder: Path, config: T3Config) -> Voice:
    """Read the default voice of a folder. Raises as `load_checkpoint`."""
    return read_voice(folder, config).voice


def recognise(path: Path) -> Recognised:
    """What a folder or a weights file is, from names and shapes. Raises as `load_checkpoint`, but reads no weights."""
    try:
        chosen = find_weights(path)
        weights = chosen.path
        own = read_own_config(weights.parent)
        with open_weights(weights) as opened:
            config, tokenizer = _config_of(opened, own)
            check_shapes(opened, config)
            dtypes = Counter(opened.dtypes.values())
        voice = read_voice(weights.parent, config)
        text = TextTokenizer(tokenizer.path, config, tokenizer)
        return Recognised(chosen, config, opened.layout, dtypes, text, voice, own is not None)
    except OSError as error:  # the folder may not be readable
        raise WeightsError(f"{shown(path)} cannot be read: {error.strerror}", hint="check its permissions") from error


def check_values(found: Recognised) -> None:
    """Read every tensor, one at a time. Raises WeightsError for NaN, and for a constant in place of weights."""
    with open_weights(found.weights) as opened:
        for _ in values_of(opened, found.config):
            pass


def _config_of(opened: Weights, own: T3Config | None) -> tuple[T3Config, TokenizerFile]:
    """The config, with the sizes of vocabularies that the file has, and the tokenizer that fits it."""
    known = [*UPSTREAM_FILES.values(), (FINCH, OWN_FILES[2])]
    structure = Structure.of(opened.shapes)
    if own is None and not any(structure.fits(config) for config, _ in known):
        raise opened.source.refuse(f"holds a T3 of unknown kind: {structure}", KNOWN_SIZES, join=" ")
    backbone = structure.backbone if own is None else own.backbone
    sizes = sizes_of(opened.shapes, backbone)
    vocabularies: dict[str, Any] = {name: size for name, size in sizes.items() if name.endswith("vocab_size")}
    rows = vocabularies.get("text_vocab_size")
    if rows is None:  # the table of texts is missing or of another shape
        check_shapes(opened, own or next(config for config, _ in known if structure.fits(config)))
        rows = 0
    names = dict.fromkeys([*(name for config, name in known if config.backbone == backbone), OWN_FILES[2]])
    usual = next((name for config, name in known if (config.backbone, config.text_vocab_size) == (backbone, rows)), "")
    tokenizer = find_tokenizer(opened.source.path.parent, rows, list(names), usual or next(iter(names)))
    try:
        if own is not None:
            return replace(own, **vocabularies), tokenizer
        return fitted(opened.shapes, [config for config, _ in known], tokenizer.vocabulary), tokenizer
    except UnfitError as error:
        raise opened.source.refuse(f"{error.field} = {error.value} does not fit", error.hint) from error
