"""Files of tensors that hold no T3 as it is computed: adapters, quantised and split weights, other models."""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from sampler.runtime.reading.source import short
from sampler.runtime.reading.tensors import Entry

Entries = Mapping[str, Entry]

LORA: Final = re.compile(
    r"(?:.*\.)?(?:lora_\w+|lokr_\w+|loha_\w+|lora)\..*|.*\.lora_[abAB]|.*\.(?:base_layer|modules_to_save)\..*"
)
"""Names of PEFT, MLX and of training scripts of their own."""

ADAPTER: Final = re.compile(r".*\.(?:hada_w\w+|oft_\w+|boft_\w+|ia3_\w+|vera_\w+)(?:\..*)?")
"""Names of other adapters of PEFT."""

SHARD: Final = re.compile(r".*-(\d{5})-of-(\d{5})\..*")

UNFINISHED: Final = (".part", ".crdownload", ".incomplete", ".aria2")
INDEX: Final = ".index.json"

MODELS: Final = (
    ("S3Gen", re.compile(r"(?:s3gen\.)?(?:flow|mel2wav)\..*")),
    ("the voice encoder", re.compile(r"(?:ve\.)?(?:lstm\.weight_ih_l0|lstm1\.Wx|similarity_weight)")),
    ("S3's speech tokenizer", re.compile(r"(?:tokenizer\.)?(?:encoder\.blocks\.\d+\..*|quantizer\..*)")),
    ("a voice", re.compile(r"(?:.*[._])?speaker_emb")),
    ("the state of an optimizer", re.compile(r"(?:state|param_groups)\..*")),
    ("a language model", re.compile(r"(?:model\.|transformer\.)?(?:layers|h)\.\d+\..*")),
)
"""Other models by names of their tensors."""

JOIN: Final = "join them: load_file() of each, save_file() of all their tensors as one"
MERGE: Final = "merge it into its base, as PEFT's merge_and_unload() does, and save that"
DEQUANTISE: Final = "dequantise it and save it as bfloat16, or take the model it was made from"


class Problem(NamedTuple):
    """Why no T3 can be read, and what to do."""

    complaint: str
    hint: str


def part(name: str) -> Problem | None:
    """A file that is one of several, lists several, or is not complete, by its name."""
    if name.endswith(UNFINISHED):
        return Problem("is an unfinished download", "finish it")
    if name.endswith(INDEX):
        return Problem("lists weights that are split into several files", JOIN)
    found = SHARD.fullmatch(name)
    return None if found is None else Problem(f"is part {int(found[1])} of {int(found[2])}", JOIN)


def adapter(entries: Entries) -> Problem | None:
    """A LoRA, alone or beside the weights that it belongs to."""
    for what, pattern in (("a LoRA", LORA), ("an adapter", ADAPTER)):
        names = sorted(name for name in entries if pattern.fullmatch(name))
        if names:
            return Problem(f"holds {what} that is not merged, {_some(names, 40)}", MERGE)
    return None


def other_model(entries: Entries) -> Problem:
    """A file without the tensors of a T3."""
    for what, pattern in MODELS:
        if any(pattern.fullmatch(name) for name in entries):
            return Problem(f"is {what}: it holds no T3", "name the file that has tfmr, text_emb and speech_emb")
    return Problem(f"holds no T3, but {_some(sorted(entries))}", "name the file that has tfmr, text_emb and speech_emb")


def _some(names: list[str], longest: int = 50) -> str:
    if not names:
        return "no tensors"
    first = short(names[0], longest)
    return f"{len(names):,} tensors such as {first}" if len(names) > 1 else f"1 tensor, {first}"


def stored_otherwise(entries: Entries) -> Problem | None:
    """Weights in fewer bits than they are computed with, or in factors. entries: of the T3 alone."""
    find: tuple[Callable[[Entries], Problem | None], ...] = (_mlx, _float8, _other_bits, _in_factors)
    return next((found for each in find if (found := each(entries)) is not None), None)


def _mlx(entries: Entries) -> Problem | None:
    """MLX packs 32 bits of a row in a number, with `scales` of groups beside it, and `biases` in its affine mode."""
    packed = [name for name, entry in entries.items() if entry.dtype == "U32" and name.endswith(".weight")]
    packed = [name for name in packed if f"{name.removesuffix('.weight')}.scales" in entries]
    if not packed:
        return None
    bits = _bits(entries, packed[0])
    how = f"quantised by MLX to {bits} bits" if bits else "quantised by MLX"
    return Problem(f"is {how}: {short(min(packed), 50)}", f"{DEQUANTISE}; mx.dequantize does it")


def _bits(entries: Entries, name: str) -> int | None:
    """Bits of a value: a row of a projection has as many values as the last norm, which is never packed."""
    norms = [entries[own].shape for own in ("tfmr.norm.weight", "tfmr.ln_f.weight") if own in entries]
    width = norms[0][-1] if norms and norms[0] else 0
    square = name.rpartition(".")[0].endswith(("q_proj", "k_proj", "v_proj", "c_attn", "gate_proj", "up_proj", "c_fc"))
    columns = entries[name].shape[-1] if entries[name].shape else 0
    return 32 * columns // width if square and width and 32 * columns % width == 0 else None


def _float8(entries: Entries) -> Problem | None:
    names = sorted(name for name, entry in entries.items() if entry.dtype.startswith(("F8", "F4", "F6_")))
    if not names:
        return None
    kind = entries[names[0]].dtype
    hint = "dequantise it: times its scale, if it has one, saved as bfloat16; or take the model it was made from"
    bits = "fp8" if kind.startswith("F8") else f"fp{kind[1]}"
    return Problem(f"is stored as {bits}: {short(names[0], 50)} is {kind}", hint)


FACTORS: Final = re.compile(r".*\.(?:weight_g|weight_v|parametrizations\.weight\.original[01])")


def _in_factors(entries: Entries) -> Problem | None:
    names = sorted(name for name in entries if FACTORS.fullmatch(name))
    hint = "fold it: remove_weight_norm() or parametrize.remove_parametrizations() of torch.nn.utils"
    return Problem(f"has a weight as a norm and a direction: {short(names[0], 60)}", hint) if names else None


BITS: Final = (
    ("compressed-tensors", re.compile(r".*\.weight_packed")),
    ("EXL2", re.compile(r".*\.(?:q_weight|q_scale|q_invperm)")),
    ("HQQ", re.compile(r".*\.W_q")),
    ("bitsandbytes", re.compile(r".*\.(?:absmax|quant_map|SCB|quant_state\..*)")),
    ("GPTQ or AWQ", re.compile(r".*\.(?:qweight|qzeros|g_idx)")),
    ("one scale a matrix", re.compile(r".*\.(?:weight_scale|weight_scale_inv|scale_weight|scales|weight\._scale)")),
)


def _other_bits(entries: Entries) -> Problem | None:
    for how, pattern in BITS:
        names = sorted(name for name in entries if pattern.fullmatch(name))
        if names:
            return Problem(f"is quantised ({how}): it has {short(names[0], 60)}", DEQUANTISE)
    names = sorted(name for name, each in entries.items() if each.dtype in ("I8", "U8") and name.endswith(".weight"))
    return Problem(f"is quantised: {short(names[0], 60)} is {entries[names[0]].dtype}", DEQUANTISE) if names else None
