"""A folder with Turbo's own files: its byte-level BPE as transformers reads it, and the ways in which it is wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

from sampler import SamplingConfig
from sampler.errors import TextError, WeightsError
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3 import checkpoint as checkpoints
from sampler.t3.byte_level import read_byte_level
from sampler.t3.checkpoint import load_checkpoint
from sampler.t3.tokenizer import normalize_punctuation
from tests.interface.test_weights import assert_refused, spoiled
from tests.support import TURBO_TINY, random_weights

ADDED = ("[laugh]", "[clear throat]", "[sigh]")
SPEECH = "The harbour is quiet tonight. Why would anyone sell a lighthouse? [laugh] Hello there; hello - hello..."


def write_tokenizer(folder: Path, settings: dict[str, Any]) -> int:
    """Upstream's five files around a BPE of its own; returns the number of ids."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([SPEECH] * 3, vocab_size=320, min_frequency=2, show_progress=False)
    bpe.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["<|endoftext|>"] = len(vocabulary)
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    write(folder / "vocab.json", vocabulary)
    write(folder / "added_tokens.json", {name: len(vocabulary) + index for index, name in enumerate(ADDED)})
    write(folder / "special_tokens_map.json", special)
    write(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 60} | settings)
    return len(vocabulary) + len(ADDED)


def write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def remarks(first: int) -> dict[str, Any]:
    """What transformers writes of added tokens: spaces beside them, whole words only."""
    flags = [{"rstrip": True}, {"single_word": True}, {"lstrip": True, "normalized": True}]
    return {str(first + place): {"content": name} | flags[place] for place, name in enumerate(ADDED)}


@pytest.fixture(params=["bare", "remarks"], scope="module")
def tokenizer_folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    size = write_tokenizer(folder, {})
    if request.param == "remarks":
        write_tokenizer(folder, {"added_tokens_decoder": remarks(size - len(ADDED))})
    return folder


PIECES = st.lists(st.sampled_from([*ADDED, "<|endoftext|>", "[LAUGH]", "hello", " ", "  ", "é", ".", "x", "\n", "'s"]))


@given(PIECES.map("".join))
def test_ids_are_those_of_transformers(tokenizer_folder, text):
    theirs = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert read_byte_level(tokenizer_folder / "vocab.json").encode(text).ids == theirs(text).input_ids


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with Turbo's own file names; the sizes under those names are cut down, the code path is not."""
    config = replace(TURBO_TINY, name="chatterbox-turbo", text_vocab_size=write_tokenizer(tmp_path, {}))
    monkeypatch.setitem(checkpoints.UPSTREAM_FILES, "t3_turbo_v1.safetensors", (config, "vocab.json"))
    weights = {name: np.array(value) for name, value in random_weights(config, 0).items()}
    save_file(weights, tmp_path / "t3_turbo_v1.safetensors")
    write_voice(tmp_path)
    return tmp_path


def write_voice(folder: Path, **fields: Any) -> None:
    voice = {"speaker_emb": torch.ones(1, 256) / 16, "cond_prompt_speech_tokens": torch.arange(20)[None]}
    torch.save({"t3": {"clap_emb": None, "emotion_adv": None} | voice | fields, "gen": {}}, folder / "conds.pt")


def test_a_folder_with_upstreams_own_files_runs(folder):
    loaded = load_checkpoint(folder)
    assert (loaded.config.backbone, loaded.config.tokenizer) == ("gpt2", "turbo")
    assert loaded.voice.prompt.tolist() == list(range(20))
    theirs = AutoTokenizer.from_pretrained(folder)
    text = "hello there [sigh]; hello - you..."
    assert loaded.tokenizer.encode(text) == theirs(normalize_punctuation(text, "turbo")).input_ids
    answer = Generator(loaded, width=1).generate([Request(text, SamplingConfig(), 0, 5)])[0]
    assert 1 <= len(answer.tokens) <= 5
    assert answer.record.guided is False


def test_a_text_that_upstream_would_cut_off_is_refused(folder):
    """`truncation=True` at `model_max_length` would drop its end without a word."""
    tokenizer = load_checkpoint(folder).tokenizer
    assert len(tokenizer.encode("x" * 59)) == 60
    with pytest.raises(TextError, match=r"the text has 61 tokens \(chatterbox-turbo takes 60; split the text\)"):
        tokenizer.encode("x" * 60)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(TextError, match=r"the text has 66 tokens \(chatterbox-turbo takes 64"):
        load_checkpoint(folder).tokenizer.encode("x" * 65)


C_FC, WPE, OTHER = "tfmr.h.0.mlp.c_fc.weight", "tfmr.wpe.weight", "text_pos_emb.emb.weight"
LONG = torch.zeros(1, 21, dtype=torch.long)
WEIGHTS, ADDED_TOKENS, SETTINGS = "t3_turbo_v1.safetensors", "added_tokens.json", "tokenizer_config.json"


def tensors(change: Callable[[dict[str, np.ndarray]], object]):
    def spoil(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return spoil


def tokens_without(name: str):
    def spoil(folder: Path) -> None:
        ids = json.loads((folder / ADDED_TOKENS).read_text())
        write(folder / ADDED_TOKENS, {token: ids[token] for token in ids if token != name})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (tensors(lambda found: found.pop(WPE)), f" has no tensor '{WPE}' (expected the state dict of chatterbox"),
        (tensors(lambda found: found.update({OTHER: found[WPE]})), f" has an unknown tensor '{OTHER}'"),
        (tensors(lambda found: found.update({C_FC: found[C_FC].T.copy()})), f": '{C_FC}' has shape (48, 32) (chatt"),
        (spoiled("vocab.json"), "vocab.json does not exist (the tokenizer belongs beside"),
        (spoiled("merges.txt"), "merges.txt does not exist (it belongs beside vocab.json)"),
        (spoiled(ADDED_TOKENS), "added_tokens.json does not exist"),
        (spoiled("vocab.json", b"{"), "vocab.json, line 1 is no JSON: "),
        (spoiled("merges.txt", b"zz\n"), "vocab.json and merges.txt are no tokenizer: "),
        (spoiled(ADDED_TOKENS, b'["x"]'), "added_tokens.json: content = ['x'] (Input should be"),
        (
            spoiled(ADDED_TOKENS, b'{"[laugh]": "first"}'),
            "added_tokens.json: [laugh] = 'first' (Input should be a valid integer",
        ),
        (spoiled(SETTINGS, b'{"added_tokens_decoder": {"9": {}}}'), "key 'added_tokens_decoder.9.content' is missing"),
        (tokens_without("[laugh]"), "added_tokens.json: '[clear throat]' has id "),
        (tokens_without("[sigh]"), " rows (tokenizer and weights are of different versions)"),
        (spoiled("conds.pt"), "has no voice (expected conds.pt or conds.safetensors"),
        (partial(write_voice, cond_prompt_speech_tokens=LONG), "conds.pt: cond_prompt_speech_tokens do not fit (expe"),
        (partial(write_voice, speaker_emb=None), "conds.pt has no 'speaker_emb'"),
    ],
)
def test_a_spoiled_folder_is_refused_in_one_line(folder, spoil, expected):
    spoil(folder)
    assert_refused(lambda: load_checkpoint(folder), expected)


def test_a_config_without_room_for_speech_is_refused():
    with pytest.raises(WeightsError, match=r"turbo-tiny: positions = 86 \(expected room for conditioning, text and"):
        replace(TURBO_TINY, positions=86)
