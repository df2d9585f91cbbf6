"""More folders that load: fine-tunes, pickles, the Hub's cache, and voices."""

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch

from tests.checkpoints import plain
from tests.checkpoints.layouts import Made, Write
from tests.checkpoints.plain import ENGLISH_BASE, MULTILINGUAL_BASE, TURBO_BASE, Base, save


def longer(base: Base, rows: int, write_tokenizer: Callable[[Path], None]) -> Write:
    """A fine-tune with more rows of text; the first are the base's, so its ids give the same logits."""

    def write(folder: Path) -> None:
        base.write(folder)
        write_tokenizer(folder)
        tensors = base.tensors
        for name in ("text_emb.weight", "text_head.weight"):
            more = np.random.default_rng(rows).standard_normal((rows - len(tensors[name]), 32), np.float32)
            tensors[name] = np.concatenate([tensors[name], more])
        save(folder / "t3_finetuned.safetensors", tensors)

    return write


def fine_tunes() -> Iterator[Made]:
    for rows, words in ((43, "english-fine-tuned"), (45, "multilingual: de, en, fr, ne")):
        more = longer(
            ENGLISH_BASE, rows, lambda folder, rows=rows: plain.write_tokenizer(folder / "tokenizer.json", rows)
        )
        yield Made("fine-tune", f"{rows} rows", ENGLISH_BASE, more, (f"{rows} ids", words))
    padded = longer(ENGLISH_BASE, 48, lambda folder: None)
    yield Made("fine-tune", "padded to 48 rows", ENGLISH_BASE, padded, ("40 ids and 8 rows without one",))
    turbo = longer(TURBO_BASE, 277, lambda folder: plain.write_byte_level(folder, (*plain.ADDED, "[a]", "[b]")))
    yield Made("fine-tune", "Turbo", TURBO_BASE, turbo, ("chatterbox-turbo-fine-tuned", "277 ids"))
    yield Made("fine-tune", "of a trainer", ENGLISH_BASE, trainer_folder, ("'t3.' removed",))


def trainer_folder(folder: Path) -> None:
    """As transformers' Trainer leaves a checkpoint, with tokenizer and voice beside it."""
    ENGLISH_BASE.write(folder)
    save(folder / "model.safetensors", {f"t3.{name}": value for name, value in ENGLISH_BASE.tensors.items()})
    torch.save({"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}, folder / "optimizer.pt")
    torch.save({"last_epoch": 3}, folder / "scheduler.pt")
    torch.save(types.SimpleNamespace(seed=1), folder / "training_args.bin")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "config.json").write_text('{"model_type": "chatterbox_t3"}')


def pickled(change: Callable[[dict[str, torch.Tensor]], Any], name: str = "t3_cfg.pt", **options: Any) -> Write:
    def write(folder: Path) -> None:
        ENGLISH_BASE.write(folder)
        tensors = {key: torch.from_numpy(value.copy()) for key, value in ENGLISH_BASE.tensors.items()}
        torch.save(change(tensors), folder / name, **options)

    return write


def as_module(tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A whole module, as torch.save(model) pickles it."""
    root = torch.nn.Module()
    for name, value in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(last, torch.nn.Parameter(value))
    return root


def pickles() -> Iterator[Made]:
    def trained(tensors):
        return {"epoch": 3, "model_state_dict": tensors, "optimizer_state_dict": {"state": {}}, "loss": 0.5}

    for name, write in (
        ("state dict", pickled(dict)),
        ("model: [state dict]", pickled(lambda tensors: {"model": [tensors]})),
        ("trainer's", pickled(trained, "checkpoint.pth")),
        ("legacy", pickled(dict, "pytorch_model.bin", _use_new_zipfile_serialization=False)),
        ("parameters", pickled(lambda tensors: {key: torch.nn.Parameter(value) for key, value in tensors.items()})),
        ("a whole module", pickled(as_module, "model.pt")),
    ):
        yield Made("pickle", name, ENGLISH_BASE, write)
    halved = pickled(lambda tensors: {key: value.bfloat16() for key, value in tensors.items()})
    yield Made("pickle", "bfloat16", ENGLISH_BASE, halved, ("BF16",), "bfloat16")
    yield Made("upstream", "0.1.1", ENGLISH_BASE, first_release, ("t3_cfg.pt",))
    yield Made("upstream", "pickle and safetensors", ENGLISH_BASE, both_releases, ("t3_cfg.safetensors",))


def first_release(folder: Path) -> None:
    """The files of 0.1.1: t3_cfg.pt, ve.pt, s3gen.pt, tokenizer.json, conds.pt."""
    pickled(dict)(folder)
    for name, tensor in (("ve.pt", "lstm.weight_ih_l0"), ("s3gen.pt", "flow.input_embedding.weight")):
        torch.save({tensor: torch.ones(3, 2)}, folder / name)


def both_releases(folder: Path) -> None:
    first_release(folder)
    save(folder / "t3_cfg.safetensors", ENGLISH_BASE.tensors)
    save(folder / "ve.safetensors", {"lstm.weight_ih_l0": np.ones((3, 2), np.float32)})
    save(folder / "s3gen.safetensors", {"flow.input_embedding.weight": np.ones((3, 2), np.float32)})


HUB = "models--ResembleAI--chatterbox"
REVISION = "5bb1f6ee58e50c3b8d408bc82a6d3740c2db6e18"


def hub(*, main: bool) -> Write:
    """The cache of the Hub: names link to blobs. main: whether `refs/main` names the revision."""

    def write(folder: Path) -> None:
        root = folder / HUB
        blobs, snapshot = root / "blobs", root / "snapshots" / REVISION
        blobs.mkdir(parents=True)
        snapshot.mkdir(parents=True)
        both_releases(blobs)
        for place, path in enumerate(sorted(blobs.iterdir())):
            blob = path.rename(blobs / f"{place:064x}")
            (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
        if main:
            (root / "refs").mkdir()
            (root / "refs" / "main").write_text(REVISION)

    return write


def caches() -> Iterator[Made]:
    yield Made("Hub", "snapshot", ENGLISH_BASE, hub(main=True), opened=f"{HUB}/snapshots/{REVISION}")
    yield Made("Hub", "its repository", ENGLISH_BASE, hub(main=True), opened=HUB)
    yield Made("Hub", "without refs", ENGLISH_BASE, hub(main=False), opened=HUB)
    yield Made(
        "Hub",
        "a file of a snapshot",
        ENGLISH_BASE,
        hub(main=True),
        opened=f"{HUB}/snapshots/{REVISION}/t3_cfg.safetensors",
    )
    yield Made("file name", "two names of one file", ENGLISH_BASE, linked)


def linked(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    (folder / "model.safetensors").symlink_to("t3_cfg.safetensors")


def voiced(write_voice: Callable[[Path, dict[str, torch.Tensor]], None], base: Base = ENGLISH_BASE) -> Write:
    def write(folder: Path) -> None:
        base.write_all(folder)
        (folder / "conds.pt").unlink()
        write_voice(folder, plain.voice_fields())

    return write


def saved(change: Callable[[dict[str, torch.Tensor]], Any], **options: Any) -> Write:
    return voiced(lambda folder, fields: torch.save(change(fields), folder / "conds.pt", **options))


def safe(prefix: str, dtype: str = "float32") -> Write:
    def write(folder: Path, fields: dict[str, torch.Tensor]) -> None:
        found = {f"{prefix}{name}": mx.array(value.numpy()) for name, value in fields.items()}
        cast = {
            name: value.astype(getattr(mx, dtype)) if value.dtype == mx.float32 else value
            for name, value in found.items()
        }
        save(folder / "conds.safetensors", cast)

    return voiced(write)


def objects(module: str, *, t3_alone: bool = False) -> Callable[[dict[str, torch.Tensor]], Any]:
    """Upstream's objects, of classes that the reader does not have."""

    def change(fields: dict[str, torch.Tensor]) -> Any:
        made = types.ModuleType(module)
        made.T3Cond = type("T3Cond", (), {"__module__": module})
        made.Conditionals = type("Conditionals", (), {"__module__": module})
        sys.modules[module] = made
        voice, whole = made.T3Cond(), made.Conditionals()
        vars(voice).update(fields, clap_emb=None)
        whole.t3, whole.gen = voice, {"embedding": torch.zeros(1, 192)}
        return voice if t3_alone else whole

    return change


def saved_objects(module: str, *, t3_alone: bool = False) -> Write:
    def write(folder: Path) -> None:
        saved(objects(module, t3_alone=t3_alone))(folder)
        del sys.modules[module]  # pickled by name, as on the machine that wrote it

    return write


def voices() -> Iterator[Made]:
    for name, write in (
        ("flat", saved(dict)),
        ("flat with t3.", saved(lambda fields: {f"t3.{field}": value for field, value in fields.items()})),
        ("in conds", saved(lambda fields: {"conds": {"t3": fields, "gen": {}}})),
        ("objects", saved_objects("chatterbox_elsewhere")),
        ("an object of T3", saved_objects("chatterbox_elsewhere", t3_alone=True)),
        ("attributes", saved(lambda fields: types.SimpleNamespace(t3=fields))),
        ("requires_grad", saved(lambda fields: {"t3": grown(fields)})),
        ("bfloat16", saved(lambda fields: {"t3": halved(fields)})),
        ("a number of emotion", saved(lambda fields: {"t3": fields | {"emotion_adv": 0.5}})),
        ("without emotion", saved(lambda fields: {"t3": without_emotion(fields)})),
        ("int32 tokens", saved(lambda fields: {"t3": shorter(fields)})),
        ("legacy pickle", saved(lambda fields: {"t3": fields}, _use_new_zipfile_serialization=False)),
        ("safetensors", safe("t3.")),
        ("safetensors, t3_", safe("t3_")),
        ("safetensors, flat", safe("")),
        ("safetensors, bfloat16", safe("t3.", "bfloat16")),
        ("safetensors, float16", safe("t3.", "float16")),
    ):
        yield Made("voice", name, ENGLISH_BASE, write)
    turbo = voiced(lambda folder, fields: torch.save({"t3": without_emotion(fields)}, folder / "conds.pt"), TURBO_BASE)
    yield Made("voice", "of Turbo", TURBO_BASE, turbo)
    yield Made("voice", "of v2", MULTILINGUAL_BASE, MULTILINGUAL_BASE.write_all, ("multilingual", "20 tokens"))


def grown(fields):
    return {name: value.requires_grad_() if value.is_floating_point() else value for name, value in fields.items()}


def halved(fields):
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in fields.items()}


def without_emotion(fields):
    return {name: value for name, value in fields.items() if name != "emotion_adv"}


def shorter(fields):
    return fields | {"cond_prompt_speech_tokens": fields["cond_prompt_speech_tokens"].int()}
