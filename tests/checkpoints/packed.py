"""More folders that no run can use: quantised weights, adapters, parts, pickles, tokenizers and voices."""

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch

from tests.checkpoints import files, plain
from tests.checkpoints.layouts import Write, of_mlx_audio
from tests.checkpoints.plain import ENGLISH_BASE, MULTILINGUAL_BASE, TURBO_BASE, Base, Tensors, save
from tests.checkpoints.unusable import PROJECTION, WEIGHTS, Refused, with_tensors


def quantised_by_mlx(bits: int, base: Base = ENGLISH_BASE, mode: str = "affine") -> Write:
    """As mlx-audio's `convert.py --quantize`: the matrices of the layers."""

    def change(tensors: Tensors) -> dict[str, Any]:
        found: dict[str, Any] = dict(of_mlx_audio(tensors))
        for name, value in list(found.items()):
            if (
                (".layers." in name or ".h." in name)
                and name.endswith(".weight")
                and value.ndim == 2
                and value.shape[1] == 32
            ):
                parts = mx.quantize(mx.array(value), group_size=32, bits=bits, mode=mode)
                ends = ("weight", "scales", "biases")
                found |= {f"{name.removesuffix('weight')}{end}": part for end, part in zip(ends, parts, strict=False)}
        return found

    return with_tensors(change, base, "model.safetensors")


def float8(folder: Path) -> None:
    """As ComfyUI's scaled fp8; the header alone matters, so the bytes are any."""
    ENGLISH_BASE.write(folder)
    write_raw(
        folder / WEIGHTS,
        {name: ("F8_E4M3" if value.ndim == 2 else "F32", value.shape) for name, value in ENGLISH_BASE.tensors.items()},
    )


def write_raw(path: Path, entries: Mapping[str, tuple[str, tuple[int, ...]]], *, sparse: bool = False) -> None:
    """A file of safetensors with any dtypes. sparse: without writing data, of which a disk then stores nothing."""
    sizes = {"F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "F32": 4, "U8": 1, "I8": 1, "I32": 4}
    header, end = dict[str, Any](), 0
    for name, (dtype, shape) in entries.items():
        size = sizes[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            file.truncate(8 + len(text) + end)
        else:
            file.write(np.random.default_rng(0).integers(1, 200, end, dtype=np.uint8).tobytes())


def quantised() -> Iterator[Refused]:
    hint = "mx.dequantize"
    for bits in (4, 8):
        yield Refused(
            "MLX quantised",
            f"{bits} bits",
            quantised_by_mlx(bits),
            ("model.safetensors", f"is quantised by MLX to {bits} bits: 'tfmr.layers", hint),
        )
    yield Refused("MLX quantised", "Turbo", quantised_by_mlx(4, TURBO_BASE), ("by MLX to 4 bits: 'tfmr.h.0", hint))
    yield Refused("MLX quantised", "mxfp4", quantised_by_mlx(4, mode="mxfp4"), ("by MLX to 4 bits", hint))
    yield Refused("fp8", "E4M3", float8, (WEIGHTS, "is stored as fp8", "is F8_E4M3", "dequantise it"))
    name = PROJECTION.removesuffix("weight")
    ones, packed = np.ones(2, np.float32), np.ones((4, 4), np.uint8)
    for kind, more, says in (
        (
            "nf4",
            {f"{name}weight": packed, f"{name}weight.absmax": ones, f"{name}weight.quant_map": ones},
            "is quantised (bitsandbytes): it has ",
        ),
        ("int8", {f"{name}weight": packed.astype(np.int8), f"{name}SCB": ones}, "is quantised (bitsandbytes)"),
        ("GPTQ", {f"{name}qweight": packed.astype(np.int32), f"{name}scales": ones}, "is quantised (GPTQ or AWQ)"),
        ("a scale", {f"{name}weight_scale": ones}, "is quantised (one scale a matrix)"),
        ("plain int8", {f"{name}weight": packed.astype(np.int8)}, f"is quantised: '{PROJECTION}' is I8"),
    ):
        yield Refused(
            "quantised otherwise",
            kind,
            with_tensors(lambda tensors, more=more: tensors | more),
            (says, "dequantise it and save it as bfloat16"),
        )


LORA = {
    "base_model.model.tfmr.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 32), np.float32),
    "base_model.model.tfmr.layers.0.self_attn.q_proj.lora_B.weight": np.ones((32, 2), np.float32),
}


def adapters() -> Iterator[Refused]:
    alone = with_tensors(lambda tensors: LORA, name="adapter_model.safetensors")
    words = ("holds a LoRA that is not merged", "merge it into its base, as PEFT's merge_and_unload()")
    yield Refused("LoRA", "alone", alone, ("adapter_model.safetensors", *words))
    for kind, base_name, ends in (
        ("PEFT", "base_layer.weight", ("lora_A.default.weight", "lora_B.default.weight")),
        ("of a trainer", "base_layer.weight", ("lora.lora_A", "lora.lora_B")),
        ("MLX", "linear.weight", ("lora_a", "lora_b")),
    ):
        beside = with_tensors(lambda tensors, base_name=base_name, ends=ends: unmerged(tensors, base_name, ends))
        yield Refused("LoRA", kind, beside, (WEIGHTS, *words))
    yield Refused(
        "LoRA",
        "beside its base",
        beside_base,
        ("holds t3_cfg.safetensors and a LoRA that is not merged into it", "merge them, or name"),
    )


def unmerged(tensors: Tensors, base_name: str, ends: tuple[str, ...]) -> Tensors:
    name = PROJECTION.removesuffix("weight")
    rest = {own: value for own, value in tensors.items() if own != PROJECTION}
    return (
        rest
        | {f"{name}{base_name}": tensors[PROJECTION]}
        | {f"{name}{end}": np.ones((2, 2), np.float32) for end in ends}
    )


def beside_base(folder: Path) -> None:
    ENGLISH_BASE.write_all(folder)
    save(folder / "adapter_model.safetensors", LORA)


def split(folder: Path) -> None:
    ENGLISH_BASE.write(folder)
    names = sorted(ENGLISH_BASE.tensors)
    parts = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    for name, own in zip(parts, (names[:20], names[20:]), strict=True):
        save(folder / name, {each: ENGLISH_BASE.tensors[each] for each in own})
    index = {"metadata": {}, "weight_map": {each: parts[names.index(each) >= 20] for each in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return print, ("run",)


def script(folder: Path) -> None:
    """The files that tell TorchScript from a pickle of tensors."""
    ENGLISH_BASE.write(folder)
    with zipfile.ZipFile(folder / "t3_cfg.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version", "code/__torch__.py"):
            archive.writestr(f"t3/{name}", b"\x80\x02}." if name.endswith("pkl") else b"3\n")


def parts_and_pickles() -> Iterator[Refused]:
    first = "model-00001-of-00002.safetensors"
    for opened in ("", first):
        yield Refused("shards", opened or "folder", split, (f"{first} is part 1 of 2", "save_file() of all"), opened)
    again = "save its state_dict() with safetensors"
    code = files.pickled(lambda tensors: {**tensors, "hook": Code()})
    yield Refused("pickle", "with code", code, ("t3_cfg.pt cannot be read: it holds ", "print, which", "state_dict()"))
    yield Refused("pickle", "TorchScript", script, ("t3_cfg.pt cannot be read: ", "torchscript", again))
    yield Refused("pickle", "cut off", cut_pickle, ("t3_cfg.pt cannot be read: it ends", "download complete?"))
    other = files.pickled(lambda tensors: {"flow.weight": torch.ones(2)}, "model.pt")
    yield Refused("pickle", "of another model", other, ("model.pt is S3Gen: it holds no T3", "name the file"))
    lora = files.pickled(lambda tensors: {name: torch.from_numpy(value) for name, value in LORA.items()}, "lora.pt")
    yield Refused("pickle", "LoRA", lora, ("lora.pt holds a LoRA that is not merged", "merge_and_unload()"))


def cut_pickle(folder: Path) -> None:
    files.pickled(dict)(folder)
    (folder / "t3_cfg.pt").write_bytes((folder / "t3_cfg.pt").read_bytes()[:40_000])


def tokenizers() -> Iterator[Refused]:
    def without(folder: Path) -> None:
        MULTILINGUAL_BASE.write_all(folder)
        (folder / plain.GRAPHEMES).unlink()

    def of_another(rows: int, *, both: bool = False) -> Write:
        def write(folder: Path) -> None:
            MULTILINGUAL_BASE.write_all(folder)
            (folder / plain.GRAPHEMES).unlink()
            plain.write_tokenizer(folder / plain.FIRST_GRAPHEMES, rows)
            if both:
                plain.write_tokenizer(folder / "tokenizer.json", 40)

        return write

    missing = "grapheme_mtl_merged_expanded_v1.json does not exist"
    yield Refused("tokenizer", "missing", without, (missing, "belongs beside the weights"))
    copy = "copy grapheme_mtl_merged_expanded_v1.json beside the weights"
    yield Refused(
        "tokenizer", "of v1", of_another(52), ("mtl_tokenizer.json has 52 ids up to 51, text_emb has 60 rows", copy)
    )
    yield Refused(
        "tokenizer",
        "of v1 and English",
        of_another(52, both=True),
        ("no tokenizer fits the 60 rows of text_emb; ids: tokenizer.json 40, mtl_tokenizer.json 52", copy),
    )


def voices() -> Iterator[Refused]:
    def none(folder: Path) -> None:
        ENGLISH_BASE.write_all(folder)
        (folder / "conds.pt").unlink()

    yield Refused("voice", "none", none, ("has no voice", "expected conds.pt or conds.safetensors", "base model"))
    for name, change, says in (
        (
            "255 values",
            lambda fields: {"t3": fields | {"speaker_emb": torch.ones(1, 255)}},
            "speaker_emb has 255 values, or not all are finite (expected 256)",
        ),
        (
            "NaN",
            lambda fields: {"t3": fields | {"speaker_emb": torch.full((1, 256), torch.nan)}},
            "speaker_emb has 256 values, or not all are finite",
        ),
        (
            "large ids",
            lambda fields: {"t3": fields | {"cond_prompt_speech_tokens": torch.full((1, 4), 66)}},
            "cond_prompt_speech_tokens do not fit (expected at most 132 whole numbers under 66)",
        ),
        (
            "tokens of float32",
            lambda fields: {"t3": fields | {"cond_prompt_speech_tokens": torch.ones(1, 4)}},
            "cond_prompt_speech_tokens do not fit",
        ),
        ("for S3Gen alone", lambda fields: {"gen": {"embedding": torch.ones(1, 192)}}, "has no 'speaker_emb'"),
        ("with code", lambda fields: {"t3": {**fields, "hook": Code()}}, "cannot be read: it holds "),
    ):
        yield Refused("voice", name, files.saved(change), ("conds.pt", says))
