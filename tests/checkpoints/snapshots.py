"""A snapshot of upstream's repository, which holds several T3s: what a folder's name alone stands for."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.checkpoints import plain
from tests.checkpoints.files import HUB, REVISION
from tests.checkpoints.layouts import Made, Write
from tests.checkpoints.plain import ENGLISH_BASE, FIRST_BASE, MULTILINGUAL_BASE, NANO_BASE, TURBO_BASE, Base, save
from tests.checkpoints.unusable import POINTER, Refused

ENGLISH, V1, V2 = ENGLISH_BASE.name, FIRST_BASE.name, MULTILINGUAL_BASE.name
V3 = V2.replace("v2", "v3")
V3_BASE = Base(V3)

BESIDE = {
    "s3gen.safetensors": "flow.input_embedding.weight",
    "s3gen_v3.safetensors": "mel2wav.conv_pre.weight",
    "ve.safetensors": "lstm.weight_ih_l0",
}
"""Upstream's other models, by a tensor of each."""


def snapshot(*bases: Base, pointers: tuple[str, ...] = ()) -> Write:
    """The files of these models together; `pointers`: files that Git LFS has not fetched."""

    def write(folder: Path) -> None:
        for base in bases:
            base.write_all(folder)
        for name, tensor in BESIDE.items():
            save(folder / name, {tensor: np.ones((3, 2), np.float32)})
        (folder / "Cangjie5_TC.json").write_text(json.dumps(["日\ta"]))
        (folder / "README.md").write_text("# Chatterbox")
        for name in pointers:
            (folder / name).write_bytes(POINTER)

    return write


def in_cache(write: Write, *missing: str) -> Write:
    """The same in the Hub's cache; missing: links whose files were not fetched."""

    def write_cache(folder: Path) -> None:
        place = folder / HUB / "snapshots" / REVISION
        place.mkdir(parents=True)
        write(place)
        for name in missing:
            (place / name).unlink(missing_ok=True)
            (place / name).symlink_to(Path("..") / ".." / "blobs" / "0")

    return write_cache


ALL = (ENGLISH_BASE, FIRST_BASE, MULTILINGUAL_BASE, V3_BASE)


def snapshots() -> Iterator[Made]:
    english, own = f"tokenizer: tokenizer.json, {plain.ENGLISH.text_vocab_size}", "chatterbox-multilingual: "
    graphemes = f"tokenizer: {plain.GRAPHEMES}, {plain.MULTILINGUAL.text_vocab_size}"
    v1 = f"tokenizer: {plain.FIRST_GRAPHEMES}, {plain.FIRST.text_vocab_size}"
    whole = f"choice: not read: {V2}, {V3}, {V1}; to take another: --weights DIR/{V2}"
    for name, base, others, says, opened in (
        ("all", ENGLISH_BASE, ALL, (whole, english), ""),
        ("two", ENGLISH_BASE, (ENGLISH_BASE, MULTILINGUAL_BASE), (f"choice: not read: {V2}; to", english), ""),
        ("v2 named", MULTILINGUAL_BASE, ALL, (own, graphemes), V2),
        ("v3 named", V3_BASE, ALL, (own, graphemes), V3),
        ("v1 named", FIRST_BASE, ALL, (own, v1), V1),
        ("English named", ENGLISH_BASE, ALL, (english,), ENGLISH),
        ("without English", MULTILINGUAL_BASE, ALL[1:], (f"choice: not read: {V3}, {V1}; to", graphemes), ""),
        ("v3 and v1", V3_BASE, (V3_BASE, FIRST_BASE), (f"file: {V3}", f"choice: not read: {V1}; to", graphemes), ""),
        ("English and Turbo", ENGLISH_BASE, (TURBO_BASE, ENGLISH_BASE), (f"not read: {TURBO_BASE.name}",), ""),
        ("Nano and Turbo", TURBO_BASE, (NANO_BASE, TURBO_BASE), (f"not read: {NANO_BASE.name}",), ""),
    ):
        yield Made("several T3s", name, base, snapshot(*others), says, opened=opened)
    fetched = snapshot(MULTILINGUAL_BASE, pointers=(ENGLISH, V1))
    yield Made("several T3s", "a clone with v2 alone", MULTILINGUAL_BASE, fetched, (f"file: {V2}", graphemes))
    cached = in_cache(snapshot(*ALL), V1, V3)
    yield Made("several T3s", "in the cache", ENGLISH_BASE, cached, (f"choice: not read: {V2}; to",), opened=HUB)
    cached = in_cache(snapshot(MULTILINGUAL_BASE), ENGLISH)
    yield Made("several T3s", "in the cache, v2 alone", MULTILINGUAL_BASE, cached, (graphemes,), opened=HUB)
    says = (f"file: {ENGLISH}", f"not read: {V2};")
    yield Made("several T3s", "one file of three names", ENGLISH_BASE, linked, says)


def linked(folder: Path) -> None:
    snapshot(ENGLISH_BASE, MULTILINGUAL_BASE)(folder)
    for name in ("a.safetensors", "model.safetensors"):
        (folder / name).symlink_to(ENGLISH)


def spoiled() -> Iterator[Refused]:
    """Another model in place of a spoiled one would be read without a word."""
    yield Refused("several T3s", "English cut off", cut, (f"{ENGLISH} cannot be read: it ends after", "complete?"))


def cut(folder: Path) -> None:
    snapshot(ENGLISH_BASE, MULTILINGUAL_BASE)(folder)
    (folder / ENGLISH).write_bytes((folder / ENGLISH).read_bytes()[:-9])
