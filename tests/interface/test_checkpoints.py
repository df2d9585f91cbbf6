"""Folders of weights as people have them: each loads as upstream's own layout does, or is told what it is in a line."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from sampler import finch
from sampler.cli.app import app
from sampler.errors import MissingPackage, WeightsError
from sampler.t3 import checkpoint as checkpoints
from sampler.t3.checkpoint import OWN_FILES, load_checkpoint, recognise
from sampler.t3.conditioning import Voice
from sampler.t3.config import (
    CHATTERBOX_ENGLISH,
    CHATTERBOX_MULTILINGUAL,
    CHATTERBOX_NANO,
    CHATTERBOX_TURBO,
    FINCH,
    T3Config,
)
from sampler.t3.files import MOST_LINE
from sampler.t3.folder import UPSTREAM
from sampler.t3.model import T3
from sampler.t3.weights import expected_shapes
from sampler.weights.info import facts_of, lines_of
from tests.checkpoints import files, layouts, packed, plain, snapshots, unusable, wild
from tests.checkpoints.layouts import Made, without
from tests.checkpoints.packed import write_raw
from tests.checkpoints.plain import ENGLISH_BASE, TURBO_BASE, Base
from tests.checkpoints.unusable import Refused, with_tensors
from tests.support import random_text

GROUPS = (
    *(layouts.prefixes, layouts.inner_names, layouts.parts, layouts.unused, layouts.dtypes, layouts.file_names),
    *(layouts.configs, files.fine_tunes, files.pickles, files.caches, files.voices),
    *(snapshots.snapshots, wild.wild),
)
LOADED = [made for group in GROUPS for made in group()]
REFUSED = [
    made
    for group in (
        *(unusable.formats, unusable.downloads, unusable.values, unusable.state_dicts, packed.quantised),
        *(packed.adapters, packed.parts_and_pickles, packed.tokenizers, packed.voices, snapshots.spoiled, wild.refused),
    )
    for made in group()
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The sizes under upstream's names are cut down; the code path is not."""
    for name, known in plain.UPSTREAM.items():
        monkeypatch.setitem(checkpoints.UPSTREAM_FILES, name, known)


def test_there_are_many_files_of_many_kinds():
    made = [(each.kind, each.name) for each in (*LOADED, *REFUSED)]
    assert len(set(made)) == len(made) >= 190
    assert len({each.kind for each in LOADED}) >= 14
    assert len({each.kind for each in REFUSED}) >= 14


def named(made: Made | Refused) -> str:
    return f"{made.kind}: {made.name}"


@cache
def plain_logits(base: Base, dtype: str) -> np.ndarray:
    """Of a model made from the tensors themselves, without a file."""
    config, fields = base.config, plain.voice_fields()
    rounded = {name: mx.array(value).astype(getattr(mx, dtype or "float32")) for name, value in base.tensors.items()}
    model = T3({name: value.astype(mx.float32) for name, value in rounded.items()}, config)
    return logits_of(model, Voice(fields["speaker_emb"][0].numpy(), np.arange(20), 0.5))


def logits_of(model: T3, voice: Voice) -> np.ndarray:
    text = random_text(replace(model.config, text_vocab_size=40), 6, 0)
    return np.array(model.teacher_forced(text, voice, [1, 2, 3]))


@pytest.mark.parametrize("made", LOADED, ids=named)
def test_each_layout_gives_the_logits_of_the_plain_one(tmp_path, made):
    made.write(tmp_path)
    lines = [f"{name}: {sentence}" for name, sentence in lines_of(facts_of(tmp_path / made.opened))]
    shown = "\n".join(lines)
    assert [says for says in made.says if says not in shown] == [], shown
    loaded = load_checkpoint(tmp_path / made.opened)
    np.testing.assert_array_equal(logits_of(loaded.model, loaded.voice), plain_logits(made.base, made.rounded))
    assert loaded.tokenizer.encode("hi")


@pytest.mark.parametrize("made", REFUSED, ids=named)
def test_what_no_run_can_use_is_told_in_a_line(tmp_path, made):
    made.write(tmp_path)
    with pytest.raises(WeightsError) as error:
        facts_of(tmp_path / made.opened)
    line, place = str(error.value), 0
    assert len(line) <= MOST_LINE < 200
    assert "\n" not in line
    assert error.value.hint, "no way out is named"
    for says in made.says:
        place = line.find(says, place)
        assert place >= 0, f"{says!r} is missing in order: {line}"


def test_a_file_with_a_very_long_name_is_told_in_a_line(tmp_path):
    path = tmp_path / f"{'t3' * 100}.safetensors"
    save_file({"é" * 3_000: np.ones(3, np.float32)}, path)
    with pytest.raises(WeightsError) as error:
        load_checkpoint(path)
    assert len(str(error.value)) <= MOST_LINE
    assert "holds no T3" in str(error.value)


@pytest.mark.parametrize("name", ["t3_cfg.pt", "conds.pt"])
def test_pickles_need_torch(tmp_path, monkeypatch, name):
    files.first_release(tmp_path)
    if name == "conds.pt":
        save_file(ENGLISH_BASE.tensors, tmp_path / "t3_cfg.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        MissingPackage, match=rf"^{name} needs torch to be read \(pip install 'sampler-suite\[reference\]'"
    ):
        load_checkpoint(tmp_path)


def test_a_pickle_runs_no_code(tmp_path, capsys):
    """`print` would be called: it is what `Code` asks for."""
    next(made for made in REFUSED if named(made) == "pickle: with code").write(tmp_path)
    with pytest.raises(WeightsError, match=r"builtins\.print"):
        load_checkpoint(tmp_path)
    assert capsys.readouterr().out == ""


def test_what_an_untrained_layer_begins_with_is_no_constant(tmp_path):
    """Zero biases and norms of ones; everything else that is constant is refused."""
    begun = {"tfmr.ln_f.weight": np.ones(32, np.float32), "speech_head.bias": np.zeros(66, np.float32)}
    with_tensors(lambda tensors: tensors | begun, TURBO_BASE)(tmp_path)
    assert load_checkpoint(tmp_path).config.backbone == "gpt2"
    for name, value in (("tfmr.ln_f.weight", 2.0), ("speech_head.bias", 1.0)):
        spoiled = begun | {name: np.full_like(begun[name], value)}
        save_file(TURBO_BASE.tensors | spoiled, tmp_path / TURBO_BASE.name)
        with pytest.raises(WeightsError, match=f"{name}' is {value:g} in all of its"):
            load_checkpoint(tmp_path)


FULL = {
    "english": (CHATTERBOX_ENGLISH, "t3_cfg.safetensors", "tokenizer.json"),
    "v2": (CHATTERBOX_MULTILINGUAL, "t3_mtl23ls_v2.safetensors", plain.GRAPHEMES),
    "v3": (CHATTERBOX_MULTILINGUAL, "t3_mtl23ls_v3.safetensors", plain.GRAPHEMES),
    "v1": (replace(CHATTERBOX_MULTILINGUAL, text_vocab_size=2352), "t3_23lang.safetensors", plain.FIRST_GRAPHEMES),
    "v2 named v1": (CHATTERBOX_MULTILINGUAL, "t3_23lang.safetensors", plain.GRAPHEMES),
    "v1 named v2": (
        replace(CHATTERBOX_MULTILINGUAL, text_vocab_size=2352), "t3_mtl23ls_v2.safetensors", plain.FIRST_GRAPHEMES
    ),
    "turbo": (CHATTERBOX_TURBO, "t3_turbo_v1.safetensors", "tokenizer.json"),
    "nano": (CHATTERBOX_NANO, "t3_nano_v1.safetensors", "tokenizer.json"),
    "language pack": (CHATTERBOX_MULTILINGUAL, "t3_pt_br.safetensors", plain.GRAPHEMES),
}  # fmt: skip


@cache
def big_tokenizer(rows: int) -> str:
    """A tokenizer of so many tokens; as upstream's, the English one has `[fr]`, but no `[en]`."""
    names = ["[STOP]", "[UNK]", "[SPACE]", *([] if rows == 704 else ["[en]"]), "[fr]"]
    names = [*names, *(f"y{place}" for place in range(rows))][:rows]
    vocabulary = {name: place for place, name in enumerate(names)}
    model = {"type": "BPE", "unk_token": "[UNK]", "vocab": vocabulary, "merges": []}
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "model": model})


def write_full(folder: Path, config: T3Config, weights: str, tokenizer: str, *, mlx: bool = False) -> None:
    """A folder of full size whose tensors are a hole in the file."""
    tensors: Mapping[str, np.ndarray] = {}
    shapes = {name: ("F32", shape) for name, shape in expected_shapes(config).items()}
    if mlx:
        views = {name: np.broadcast_to(np.float32(0), shape) for name, (_, shape) in shapes.items()}
        tensors = layouts.of_mlx_audio(views)
        shapes = {name: ("F16", value.shape) for name, value in tensors.items()}
    write_raw(folder / weights, shapes, sparse=True)
    (folder / tokenizer).write_text(big_tokenizer(config.text_vocab_size))
    fields = {f"t3.{name}": value.numpy() for name, value in plain.voice_fields().items()}
    save_file(fields, folder / "conds.safetensors")


@pytest.mark.parametrize(
    ("name", "mlx"), [*((name, False) for name in FULL), *((name, True) for name in ("english", "v3", "turbo"))]
)
def test_full_sizes_are_recognised_from_the_header(tmp_path, monkeypatch, name, mlx):
    monkeypatch.undo()
    config, weights, tokenizer = FULL[name]
    weights, tokenizer = ("model.safetensors", "tokenizer.json") if mlx else (weights, tokenizer)
    write_full(tmp_path, config, weights, tokenizer, mlx=mlx)
    assert (tmp_path / weights).stat().st_blocks * 512 < 1 << 20, "the disk stores what should be a hole"
    found = recognise(tmp_path)
    assert found.config == config
    assert (found.weights.name, found.tokenizer.path.name) == (weights, tokenizer)
    assert sum(found.dtypes.values()) == len(expected_shapes(config)) - 2


def test_a_fine_tune_of_full_size_has_the_rows_of_its_file(tmp_path, monkeypatch):
    monkeypatch.undo()
    config = replace(CHATTERBOX_ENGLISH, text_vocab_size=2500)
    write_full(tmp_path, config, "t3_finetuned.safetensors", "tokenizer.json")
    found = recognise(tmp_path).config
    assert (found.text_vocab_size, found.name) == (2500, "chatterbox-multilingual-fine-tuned")
    assert found.languages == ("en", "fr")
    (tmp_path / "tokenizer.json").write_text(big_tokenizer(704))
    with pytest.raises(WeightsError, match=r"tokenizer\.json has 704 ids up to 703, text_emb has 2500 rows"):
        recognise(tmp_path)


def test_finch_is_known_by_its_tensors(tmp_path, monkeypatch):
    """Without its config.json, in another layout and under another name: the same logits, bit for bit."""
    monkeypatch.undo()
    assert T3Config.read(finch.folder() / "config.json") == FINCH
    tensors = load_file(finch.folder() / OWN_FILES[0])
    save_file({f"t3.{name}": value for name, value in tensors.items()}, tmp_path / "model.safetensors")
    for name in OWN_FILES[2:]:
        (tmp_path / name).symlink_to(finch.folder() / name)
    loaded, own = load_checkpoint(tmp_path), finch.load()
    assert loaded.config == own.config
    text = own.tokenizer.encode("The harbour is quiet tonight.")
    both = [np.array(each.model.teacher_forced(text, each.voice, [5, 6])) for each in (loaded, own)]
    np.testing.assert_array_equal(*both)
    assert loaded.origin == "finch in model.safetensors: 't3.' removed"


def test_info_says_what_a_run_would_use(tmp_path):
    Base.write_all(TURBO_BASE, tmp_path)
    result = CliRunner().invoke(app, ["weights", "info", str(tmp_path), "--json", "-"])
    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (facts["kind"], facts["file"], facts["dtypes"]) == ("chatterbox-turbo", TURBO_BASE.name, {"F32": 33})
    assert facts["tokenizer"] == {"file": "vocab.json", "ids": 275, "front_end": "turbo", "languages": ["en"]}
    assert facts["voice"] | {"layout": ""} == {"file": "conds.pt", "layout": "", "prompt_tokens": 20, "emotion": None}
    shown = CliRunner().invoke(app, ["weights", "info", str(tmp_path), "--json", str(tmp_path / "info.json")])
    assert json.loads((tmp_path / "info.json").read_text()) == facts
    assert "kind       chatterbox-turbo: GPT-2, 2 layers, 32 wide, 2 heads\n" in shown.stdout
    assert "ignored    text_head.weight, tfmr.wte.weight\n" in shown.stdout


@pytest.mark.parametrize("arguments", [(), ("--json", "-")])
def test_info_ends_with_2_for_what_a_run_cannot_use(tmp_path, arguments):
    with_tensors(without("speech_head.weight"))(tmp_path)
    result = CliRunner().invoke(app, ["weights", "info", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: t3_cfg.safetensors has no tensor 'speech_head.weight' (expected the state")


def test_the_order_in_which_weights_are_chosen_has_upstreams_names():
    assert [f"{name}.safetensors" for name in UPSTREAM] == list(checkpoints.UPSTREAM_FILES)


def test_which_of_several_files_is_read_is_said_by_info_run_and_check(tmp_path):
    snapshots.snapshot(*snapshots.ALL)(tmp_path)
    choice = (
        "not read: t3_mtl23ls_v2.safetensors, t3_mtl23ls_v3.safetensors, t3_23lang.safetensors; "
        "to take another: --weights DIR/t3_mtl23ls_v2.safetensors"
    )
    shown = CliRunner().invoke(app, ["weights", "info", str(tmp_path)]).stdout
    assert f"choice     {choice}\n" in shown
    assert facts_of(tmp_path)["other_files"] == choice.partition(";")[0].removeprefix("not read: ").split(", ")
    assert load_checkpoint(tmp_path).origin == f"chatterbox-english in t3_cfg.safetensors: upstream's names; {choice}"
    log = tmp_path / "port.jsonl"
    log.write_text(json.dumps({"prompt": "a", "text": "hi", "tokens": [1, 2], "stop_reason": "length"}))
    for against, says in (
        (tmp_path, f"weights chatterbox-english in t3_cfg.safetensors: upstream's names; {choice}\n"),
        (tmp_path / "t3_23lang.safetensors", "weights chatterbox-multilingual in t3_23lang.safetensors: upstream's "),
    ):
        result = CliRunner().invoke(app, ["check", str(log), "--against", str(against)], catch_exceptions=False)
        assert says in result.stdout, result.output
