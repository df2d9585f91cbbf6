"""Folders that no run can use, each with what its one line has to name: what it is, and what to do."""

import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.checkpoints.layouts import Write, without
from tests.checkpoints.plain import ENGLISH_BASE, Base, Tensors, save

WEIGHTS = "t3_cfg.safetensors"
PROJECTION = "tfmr.layers.0.self_attn.q_proj.weight"
DOWNLOAD = "download the file itself"


class Refused(NamedTuple):
    """A folder that is refused. says: parts of the line, in order. opened: what the command names in the folder."""

    kind: str
    name: str
    write: Write
    says: tuple[str, ...]
    opened: str = ""


def content(head: bytes, name: str = WEIGHTS) -> Write:
    """The base, with these bytes in place of a file."""

    def write(folder: Path) -> None:
        ENGLISH_BASE.write_all(folder)
        if name not in (WEIGHTS, "config.json", "tokenizer.json", "conds.pt"):
            (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(head)

    return write


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 2129653744\n" % (b"0a" * 32)
PAGE = b"<!DOCTYPE html>\n<html><head><title>Hugging Face</title></head></html>"
GGUF = b"GGUF" + struct.pack("<IQQ", 3, 292, 12)
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:\x10"


def formats() -> Iterator[Refused]:
    """Other formats, under their own name and under a wrong one."""
    wrong = (
        ("Git LFS pointer", POINTER, "is a Git LFS pointer, not safetensors", "git lfs pull"),
        ("HTML page", PAGE, "is an HTML page, not safetensors", DOWNLOAD),
        ("XML", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is XML", DOWNLOAD),
        ("JSON", b'{"error": "Repository not found"}', "is JSON, not safetensors", "is it the file that you mean?"),
        ("text", b"Entry not found", "is plain text, not safetensors", DOWNLOAD),
        ("GGUF", GGUF, "is GGUF, not safetensors", "with the package gguf"),
        ("ONNX", ONNX, "is ONNX, not safetensors", "take the safetensors that it was made from"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\7" * 40, "is compressed by gzip", "unpack it"),
        ("7-Zip", b"7z\xbc\xaf\x27\x1c\0\4", "is a 7-Zip archive", "unpack it"),
        ("HDF5", b"\x89HDF\r\n\x1a\n\0\0", "is HDF5", "as safetensors"),
        ("sound", b"RIFF\x24\0\0\0WAVEfmt ", "is a sound file", "is it the file that you mean?"),
        ("noise", bytes(range(128, 256)), "is no safetensors, and of a format that is not known here", "download"),
    )
    for name, head, *says in wrong:
        yield Refused("another format under the wrong name", name, content(head), (WEIGHTS, *says))
    for name, head, *says in (
        ("t3_cfg-q4_k_m.gguf", GGUF, "is GGUF", "dequantised with the package gguf"),
        ("language_model.onnx", ONNX, "is ONNX", "take the safetensors"),
        ("t3_cfg.ggml", b"lmgg\1\0\0\0", "is GGML", "take the safetensors"),
        ("t3.tflite", b"\x1c\0\0\0TFL3\0\0", "is TensorFlow Lite", "take the safetensors"),
        ("t3_cfg.pt", POINTER, "is a Git LFS pointer", "git lfs pull"),
        ("t3_cfg.safetensors.part", b"\x40\0\0\0\0\0\0\0{", "is an unfinished download", "finish it"),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "split into several files", "save_file() of all"),
    ):
        yield Refused("another format", name, content(head, name), (name, *says))
    yield Refused("another format", "t3.npz", archived(np.savez), ("t3.npz is NumPy's .npz", "mx.save_safetensors"))
    yield Refused("another format", "Core ML", core_ml, ("T3.mlpackage is Core ML", "take the safetensors"))
    yield Refused("another format", "tar", packed, (f"{WEIGHTS} is a tar archive", "unpack it"))
    yield Refused("another format", "zip", zipped, (f"{WEIGHTS} is a zip archive", "unpack it"))
    for name in ("config.json", "tokenizer.json"):
        yield Refused(
            "a pointer beside the weights",
            name,
            content(POINTER, name),
            (f"{name} is a Git LFS pointer, not JSON", "git lfs pull"),
        )
    yield Refused(
        "a pointer beside the weights",
        "conds.pt",
        content(POINTER, "conds.pt"),
        ("conds.pt is a Git LFS pointer", "git lfs pull"),
    )
    yield Refused(
        "a pointer beside the weights",
        "a page",
        content(PAGE, "tokenizer.json"),
        ("tokenizer.json is an HTML page, not JSON", DOWNLOAD),
    )


def archived(write_archive: Callable[..., None]) -> Write:
    def write(folder: Path) -> None:
        ENGLISH_BASE.write(folder)
        write_archive(folder / "t3.npz", **{"text_emb.weight": np.ones(3)})

    return write


def core_ml(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    (folder / "T3.mlpackage" / "Data").mkdir(parents=True)


def packed(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    with tarfile.open(folder / "packed", "w") as archive:
        archive.add(folder / "tokenizer.json", "t3_cfg.safetensors")
    (folder / "packed").rename(folder / WEIGHTS)


def zipped(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    with zipfile.ZipFile(folder / "packed", "w") as archive:
        archive.write(folder / "tokenizer.json", WEIGHTS)
    (folder / "packed").rename(folder / WEIGHTS)


def cut_off(keep: Callable[[int], int]) -> Write:
    def write(folder: Path) -> None:
        ENGLISH_BASE.write_all(folder)
        whole = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(whole[: keep(len(whole))])

    return write


def downloads() -> Iterator[Refused]:
    again = "is the download complete?"
    yield Refused("a download", "empty", content(b""), ("cannot be read: it is empty", again))
    yield Refused("a download", "zeros", content(bytes(90_000)), ("cannot be read: it is full of zeros", "again"))
    for name, keep in (("7 bytes", lambda size: 7), ("in its header", lambda size: 900)):
        yield Refused("a download", name, cut_off(keep), (f"{WEIGHTS} cannot be read: a header of", again))
    for name, keep in (("half", lambda size: size // 2), ("a byte less", lambda size: size - 1)):
        yield Refused("a download", name, cut_off(keep), ("cannot be read: it ends after", " bytes", again))
    yield Refused(
        "a download", "a link to nothing", broken_link, (f"{WEIGHTS} is a link to a file that is not", "again")
    )


def broken_link(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    (folder / WEIGHTS).symlink_to(Path("..") / "blobs" / "gone")


def with_tensors(change: Callable[[Tensors], dict[str, Any]], base: Base = ENGLISH_BASE, name: str = "") -> Write:
    def write(folder: Path) -> None:
        base.write(folder)
        save(folder / (name or base.name), change(base.tensors))

    return write


def set_to(name: str, value: float | np.ndarray) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        spoiled = tensors[name].copy()
        spoiled[...] = value
        return tensors | {name: spoiled}

    return change


def one_nan(tensors: Tensors) -> Tensors:
    spoiled = tensors[PROJECTION].copy()
    spoiled[3, 5] = np.nan
    return tensors | {PROJECTION: spoiled}


def values() -> Iterator[Refused]:
    copy = "take another copy"
    norm, head = "tfmr.norm.weight", "speech_head.weight"
    for name, change, says in (
        ("zeros", set_to(PROJECTION, 0), (f"'{PROJECTION}' is 0 in all of its 1,024 values", copy)),
        ("a constant", set_to(head, 0.5), (f"'{head}' is 0.5 in all of its 2,112 values", copy)),
        ("zeros in a norm", set_to(norm, 0), (f"'{norm}' is 0 in all of its 32 values", copy)),
        ("NaN", set_to(head, np.nan), (f"'{head}' has 2112 of 2112 values that are NaN or infinite", copy)),
        ("one NaN", one_nan, (f"'{PROJECTION}' has 1 of 1024 values that are NaN or infinite", copy)),
        ("infinite", set_to(norm, np.inf), (f"'{norm}' has 32 of 32 values that are NaN or infinite", copy)),
    ):
        yield Refused("spoiled values", name, with_tensors(change), (WEIGHTS, *says))


def state_dicts() -> Iterator[Refused]:
    more = {"tfmr.layers.0.self_attn.q_proj.bias": np.ones(32, np.float32)}
    yield Refused(
        "another state dict",
        "missing",
        with_tensors(without("speech_head.weight")),
        ("has no tensor 'speech_head.weight'", "expected the state dict of chatterbox-english"),
    )
    yield Refused(
        "another state dict",
        "unknown",
        with_tensors(lambda tensors: tensors | more),
        ("has an unknown tensor 'tfmr.layers.0.self_attn.q_proj.bias'", "chatterbox-english"),
    )
    prefixed = with_tensors(
        lambda tensors: {f"t3.{name}": value for name, value in tensors.items() if "head" not in name}
    )
    yield Refused(
        "another state dict",
        "missing, with a prefix",
        prefixed,
        ("has no tensor 'speech_head.weight'", "in its names 't3.' removed"),
    )
    turned = with_tensors(lambda tensors: tensors | {"speech_emb.weight": tensors["speech_emb.weight"].T})
    yield Refused(
        "another state dict",
        "transposed",
        turned,
        ("'speech_emb.weight' has shape (32, 66)", "chatterbox-english has (66, 32)"),
    )
    long = with_tensors(lambda tensors: tensors | {"text_pos_emb.emb.weight": np.ones((9, 32), np.float32)})
    yield Refused("another state dict", "few positions", long, ("is 1 in all of its 288 values", "another copy"))
    yield Refused("another state dict", "one layer more", with_tensors(deeper), ("unknown kind: Llama of 3 layers",))
    yield Refused(
        "another state dict", "no text", with_tensors(without("text_emb.weight")), ("has no tensor 'text_emb.weight'",)
    )
    voice = {"t3.speaker_emb": np.ones((1, 256), np.float32)}
    yield Refused(
        "another model", "a voice", with_tensors(lambda tensors: voice), ("is a voice: it holds no T3", "name")
    )
    for name, tensor, says in (
        ("S3Gen", "flow.input_embedding.weight", "is S3Gen: it holds no T3"),
        ("voice encoder", "lstm.weight_ih_l0", "is the voice encoder: it holds no T3"),
        ("speech tokenizer", "encoder.blocks.0.attn.out.weight", "is S3's speech tokenizer: it holds no T3"),
        ("LLM", "model.layers.0.mlp.up_proj.weight", "is a language model: it holds no T3"),
        ("others", "conv.weight", "holds no T3, but 1 tensor, 'conv.weight'"),
    ):
        tensors = {tensor: np.ones((3, 2), np.float32)}
        yield Refused(
            "another model",
            name,
            with_tensors(lambda _, tensors=tensors: tensors),
            (WEIGHTS, says, "name the file that has tfmr"),
        )
    two = with_tensors(lambda tensors: tensors | {f"ema.{name}": value for name, value in tensors.items()})
    yield Refused("two T3s", "in a file", two, ("holds 2 T3s, under '' and 'ema.'", "save the one that you mean"))
    yield Refused(
        "two T3s", "in a folder", two_files, ("holds t3_cfg.safetensors, t3_finetuned.safetensors", "name the one file")
    )
    yield Refused(
        "two T3s",
        "neither upstream's",
        two_fine_tunes,
        ("holds t3_de.safetensors, t3_mine.safetensors", "name the one"),
    )
    doubled = with_tensors(
        lambda tensors: tensors | {f"module.{name}": value + np.float32(0.1) for name, value in tensors.items()}
    )
    says = ("t3_cfg.safetensors holds '", " twice, with other values as 'module.", "save the state dict that you mean")
    yield Refused("two T3s", "under one prefix", doubled, says)
    yield Refused("no weights", "a tokenizer alone", ENGLISH_BASE.write, ("holds no weights", "expected one of"))
    yield Refused("no weights", "nowhere", lambda folder: None, ("nowhere does not exist", "give a folder"), "nowhere")


def deeper(tensors: Tensors) -> Tensors:
    more = {name.replace("layers.1", "layers.2"): value for name, value in tensors.items() if "layers.1" in name}
    return tensors | more


def two_files(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    save(folder / "t3_finetuned.safetensors", ENGLISH_BASE.tensors)


def two_fine_tunes(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    for name in ("t3_de", "t3_mine"):
        save(folder / f"{name}.safetensors", ENGLISH_BASE.tensors)
