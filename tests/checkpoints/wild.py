"""More folders as people have them: what trainers, quantisers and file managers leave."""

import gzip
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.checkpoints.files import pickled, saved
from tests.checkpoints.layouts import Made, Write, without
from tests.checkpoints.plain import ENGLISH_BASE, Tensors
from tests.checkpoints.unusable import PROJECTION, WEIGHTS, Refused, content, with_tensors

ONES = np.ones((4, 4), np.int32)
OF_PROJECTION = PROJECTION.removesuffix("weight")


def beside(**more: np.ndarray) -> Write:
    return with_tensors(lambda tensors: tensors | more)


def averaged(tensors: Tensors) -> Tensors:
    return {f"module.{name}": value for name, value in tensors.items()} | {"n_averaged": np.array(5)}


def merged(tensors: Tensors) -> Tensors:
    return {f"base_model.model.{name}": value for name, value in tensors.items()}


def with_files_of_a_mac(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    (folder / f"._{WEIGHTS}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
    os.mkfifo(folder / "pipe")


def wild() -> Iterator[Made]:
    masks = {"tfmr.layers.0.self_attn.mask": np.ones((2, 2), bool)}
    for name, write, says in (
        ("an averaged model", with_tensors(averaged), ("'module.' removed", "n_averaged")),
        ("counters", beside(global_step=np.array(5), epoch=np.array(1)), ("epoch, global_step",)),
        ("a mask", beside(**masks), ("tfmr.layers.*.self_attn.mask",)),
        ("a Mac's files, and a pipe", with_files_of_a_mac, ()),
        (
            "a merged adapter's names",
            with_tensors(merged),
            (),
        ),
        ("safetensors under a pickle's name", with_tensors(dict, name="t3_cfg.pt"), ("t3_cfg.pt",)),
        ("Lightning", pickled(lightning, "epoch=1.ckpt"), ("'state_dict.model.t3.' removed",)),
        ("DeepSpeed", pickled(lambda tensors: {"module": tensors, "ds_config": {}}, "mp_rank_00_model_states.pt"), ()),
        (
            "of all models",
            pickled(lambda tensors: {"t3": tensors, "ve": {"lstm.weight_ih_l0": torch.ones(3)}}, "all.pt"),
            ("ve.* (1)",),
        ),
        ("hidden", with_tensors(dict, name=".t3.safetensors"), (".t3.safetensors",)),
    ):
        yield Made("left by tools", name, ENGLISH_BASE, write, says)


def lightning(tensors: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"epoch": 1, "state_dict": {f"model.t3.{name}": value for name, value in tensors.items()}, "callbacks": {}}


def torch_under_a_wrong_name(folder: Path) -> None:
    pickled(dict)(folder)
    (folder / "t3_cfg.pt").rename(folder / WEIGHTS)


def plainly_pickled(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    (folder / "t3.pkl").write_bytes(pickle.dumps(ENGLISH_BASE.tensors))


def below(*names: str) -> Write:
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).mkdir(parents=True)
            ENGLISH_BASE.write_all(folder / name)

    return write


def stored(**more: np.ndarray) -> Write:
    """One matrix in another way."""
    others = {f"{OF_PROJECTION}{name}": value for name, value in more.items()}
    return with_tensors(lambda tensors: without(PROJECTION)(tensors) | others)


def without_layer(layer: int) -> Write:
    return with_tensors(lambda tensors: {name: each for name, each in tensors.items() if f"s.{layer}." not in name})


def pipe(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    os.mkfifo(folder / WEIGHTS)


def device(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    (folder / WEIGHTS).symlink_to("/dev/urandom")


def copied(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    shutil.copy(folder / WEIGHTS, folder / "t3_cfg (1).safetensors")


def adapter(name: str) -> Write:
    tensor = f"base_model.model.{OF_PROJECTION}{name}"
    return with_tensors(lambda _: {tensor: np.ones((2, 3), np.float32)}, name="adapter_model.safetensors")


def refused() -> Iterator[Refused]:
    bits = "dequantise it and save it as bfloat16"
    for name, write, says in (
        ("compressed-tensors", stored(weight_packed=ONES, weight_scale=ONES), ("(compressed-tensors)", bits)),
        ("EXL2", stored(q_weight=ONES, q_scale=ONES), ("is quantised (EXL2)", bits)),
        ("HQQ", stored(W_q=ONES.astype(np.uint8)), ("is quantised (HQQ)", bits)),
        ("weight norm", stored(weight_g=ONES, weight_v=ONES), ("has a weight as a norm and a direction", "fold it")),
        ("LoHa", adapter("hada_w1_a"), ("holds an adapter that is not merged, 1 tensor, ", "merge it")),
        ("OFT", adapter("oft_r.default.weight"), ("holds an adapter that is not merged", "merge it")),
        ("IA3", adapter("ia3_l"), ("holds an adapter that is not merged", "merge it")),
        (
            "torch as safetensors",
            torch_under_a_wrong_name,
            (f"{WEIGHTS} is a PyTorch file, not safetensors", "t3_cfg.pt"),
        ),
        ("pickled arrays", plainly_pickled, ("t3.pkl is a pickle with other objects than tensors", "torch.save")),
        (
            "gzip",
            content(gzip.compress(b"x" * 99), f"{WEIGHTS}.gz"),
            (f"{WEIGHTS}.gz is compressed by gzip", "unpack it"),
        ),
        ("a folder below", below("t3"), ("holds no weights itself", "name a folder in it: t3")),
        (
            "a trainer's folders",
            below("checkpoint-10", "checkpoint-9"),
            ("name a folder in it: checkpoint-10, checkpoint-9",),
        ),
        ("the Hub's cache", below("models--A--b/snapshots/0"), ("name a folder in it: models--A--b",)),
        ("without the first layer", without_layer(0), ("has no tensor 'tfmr.layers.0.input",)),
        ("one layer", without_layer(1), ("unknown kind: Llama of 1 layer, 32",)),
        ("a pipe", pipe, (f"{WEIGHTS} cannot be read: it is a named pipe, not a file",)),
        ("a device", device, (f"{WEIGHTS} cannot be read: it is a device, not a file",)),
        ("a copy", copied, (f"holds {WEIGHTS}, t3_cfg (1).safetensors", "name the one file")),
        (
            "a voice of zeros",
            saved(lambda fields: {"t3": fields | {"speaker_emb": torch.zeros(1, 256)}}),
            ("conds.pt: speaker_emb is 0 in all of its 256 values",),
        ),
    ):
        yield Refused("left by tools", name, write, says)
