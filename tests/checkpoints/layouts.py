"""Folders that load: names, dtypes, files and voices as converters, trainers and upstream's versions write them."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from tests.checkpoints import plain
from tests.checkpoints.plain import (
    ENGLISH_BASE,
    FIRST_BASE,
    MULTILINGUAL_BASE,
    NANO_BASE,
    TURBO_BASE,
    Base,
    Tensors,
    save,
)

Write = Callable[[Path], None]


class Made(NamedTuple):
    """A folder that loads as its base does. says: parts of what is shown about it. rounded: dtype of its weights.

    opened: what the command names, if not the folder itself.
    """

    kind: str
    name: str
    base: Base
    write: Write
    says: tuple[str, ...] = ()
    rounded: str = ""
    opened: str = ""


def renamed(change: Callable[[str], str], base: Base = ENGLISH_BASE, **more: np.ndarray) -> Write:
    """The base with other names. more: further tensors, whose names have `__` for a dot."""
    return changed(
        lambda tensors: (
            {change(name): value for name, value in tensors.items()}
            | {name.replace("__", "."): value for name, value in more.items()}
        ),
        base,
    )


def changed(change: Callable[[Tensors], Mapping[str, Any]], base: Base = ENGLISH_BASE, name: str = "") -> Write:
    """The base with other tensors, under another name of the file."""

    def write(folder: Path) -> None:
        base.write(folder)
        save(folder / (name or base.name), change(base.tensors))

    return write


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


PREFIXES = (
    *("t3.", "model.", "module.", "_orig_mod.", "base_model.model.", "state_dict.", "model.t3."),
    *("module._orig_mod.", "_orig_mod.module.", "_orig_mod.t3.", "t3._orig_mod.", "module.model.t3."),
)


def prefixes() -> Iterator[Made]:
    for prefix in PREFIXES:
        words = [f"'{part}.' removed" for part in ("_orig_mod", "module") if part in prefix.split(".")]
        shared = prefix.replace("_orig_mod.", "").replace("module.", "")
        words += [f"{shared!r} removed"] if shared else []
        yield Made("prefix", prefix, ENGLISH_BASE, renamed(lambda name, prefix=prefix: prefix + name), tuple(words))
    yield Made("prefix", "t3. of Turbo", TURBO_BASE, renamed(lambda name: f"t3.{name}", TURBO_BASE), ("'t3.' removed",))


def inner_names() -> Iterator[Made]:
    for inner in ("_orig_mod.", "module.", "_fsdp_wrapped_module."):
        change = renamed(lambda name, inner=inner: name.replace("tfmr.", f"tfmr.{inner}"))
        yield Made("wrapped backbone", inner, ENGLISH_BASE, change, (f"{inner!r} removed",))
    for base, inner in ((ENGLISH_BASE, "model."), (TURBO_BASE, "transformer.")):
        change = renamed(lambda name, inner=inner: name.replace("tfmr.", f"tfmr.{inner}"), base)
        yield Made("backbone in a model", inner, base, change, (f"'tfmr.{inner}' read as 'tfmr.'",))
    yield Made("after inference", "copies", ENGLISH_BASE, changed(patched), ("patched_model.* (21)",))
    only = changed(lambda tensors: {patch(name): value for name, value in tensors.items()})
    yield Made("after inference", "alone", ENGLISH_BASE, only, ("'patched_model.model.' read as 'tfmr.'",))


def patch(name: str) -> str:
    """As upstream's `T3.inference` wraps the modules that it has."""
    for own, other in (("tfmr.", "model."), ("speech_emb.", "speech_enc."), ("speech_head.", "speech_head.")):
        if name.startswith(own):
            return f"patched_model.{other}{name.removeprefix(own)}"
    return name


def patched(tensors: Tensors) -> Tensors:
    return tensors | {patch(name): value for name, value in tensors.items()}


OTHER_PARTS = {
    "ve.lstm.weight_ih_l0": np.ones((4, 2), np.float32),
    "s3gen.flow.input_embedding.weight": np.ones((4, 2), np.float32),
    "s3gen.mel2wav.conv_pre.bias": np.ones(3, np.float32),
}


def of_mlx_audio(tensors: Tensors) -> Tensors:
    """As mlx-audio's convert.py: one file, `tfmr.model.`, and GPT-2's matrices as (out, in)."""
    ends = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    found = {}
    for name, value in tensors.items():
        is_llama = name.startswith(("tfmr.layers.", "tfmr.norm.", "tfmr.embed_tokens."))
        own = name.replace("tfmr.", "tfmr.model.", 1) if is_llama else name
        found[f"t3.{own}"] = value.T if name.startswith("tfmr.h.") and name.endswith(ends) else value
    return found | OTHER_PARTS


def write_mlx_audio(base: Base) -> Write:
    def write(folder: Path) -> None:
        base.write(folder)
        save(folder / "model.safetensors", of_mlx_audio(base.tensors))
        (folder / "conds.pt").unlink()
        voice = {f"t3.{name}": value.numpy() for name, value in plain.voice_fields().items()}
        save(folder / "conds.safetensors", voice | {"gen.embedding": np.zeros((1, 192), np.float32)})
        tokenizer = plain.UPSTREAM[base.name][1]
        if tokenizer == "vocab.json":
            rewrite_byte_level(folder)
        elif tokenizer != "tokenizer.json":
            (folder / tokenizer).rename(folder / "tokenizer.json")
        settings = {"model_type": "chatterbox", "version": "1.0", "t3_config": {"llama_config_name": "Llama_520M"}}
        (folder / "config.json").write_text(json.dumps(settings))

    return write


def rewrite_byte_level(folder: Path) -> None:
    """Turbo's tokenizer as one `tokenizer.json`."""
    added = json.loads((folder / "added_tokens.json").read_text())
    vocabulary = json.loads((folder / "vocab.json").read_text())
    data = json.loads(plain.byte_level().to_str())
    data["model"]["vocab"] = vocabulary
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"] = [{"id": place, "content": name, "special": True} | flags for name, place in added.items()]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).unlink()


def parts() -> Iterator[Made]:
    for base in (ENGLISH_BASE, MULTILINGUAL_BASE, TURBO_BASE, NANO_BASE):
        words = ("'t3.' removed", "ve.* (1)", "s3gen.* (2)")
        yield Made("mlx-audio", base.config.name, base, write_mlx_audio(base), words)
    whole = renamed(lambda name: f"t3.{name}", **{name.replace(".", "__"): OTHER_PARTS[name] for name in OTHER_PARTS})
    yield Made("more than T3", "with t3.", ENGLISH_BASE, whole, ("ve.* (1)",))
    bare = changed(lambda tensors: tensors | OTHER_PARTS)
    yield Made("more than T3", "without a prefix", ENGLISH_BASE, bare, ("s3gen.* (2)",))


def unused() -> Iterator[Made]:
    embed, head, wte = "tfmr.embed_tokens.weight", "text_head.weight", "tfmr.wte.weight"
    wide = np.zeros((4_000, 32), np.float32)
    mask = np.tril(np.ones((1, 1, 9, 9), bool))
    for name, base, change in (
        ("no embed_tokens", ENGLISH_BASE, without(embed)),
        ("no text_head", ENGLISH_BASE, without(head)),
        ("embed_tokens of 4,000 rows", ENGLISH_BASE, lambda tensors: tensors | {embed: wide}),
        ("constant text_head", ENGLISH_BASE, lambda tensors: tensors | {head: np.zeros((40, 32), np.float32)}),
        ("inv_freq", ENGLISH_BASE, lambda tensors: tensors | {"tfmr.rotary_emb.inv_freq": np.ones(8, np.float32)}),
        ("no wte", TURBO_BASE, without(wte)),
        ("wte of another size", TURBO_BASE, lambda tensors: tensors | {wte: wide}),
        ("masks", TURBO_BASE, lambda tensors: tensors | {f"tfmr.h.{place}.attn.bias": mask for place in range(2)}),
        (
            "masked_bias",
            TURBO_BASE,
            lambda tensors: tensors | {"tfmr.h.0.attn.masked_bias": np.array(-1e4, np.float32)},
        ),
    ):
        yield Made("unused tensors", name, base, changed(change, base))


def dtypes() -> Iterator[Made]:
    for dtype in ("float16", "bfloat16", "float32"):
        for base in (ENGLISH_BASE, TURBO_BASE):
            cast = changed(lambda tensors, dtype=dtype: rounded_to(tensors, dtype), base)
            short = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}[dtype]
            yield Made("dtype", f"{dtype} {base.name}", base, cast, (short,), dtype)
    double = changed(lambda tensors: {name: value.astype(np.float64) for name, value in tensors.items()})
    yield Made("dtype", "float64", ENGLISH_BASE, double, ("F64",))


def rounded_to(tensors: Tensors, dtype: str) -> dict[str, mx.array]:
    return {name: mx.array(value).astype(getattr(mx, dtype)) for name, value in tensors.items()}


def file_names() -> Iterator[Made]:
    for name in (
        "t3_finetuned.safetensors",
        "model.safetensors",
        "anything at all.safetensors",
        "t3",
        "T3.SAFETENSORS",
    ):
        yield Made("file name", name, ENGLISH_BASE, changed(dict, name=name), (name,))
    for name in ("t3_kartoffelbox.safetensors", "t3_23lang.safetensors"):
        yield Made("file name", f"{name}, v2", MULTILINGUAL_BASE, changed(dict, MULTILINGUAL_BASE, name))
    yield Made("file name", "v2 of v1", FIRST_BASE, changed(dict, FIRST_BASE, "t3_mtl23ls_v2.safetensors"))
    for base in (ENGLISH_BASE, MULTILINGUAL_BASE, FIRST_BASE, TURBO_BASE, NANO_BASE):
        yield Made("upstream", base.name, base, base.write_all, (base.config.name,))
    yield Made("upstream", "the file", ENGLISH_BASE, ENGLISH_BASE.write_all, opened=ENGLISH_BASE.name)


def configs() -> Iterator[Made]:
    llama = {"architectures": ["ChatterboxT3"], "model_type": "llama", "hidden_size": 1024, "vocab_size": 8}
    own = ENGLISH_BASE.config.to_dict()
    for name, data in (
        ("of transformers", llama),
        ("empty", {}),
        ("own", own),
        ("own with fewer ids", own | {"text_vocab_size": 39}),
    ):

        def write(folder: Path, data: dict[str, Any] = data) -> None:
            ENGLISH_BASE.write_all(folder)
            (folder / "config.json").write_text(json.dumps(data))

        yield Made("config.json", name, ENGLISH_BASE, write)
