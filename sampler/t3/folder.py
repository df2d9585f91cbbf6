"""The files of a checkpoint in a folder: the one with the weights of a T3, whatever it is called, and its config."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sampler.errors import SamplerError, WeightsError
from sampler.runtime.reading import formats
from sampler.runtime.reading.json_text import read_json
from sampler.runtime.reading.source import cut
from sampler.t3 import unusable, voice
from sampler.t3.config import T3Config
from sampler.t3.content import PICKLED, SAFE, AdapterError, NoT3Error, open_weights
from sampler.t3.files import file_of, shown

OTHER_FORMATS: Final = frozenset({formats.GGUF, formats.ONNX, formats.NPZ, "GGML", formats.HDF5, "TensorFlow Lite"})
CORE_ML: Final = (".mlpackage", ".mlmodelc")

PACKED: Final = re.compile(r"\.(?:safetensors|pt|pth|bin|ckpt)\.\w+$")
"""Names of weights that were compressed, or have another ending behind their own."""

BESIDE: Final = re.compile(r"(?:optimizer|scheduler|scaler|rng_state|training_args|ve|s3gen|s3gen_\w+|conds)\b.*")
"""Pickles that trainers and upstream write beside the weights: they are not opened."""

UPSTREAM: Final = ("t3_cfg", "t3_mtl23ls_v2", "t3_mtl23ls_v3", "t3_23lang", "t3_turbo_v1", "t3_nano_v1")
"""Upstream's weights without their ending, as one of several is chosen.

`ChatterboxTTS.from_pretrained` loads the first, `ChatterboxMultilingualTTS.from_pretrained` of 0.1.5 to 0.1.7 the next.
"""

OWN_KEYS: Final = frozenset({"text_vocab_size", "speech_vocab_size", "start_text_id", "perceiver_queries"})
"""Keys of this package's config.json; that of transformers, vLLM or mlx-audio has none of them."""


class Chosen(NamedTuple):
    """The weights file that is read. others: names of upstream's that lie beside it and are not."""

    path: Path
    others: tuple[str, ...] = ()


def instead(others: Sequence[str]) -> str:
    """How another of the files that are not read is chosen, in words."""
    return f"not read: {', '.join(others)}; to take another: --weights DIR/{others[0]}"


def find_weights(path: Path) -> Chosen:
    """The weights file of a folder; a file is itself.

    Of several with upstream's names the first of UPSTREAM is taken. Raises WeightsError for no T3, for several with
    other names, and for files from which none can be read.
    """
    if not os.path.lexists(path):  # Path.exists raises for a name that is too long
        raise WeightsError(f"{shown(path)} does not exist", hint="give a folder with t3_cfg.safetensors, or that file")
    if not path.is_dir():
        return Chosen(path)
    folder = _snapshot(path)
    problems: dict[str, SamplerError] = {}
    for choose in (_is_safe, _is_pickled):
        found = _with_t3(filter(choose, _files(folder)), problems)
        if found:
            return _chosen(folder, found, problems)
    raise _reason(folder, list(problems.values()))


def looks_like_weights(path: Path) -> bool:
    """Whether a path may be meant as weights: a folder with tensors or of the Hub's cache, or a file with tensors."""
    try:
        if path.is_dir():
            return any(each.name == "snapshots" or each.name.endswith((SAFE, *PICKLED)) for each in path.iterdir())
        is_checkpoint = any((path.parent / name).is_file() for name in voice.NAMES)
        return path.is_file() and (path.name.endswith(SAFE) or (path.name.endswith(PICKLED) and is_checkpoint))
    except OSError:  # a name that is too long, or a folder that may not be read
        return False


def read_own_config(folder: Path) -> T3Config | None:
    """The config.json of this package; None if there is none, or that of another program."""
    path = folder / "config.json"
    if not os.path.lexists(path):
        return None
    data = read_json(file_of(path)).data
    is_other = isinstance(data, dict) and not OWN_KEYS & data.keys()
    return None if is_other else T3Config.read(path)


def _snapshot(folder: Path) -> Path:
    """The files of a repository in the Hub's cache: those of `main`, or of its only revision."""
    revisions = folder / "snapshots"
    if not revisions.is_dir():
        return folder
    main = folder / "refs" / "main"
    named = revisions / main.read_text(encoding="utf-8").strip() if main.is_file() else revisions / "main"
    found = [named] if named.is_dir() else sorted(revisions.iterdir())
    if len(found) != 1:
        raise WeightsError(f"{shown(folder)} has {len(found)} snapshots", hint="give the folder of one of them")
    return found[0]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name not in voice.NAMES and not path.is_dir())


def _is_safe(path: Path) -> bool:
    return path.name.endswith(SAFE) or _format(path) == formats.SAFETENSORS


def _is_pickled(path: Path) -> bool:
    is_one = path.name.endswith(PICKLED) or _format(path) in (formats.TORCH, formats.PICKLE)
    return is_one and not path.name.endswith(SAFE) and not BESIDE.fullmatch(path.name)


def _format(path: Path) -> str | None:
    try:
        return file_of(path).format()
    except WeightsError:
        return None


def _with_t3(paths: Iterable[Path], problems: dict[str, SamplerError]) -> list[Path]:
    """The files that hold a T3; why others do not is added to `problems`."""
    found = []
    for path in paths:
        try:
            with open_weights(path):
                found.append(path)
        except SamplerError as error:
            problems[path.name] = error
    return found


def _chosen(folder: Path, found: Sequence[Path], problems: Mapping[str, SamplerError]) -> Chosen:
    files = {path.resolve(): path for path in sorted(found, key=_is_upstreams)}  # upstream's of two names of one file
    distinct = sorted(files.values(), key=lambda path: (_place(path), path.name))
    if len(distinct) > 1 and not all(map(_is_upstreams, distinct)):
        names = cut(", ".join(path.name for path in distinct), 90)
        raise WeightsError(f"{shown(folder)} holds {names}", hint="name the one file that you mean")
    first = distinct[0]
    adapter = next((error for error in problems.values() if isinstance(error, AdapterError)), None)
    if adapter is not None:
        hint = f"merge them, or name {first.name} for the base alone"
        raise WeightsError(f"{shown(folder)} holds {first.name} and a LoRA that is not merged into it", hint=hint)
    spoiled = [folder / name for name in problems if _is_upstreams(folder / name) and not _is_absent(folder / name)]
    before = min((path for path in spoiled if _place(path) < _place(first)), key=_place, default=None)
    if before is not None and _is_upstreams(first):
        raise problems[before.name]
    return Chosen(first, tuple(path.name for path in distinct[1:]))


def _is_upstreams(path: Path) -> bool:
    return path.stem in UPSTREAM


def _place(path: Path) -> int:
    return UPSTREAM.index(path.stem) if _is_upstreams(path) else len(UPSTREAM)


def _is_absent(path: Path) -> bool:
    """Whether a file was not fetched: Git LFS and the Hub's cache leave something in its place."""
    return not path.exists() or _format(path) == formats.POINTER


def _reason(folder: Path, problems: Sequence[SamplerError]) -> SamplerError:
    """The error that says most about a folder without a T3."""
    others = [error for error in problems if isinstance(error, NoT3Error)]
    serious = [error for error in problems if error not in others]
    if serious:
        return min(serious, key=lambda error: not error.message.startswith(("t3", "model", "weights")))
    files = _files(folder)
    for path in files:
        if (known := unusable.part(path.name)) is not None:
            return file_of(path).refuse(known.complaint, known.hint, join=" ")
        if (found := _format(path)) in OTHER_FORMATS:
            return file_of(path).other(found, "safetensors")
        if PACKED.search(path.name):
            return file_of(path).other(found, "safetensors")
    below = sorted(path.name for path in folder.iterdir() if path.is_dir() and looks_like_weights(path))
    if below:
        names = cut(", ".join(below), 60)
        return WeightsError(f"{shown(folder)} holds no weights itself", hint=f"name a folder in it: {names}")
    for path in folder.iterdir():
        if path.name.endswith(CORE_ML):
            return file_of(path).refuse("is Core ML", "take the safetensors that it was made from", join=" ")
    if others:
        return others[0]
    hint = "expected one of weights.safetensors, t3_cfg.safetensors or any file with the tensors of a T3"
    return WeightsError(f"{shown(folder)} holds no weights", hint=hint)
