"""Read upstream's state dicts: exactly the tensors of T3, with their shapes and finite values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.errors import WeightsError
from sampler.runtime.reading.source import Source, short
from sampler.runtime.reading.tensors import Tensors, open_tensors
from sampler.t3.config import T3Config

Dtype = Literal["float32", "float16", "bfloat16"]
Shape = tuple[int, ...]


def expected_shapes(config: T3Config) -> dict[str, Shape]:
    """Name and shape of every tensor of a T3, as in upstream's `T3.state_dict()`."""
    return _gpt2_shapes(config) if config.backbone == "gpt2" else _llama_shapes(config)


def _llama_shapes(config: T3Config) -> dict[str, Shape]:
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, Shape] = {
        "tfmr.embed_tokens.weight": (8, width),  # unused, but LlamaModel requires it
        "tfmr.norm.weight": (width,),
        "cond_enc.spkr_enc.weight": (width, config.speaker_size),
        "cond_enc.spkr_enc.bias": (width,),
        "cond_enc.emotion_adv_fc.weight": (width, 1),
        "cond_enc.perceiver.pre_attention_query": (1, config.perceiver_queries, width),
        "cond_enc.perceiver.attn.norm.weight": (width,),
        "cond_enc.perceiver.attn.norm.bias": (width,),
        "text_emb.weight": (config.text_vocab_size, width),
        "text_head.weight": (config.text_vocab_size, width),
        "speech_emb.weight": (config.speech_vocab_size, width),
        "speech_head.weight": (config.speech_vocab_size, width),
        "text_pos_emb.emb.weight": (config.text_positions, width),
        "speech_pos_emb.emb.weight": (config.speech_positions, width),
    }
    for name in ("to_q", "to_k", "to_v", "proj_out"):
        shapes[f"cond_enc.perceiver.attn.{name}.weight"] = (width, width)
        shapes[f"cond_enc.perceiver.attn.{name}.bias"] = (width,)
    for index in range(config.num_layers):
        layer = f"tfmr.layers.{index}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{layer}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    return shapes


def _gpt2_shapes(config: T3Config) -> dict[str, Shape]:
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, Shape] = {
        "tfmr.wte.weight": (config.text_vocab_size, width),  # unused: upstream deletes it after reading the file
        "tfmr.wpe.weight": (config.positions, width),
        "tfmr.ln_f.weight": (width,),
        "tfmr.ln_f.bias": (width,),
        "cond_enc.spkr_enc.weight": (width, config.speaker_size),
        "cond_enc.spkr_enc.bias": (width,),
        "text_emb.weight": (config.text_vocab_size, width),
        "text_head.weight": (config.text_vocab_size, width),
        "speech_emb.weight": (config.speech_vocab_size, width),
        "speech_head.weight": (config.speech_vocab_size, width),
        "speech_head.bias": (config.speech_vocab_size,),
    }
    products = {"attn.c_attn": 3 * width, "attn.c_proj": width, "mlp.c_fc": inner, "mlp.c_proj": width}
    for index in range(config.num_layers):
        for name, size in products.items():
            shapes[f"tfmr.h.{index}.{name}.weight"] = (inner if name == "mlp.c_proj" else width, size)
            shapes[f"tfmr.h.{index}.{name}.bias"] = (size,)
        for name in ("ln_1", "ln_2"):
            shapes |= {f"tfmr.h.{index}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    return shapes


def check_shapes(found: Mapping[str, Shape], config: T3Config, source: str) -> None:
    """Raise WeightsError naming the first missing, extra or mis-shaped tensor."""
    expected = expected_shapes(config)
    for problem, names in (
        ("has no tensor", expected.keys() - found.keys()),
        ("has an unknown tensor", found.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsError(
                f"{source} {problem} {short(min(names))}{more}", hint=f"expected the state dict of {config.name}"
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise WeightsError(f"{source}: {name!r} has shape {short(found[name])}", hint=f"{config.name} has {shape}")


def read_weights(path: Path, config: T3Config, dtype: Dtype = "float32") -> dict[str, mx.array]:
    """Read a state dict in the given dtype. Raises WeightsError for a file that is truncated or does not fit `config`.

    Also for a value that the dtype cannot represent: float16 ends at 65,504.
    """
    if dtype not in get_args(Dtype):
        raise WeightsError(f"dtype = {dtype!r}", hint=f"expected {', '.join(get_args(Dtype))}")
    if not path.exists():
        raise WeightsError(f"{path} does not exist", hint="give the folder that holds the weights")
    with open_tensors(Source(path, WeightsError, "is the download complete?")) as tensors:
        shapes = {name: tuple(entry.shape) for name, entry in tensors.entries.items()}
        check_shapes(shapes, config, path.name)
        return {name: _cast(name, _finite(name, _tensor(tensors, name, path), path), dtype, path) for name in shapes}


def _tensor(tensors: Tensors, name: str, path: Path) -> NDArray[np.float32]:
    kind = tensors.entries[name].dtype
    if kind == "BF16":  # NumPy lacks this dtype
        loaded: Any = mx.load(str(path))
        return np.array(loaded[name].astype(mx.float32))
    if kind not in ("F32", "F16", "F64"):
        raise WeightsError(f"{path.name}: {name!r} is {short(kind)[1:-1]}", hint="expected F32, F16, BF16 or F64")
    tensor: NDArray[np.float32] = tensors.get(name).astype(np.float32)
    return tensor


def _finite(name: str, tensor: NDArray[np.float32], path: Path) -> mx.array:
    bad = tensor.size - int(np.isfinite(tensor).sum())
    if bad:
        raise WeightsError(
            f"{path.name}: {name!r} has {bad} of {tensor.size} values that are NaN or infinite",
            hint="is the download complete?",
        )
    return mx.array(tensor)


def _cast(name: str, tensor: mx.array, dtype: Dtype, path: Path) -> mx.array:
    if dtype == "float32":
        return tensor
    cast = tensor.astype(getattr(mx, dtype))
    beyond = tensor.size - int(np.isfinite(np.array(cast.astype(mx.float32))).sum())
    if beyond:
        raise WeightsError(
            f"{path.name}: {name!r} has {beyond} of {tensor.size} values beyond {dtype}", hint="load it as float32"
        )
    return cast
