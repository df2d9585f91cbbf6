"""Read the tensors of a T3 from a file: all of them, with their shapes, finite values and no constants."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from sampler.errors import WeightsError
from sampler.runtime.reading.source import short
from sampler.t3.config import T3Config
from sampler.t3.content import FLOATS, Weights, open_weights
from sampler.t3.files import CheckpointFile, shown
from sampler.t3.names import UNUSED, Shape

Dtype = Literal["float32", "float16", "bfloat16"]

ANOTHER_COPY = "damaged in the file or in training: take another copy"


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


def check_shapes(weights: Weights, config: T3Config) -> None:
    """Raise WeightsError naming the first missing, extra or mis-shaped tensor, and what was changed in the names."""
    expected = {name: shape for name, shape in expected_shapes(config).items() if not UNUSED.fullmatch(name)}
    source, found, changes = weights.source, weights.shapes, weights.layout.changes
    after = f"; in its names {', '.join(changes)}" if changes else ""
    for problem, names in (
        ("has no tensor", expected.keys() - found.keys()),
        ("has an unknown tensor", found.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            hint = f"expected the state dict of {config.name}{after}"
            raise source.refuse(f"{problem} {short(min(names))}{more}", hint, join=" ")
    for name, shape in expected.items():
        if found[name] != shape:
            raise source.refuse(f"{name!r} has shape {short(found[name])}", f"{config.name} has {shape}{after}")


def values_of(weights: Weights, config: T3Config) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each tensor as float32. Raises WeightsError for a file that does not fit `config`, and for spoiled values."""
    check_shapes(weights, config)
    for name in weights.shapes:
        if weights.dtypes[name] not in FLOATS:
            kind = short(weights.dtypes[name])[1:-1]
            raise weights.source.refuse(f"{name!r} is {kind}", f"expected {', '.join(FLOATS[:-1])} or {FLOATS[-1]}")
        values = weights.get(name).astype(np.float32, copy=False)
        _check_values(name, values, weights.source)
        yield name, values
    for copy, name in weights.layout.copies.items():
        if not np.array_equal(weights.tensors.get(copy), weights.tensors.get(weights.layout.names[name])):
            complaint = f"holds {name!r} twice, with other values as {short(copy)}"
            raise weights.source.refuse(complaint, "save the state dict that you mean alone", join=" ")


def _check_values(name: str, values: NDArray[np.float32], source: CheckpointFile) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise source.refuse(f"{name!r} has {bad} of {values.size} values that are NaN or infinite", ANOTHER_COPY)
    first = values.flat[0]
    if values.size == 1 or values.flat[-1] != first or not (values == first).all():
        return
    if values.ndim == 1 and first == (0 if name.endswith("bias") else 1):  # what a training begins with
        return
    raise source.refuse(f"{name!r} is {first:g} in all of its {values.size:,} values", ANOTHER_COPY)


def read_weights(path: Path, config: T3Config, dtype: Dtype = "float32") -> dict[str, mx.array]:
    """Read a state dict in the given dtype. Raises WeightsError for a file that is truncated or does not fit `config`.

    Also for a value that the dtype cannot represent: float16 ends at 65,504.
    """
    if dtype not in get_args(Dtype):
        raise WeightsError(f"dtype = {dtype!r}", hint=f"expected {', '.join(get_args(Dtype))}")
    if not path.exists():
        raise WeightsError(f"{shown(path)} does not exist", hint="give the folder that holds the weights")
    with open_weights(path) as weights:
        tensors = {name: _cast(name, values, dtype, weights.source) for name, values in values_of(weights, config)}
        for name, shape in expected_shapes(config).items():  # what upstream's own class wants, and no network reads
            if name in weights.layout.unused and weights.fits(name, shape):
                tensors[name] = mx.array(weights.get(name).astype(np.float32)).astype(getattr(mx, dtype))
        return tensors


def _cast(name: str, values: NDArray[np.float32], dtype: Dtype, source: CheckpointFile) -> mx.array:
    tensor = mx.array(values)
    if dtype == "float32":
        return tensor
    cast = tensor.astype(getattr(mx, dtype))
    beyond = tensor.size - int(np.isfinite(np.array(cast.astype(mx.float32))).sum())
    if beyond:
        raise source.refuse(f"{name!r} has {beyond} of {tensor.size} values beyond {dtype}", "load it as float32")
    return cast
