"""Small checkpoints in upstream's own layout, whose sizes stand under upstream's names."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, models

from sampler.t3.config import CHATTERBOX_MULTILINGUAL, T3Config
from tests.support import TINY, TURBO_TINY, random_weights

Tensors = dict[str, np.ndarray]

LETTERS = [*"abcdefghijklmnopqrstuvwxyzH.,!?'-", "x1", "x2", "x3"]
NAMES = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *LETTERS]
"""40 tokens; as in upstream's English tokenizer there is no `[en]`."""

ADDED = ("[laugh]", "[sigh]")
SPOKEN = "The harbour is quiet tonight. Why would anyone sell a lighthouse?"

ENGLISH = replace(TINY, name="chatterbox-english")
MULTILINGUAL, FIRST = (
    replace(TINY, name="chatterbox-multilingual", text_vocab_size=rows, tokenizer="multilingual",
            languages=CHATTERBOX_MULTILINGUAL.languages) for rows in (60, 52)
)  # fmt: skip
TURBO = replace(TURBO_TINY, name="chatterbox-turbo", text_vocab_size=275)
NANO = replace(TURBO, name="chatterbox-nano", num_layers=1, aligned_heads=())

GRAPHEMES, FIRST_GRAPHEMES = "grapheme_mtl_merged_expanded_v1.json", "mtl_tokenizer.json"
UPSTREAM: Mapping[str, tuple[T3Config, str]] = {
    "t3_cfg.safetensors": (ENGLISH, "tokenizer.json"),
    "t3_mtl23ls_v2.safetensors": (MULTILINGUAL, GRAPHEMES),
    "t3_mtl23ls_v3.safetensors": (MULTILINGUAL, GRAPHEMES),
    "t3_23lang.safetensors": (FIRST, FIRST_GRAPHEMES),
    "t3_turbo_v1.safetensors": (TURBO, "vocab.json"),
    "t3_nano_v1.safetensors": (NANO, "vocab.json"),
}
"""Upstream's files with sizes that are cut down; the code path is not."""


@functools.cache
def weights_of(config: T3Config) -> Mapping[str, np.ndarray]:
    return {name: np.array(value) for name, value in random_weights(config, 0).items()}


def write_tokenizer(path: Path, rows: int) -> None:
    """A tokenizer of so many tokens, with languages from 45 tokens on."""
    languages = [f"[{name}]" for name in ("en", "de", "fr", "ne")] if rows > len(NAMES) + 4 else []
    names = [*NAMES, *languages, *(f"y{place}" for place in range(rows))][:rows]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in [*names[:4], *languages]])
    tokenizer.save(str(path))


@functools.cache
def byte_level() -> ByteLevelBPETokenizer:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([SPOKEN] * 3, vocab_size=272, min_frequency=2, show_progress=False)
    return tokenizer


def write_byte_level(folder: Path, added: tuple[str, ...] = ADDED) -> int:
    """Turbo's files; returns the number of ids."""
    byte_level().save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["<|endoftext|>"] = len(vocabulary)
    places = {name: len(vocabulary) + place for place, name in enumerate(added)}
    for name, data in (("vocab.json", vocabulary), ("added_tokens.json", places)):
        (folder / name).write_text(json.dumps(data))
    return len(vocabulary) + len(added)


def voice_fields() -> dict[str, torch.Tensor]:
    """As in upstream's `T3Cond`; the numbers are whole in bfloat16."""
    speaker = torch.arange(256)[None].float() / 256
    return {
        "speaker_emb": speaker,
        "cond_prompt_speech_tokens": torch.arange(20)[None],
        "emotion_adv": 0.5 * torch.ones(1, 1, 1),
    }


def write_voice(folder: Path) -> None:
    gen = {"prompt_token": torch.zeros(1, 5), "embedding": torch.zeros(1, 192)}
    torch.save({"t3": {**voice_fields(), "clap_emb": None}, "gen": gen}, folder / "conds.pt")


@dataclass(frozen=True)
class Base:
    """A checkpoint in upstream's layout. name: of its weights."""

    name: str

    @property
    def config(self) -> T3Config:
        return UPSTREAM[self.name][0]

    @property
    def tensors(self) -> Tensors:
        return dict(weights_of(self.config))

    def write(self, folder: Path) -> None:
        """Everything but the weights."""
        if self.config.backbone == "gpt2":
            assert write_byte_level(folder) == self.config.text_vocab_size
        else:
            write_tokenizer(folder / UPSTREAM[self.name][1], self.config.text_vocab_size)
        write_voice(folder)

    def write_all(self, folder: Path) -> None:
        self.write(folder)
        save(folder / self.name, self.tensors)


ENGLISH_BASE, MULTILINGUAL_BASE, FIRST_BASE, TURBO_BASE, NANO_BASE = map(
    Base, [name for name in UPSTREAM if "v3" not in name]
)


def save(path: Path, tensors: Mapping[str, Any]) -> None:
    """A file of safetensors; MLX writes bfloat16, which NumPy lacks."""
    if any(isinstance(value, mx.array) for value in tensors.values()):
        mx.save_safetensors(str(path), {name: mx.array(value) for name, value in tensors.items()})
    else:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
