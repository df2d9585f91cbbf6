"""Reading checkpoints: upstream's file names, and every way in which a file can be wrong."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models

from sampler import SamplingConfig, finch
from sampler.errors import MissingPackage, TextError, WeightsError
from sampler.generation.generator import Generator
from sampler.requests import Request
from sampler.t3 import checkpoint as checkpoints
from sampler.t3.checkpoint import load_checkpoint
from sampler.t3.config import CHATTERBOX_ENGLISH, CHATTERBOX_MULTILINGUAL, T3Config
from sampler.t3.weights import expected_shapes, read_weights
from tests.support import TINY, random_text, random_weights

WEIGHTS = {name: np.array(value) for name, value in random_weights(TINY, 0).items()}


def write(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def test_upstream_counts():
    for config, parameters in ((CHATTERBOX_ENGLISH, 532_405_248), (CHATTERBOX_MULTILINGUAL, 535_989_248)):
        shapes = expected_shapes(config)
        assert len(shapes) == 292
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_read_as_float32(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    stored = {name: mx.array(value).astype(getattr(mx, dtype)) for name, value in WEIGHTS.items()}
    mx.save_safetensors(str(path), stored)
    for name, value in read_weights(path, TINY).items():
        assert value.dtype == mx.float32
        np.testing.assert_array_equal(np.array(value), np.array(stored[name].astype(mx.float32)))


def without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in WEIGHTS.items() if name not in key}


HEAD, UNKNOWN, NORM = "speech_head.weight", "tfmr.layers.2.mlp.up_proj.weight", "tfmr.norm.weight"


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (without(HEAD), f" has no tensor '{HEAD}' (expected the state dict of tiny)"),
        (without(HEAD) | {"speech_head": WEIGHTS[HEAD]}, f" has no tensor '{HEAD}'"),
        (WEIGHTS | {UNKNOWN: np.zeros((2, 2), np.float32)}, f" has an unknown tensor '{UNKNOWN}'"),
        (without("layers.1."), " has no tensor 'tfmr.layers.1.input_layernorm.weight' and 8 more"),
        (WEIGHTS | {NORM: np.ones(31, np.float32)}, ": 'tfmr.norm.weight' has shape (31,) (tiny has (32,))"),
        (WEIGHTS | {NORM: np.full(32, np.nan, np.float32)}, f": '{NORM}' has 32 of 32 values that are NaN or inf"),
        (WEIGHTS | {NORM: np.ones(32, np.int32)}, ": 'tfmr.norm.weight' is I32 (expected F32, F16, BF16 or F64)"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_tensor(tmp_path, tensors, expected):
    with pytest.raises(WeightsError, match="^weights.safetensors" + re.escape(expected)):
        read_weights(write(tmp_path, tensors), TINY)


@pytest.mark.parametrize("keep", [0, 5, 4_000, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = write(tmp_path, WEIGHTS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"weights.safetensors cannot be read: .*\(is the download complete\?\)"):
        read_weights(path, TINY)


@pytest.fixture
def upstream_folder(tmp_path, monkeypatch) -> Path:
    """A folder with upstream's own file names; the sizes under those names are cut down, the code path is not."""
    small = replace(TINY, name="chatterbox-english", text_vocab_size=40)
    monkeypatch.setitem(checkpoints.UPSTREAM_FILES, "t3_cfg.safetensors", (small, "tokenizer.json"))
    save_file(WEIGHTS, tmp_path / "t3_cfg.safetensors")
    names = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *"abcdefghijklmnopqrstuvwxyzH.,!?'-", "x1", "x2", "x3"]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names[:4]])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    voice = {"speaker_emb": torch.ones(1, 256) / 16, "cond_prompt_speech_tokens": torch.arange(20)[None]}
    voice |= {"clap_emb": None, "cond_prompt_speech_emb": None, "emotion_adv": 0.5 * torch.ones(1, 1, 1)}
    torch.save({"t3": voice, "gen": {"prompt_token": torch.zeros(1, 5)}}, tmp_path / "conds.pt")
    return tmp_path


def test_a_folder_with_upstreams_own_files_runs(upstream_folder):
    loaded = load_checkpoint(upstream_folder)
    assert loaded.config.tokenizer == "english"
    assert loaded.voice.prompt.tolist() == list(range(20))
    assert loaded.voice.emotion == 0.5
    assert loaded.tokenizer.encode("hi")[0] == loaded.config.start_text_id
    assert loaded.model.prefix(random_text(TINY, 5, 0), loaded.voice).shape[0] == 2
    answer = Generator(loaded, width=1).generate([Request("Hello there.", SamplingConfig(), 0, 5)])[0]
    assert 1 <= len(answer.tokens) <= 5
    # The weights file itself may be named, and has to be where there are two, of which one is not upstream's.
    save_file(WEIGHTS, upstream_folder / "mine.safetensors")
    with pytest.raises(WeightsError, match=r"holds t3_cfg.safetensors, mine.safetensors \(name the one file"):
        load_checkpoint(upstream_folder)
    assert load_checkpoint(upstream_folder / "t3_cfg.safetensors").config.name == "chatterbox-english"


SPEAKER, SPOKEN = "speaker_emb", "cond_prompt_speech_tokens"


@pytest.mark.parametrize(
    ("voice", "expected"),
    [
        ({}, "conds.pt has no 'speaker_emb'"),
        ({SPEAKER: torch.ones(1, 255)}, "conds.pt: speaker_emb has 255 values, or not all are finite (expected 256)"),
        ({SPEAKER: torch.full((1, 256), torch.nan)}, "conds.pt: speaker_emb has 256 values, or not all are finite"),
        ({SPOKEN: torch.full((1, 5), 66)}, "conds.pt: cond_prompt_speech_tokens do not fit"),
        ({SPOKEN: torch.full((1, 5), torch.nan)}, "conds.pt: cond_prompt_speech_tokens do not fit"),
        ({"emotion_adv": torch.ones(2)}, "conds.pt: emotion_adv is [1.0, 1.0] (expected one number)"),
    ],
)
def test_a_voice_that_does_not_fit_is_refused_by_field(upstream_folder, voice, expected):
    good = torch.load(upstream_folder / "conds.pt", weights_only=True)["t3"]
    torch.save({"t3": {**good, **voice} if voice else {}, "gen": {}}, upstream_folder / "conds.pt")
    with pytest.raises(WeightsError, match="^" + re.escape(expected)):
        load_checkpoint(upstream_folder)


@pytest.mark.parametrize("content", [b"", b"pickle"])
def test_a_voice_file_that_is_empty_or_runs_code_is_refused(upstream_folder, content):
    """`weights_only=True`: a voice file cannot run a program."""
    (upstream_folder / "conds.pt").write_bytes(content)
    if content:
        torch.save({"t3": Path("x")}, upstream_folder / "conds.pt")
    with pytest.raises(WeightsError, match=r"conds.pt cannot be read: \w+"):
        load_checkpoint(upstream_folder)


def test_a_voice_needs_torch_only_where_it_is_pickled(upstream_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    expected = "conds.pt needs torch to be read (pip install 'sampler-suite[reference]')"
    with pytest.raises(MissingPackage, match=re.escape(expected)):
        load_checkpoint(upstream_folder)
    assert finch.load().voice.prompt.size == 150


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heads": 3}, "unknown key 'heads' (keys: name, backbone"),
        ({"num_layers": 6.5}, "num_layers = 6.5 (Input should be a valid integer"),
        ({"tokenizer": "french"}, "tokenizer = 'french' (Input should be 'english', 'multi"),
        ({"languages": 3}, "languages = 3 (Input should be a valid array"),
        ({"aligned_heads": [1, 2]}, "aligned_heads[0] = 1 (Input should be a valid"),
        ({"aligned_heads": [[9, 0]]}, "aligned_heads = ((9, 0),) (expected pairs below (6, 4))"),
        ({"num_heads": 5}, "num_heads = 5 (expected a divisor of 192 that leaves an even"),
        ({"num_heads": 0}, "num_heads = 0 (expected 1 or more)"),
        ({"perceiver_heads": 7}, "perceiver_heads = 7 (expected a divisor of 192)"),
        ({"bos_id": 99999}, "bos_id = 99999 (expected a speech token)"),
        ({"eos_id": -1}, "eos_id = -1 (expected a speech token)"),
        ({"start_text_id": 79}, "start_text_id = 79 (expected a text token)"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0 (expected a number > 0)"),
    ],
)
def test_a_config_is_read_and_a_spoiled_one_refused(tmp_path, changes, expected):
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_dict()))
    assert T3Config.read(tmp_path / "config.json") == TINY
    data = json.loads((finch.folder() / "config.json").read_text(encoding="utf-8")) | changes
    (tmp_path / "config.json").write_text(json.dumps(data), encoding="utf-8")
    assert_refused(lambda: T3Config.read(tmp_path / "config.json"), expected)


VOICE, HALF = "conds.safetensors", {"t3.speaker_emb": mx.zeros((1, 256), mx.bfloat16)}


def spoiled(file: str, content: bytes | None = None):
    return lambda folder: (folder / file).unlink() if content is None else (folder / file).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoiled(VOICE), "has no voice (expected conds.pt or conds.safetensors"),
        (spoiled(VOICE, b"x"), "conds.safetensors is plain text, not safetensors"),
        (spoiled("config.json", b"{"), "config.json, line 1 is no JSON: "),
        (spoiled("config.json", b"[]"), "config.json: content = [] (Input should be an object"),
        (spoiled("weights.safetensors"), "holds no weights (expected one of weights.safetensors, t3"),
        (spoiled("tokenizer.json"), "tokenizer.json does not exist"),
        (lambda folder: mx.save_safetensors(str(folder / VOICE), HALF), "conds.safetensors has no 'cond_prompt_speech"),
        (shutil.rmtree, "does not exist (give a folder with t3_cfg.safetensors, or that file)"),
    ],
)
def test_a_spoiled_folder_is_refused_by_file(tmp_path, spoil, expected):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in checkpoints.OWN_FILES:
        shutil.copy(finch.folder() / name, folder)
    spoil(folder)
    assert_refused(lambda: load_checkpoint(folder), expected)


def assert_refused(read: Callable[[], object], expected: str) -> None:
    with pytest.raises(WeightsError) as error:
        read()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_with_an_id_beyond_the_embedding_is_refused(upstream_folder):
    data = json.loads((upstream_folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["x3"] = 4_000
    (upstream_folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(WeightsError, match=r"tokenizer.json has 40 ids up to 4000, text_emb has 40 rows"):
        load_checkpoint(upstream_folder)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([10**6], "speech id 1000000 is no token (0 to 65)"),
        ([-5], "speech id -5"),
        ([1] * 132, "132 speech tokens (at most 131)"),
    ],
)
def test_teacher_forcing_reads_no_memory_that_is_not_its_own(upstream_folder, tokens, expected):
    loaded = load_checkpoint(upstream_folder)
    with pytest.raises(TextError, match="^" + re.escape(expected)):
        loaded.model.teacher_forced(random_text(TINY, 5, 0), loaded.voice, tokens)
