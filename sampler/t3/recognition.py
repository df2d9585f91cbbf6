"""The config of a T3 from the names and shapes of its tensors: constants of a known model, sizes of the file."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from sampler.t3.config import FrontEnd, T3Config
from sampler.t3.names import Shape

Shapes = Mapping[str, Shape]

LAYER: Final = re.compile(r"tfmr\.(?:h|layers)\.(\d+)\..*")
LANGUAGE: Final = re.compile(r"\[([a-z]{2})\]")

FINE_TUNED: Final = "-fine-tuned"
"""What the name of a model ends with whose table of texts is that of no known one."""


class Structure(NamedTuple):
    """What tells known models apart. hidden_size, intermediate_size, num_layers: 0 where a tensor is missing."""

    backbone: str
    hidden_size: int
    intermediate_size: int
    num_layers: int

    @classmethod
    def of(cls, shapes: Shapes) -> "Structure":
        layers = {int(found[1]) for name in shapes if (found := LAYER.fullmatch(name))}
        is_gpt2 = any(name.startswith(("tfmr.h.", "tfmr.wpe.", "tfmr.ln_f.")) for name in shapes)
        first = min(layers, default=0)
        of_mlp = f"tfmr.h.{first}.mlp.c_fc.bias" if is_gpt2 else f"tfmr.layers.{first}.mlp.up_proj.weight"
        inner = _size(shapes, of_mlp, 0)
        width = _size(shapes, "tfmr.ln_f.weight" if is_gpt2 else "tfmr.norm.weight", 0)
        width = width or _size(shapes, "speech_emb.weight", 1) or _size(shapes, "text_emb.weight", 1)
        return cls("gpt2" if is_gpt2 else "llama", width, inner, max(layers, default=-1) + 1)

    def fits(self, config: T3Config) -> bool:
        """Whether it is a model's, as far as the tensors that are there say."""
        own = (config.backbone, config.hidden_size, config.intermediate_size, config.num_layers)
        return all(mine in (theirs, 0) for mine, theirs in zip(self, own, strict=True))

    def __str__(self) -> str:
        name = "GPT-2" if self.backbone == "gpt2" else "Llama"
        layers = "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"
        return f"{name} of {layers}, {self.hidden_size:,} and {self.intermediate_size:,} wide"


def _size(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0


def sizes_of(shapes: Shapes, backbone: str) -> dict[str, int]:
    """Fields of a T3Config that the shapes of a file say."""
    width = Structure.of(shapes).hidden_size

    def rows(name: str) -> int:
        return _size(shapes, name, 0) if _size(shapes, name, 1) == width else 0

    found = {"text_vocab_size": rows("text_emb.weight"), "speech_vocab_size": rows("speech_emb.weight")}
    if backbone == "llama":
        found |= {
            "max_text_tokens": rows("text_pos_emb.emb.weight") - 2,
            "max_speech_tokens": rows("speech_pos_emb.emb.weight") - 4,
        }
    else:
        found["positions"] = rows("tfmr.wpe.weight")
    return {name: size for name, size in found.items() if size > 0}


def fitted(shapes: Shapes, known: Collection[T3Config], vocabulary: Collection[str]) -> T3Config:
    """The config of a file whose structure is that of a known model. vocabulary: the tokens of its tokenizer.

    The front end is not in the file: it is the multilingual one if there is a token `[en]` - the English tokenizer has
    some languages, but not its own. Raises UnfitError if the special ids of the known model are beyond the file's
    tables.
    """
    structure, rows = Structure.of(shapes), _size(shapes, "text_emb.weight", 0)
    alike = [config for config in known if structure.fits(config)]
    front_end: FrontEnd = "turbo" if structure.backbone == "gpt2" else "english"
    if front_end == "english" and "[en]" in vocabulary:
        front_end = "multilingual"
    alike.sort(key=lambda config: (config.tokenizer != front_end, config.text_vocab_size != rows))
    config = alike[0]
    changes: dict[str, Any] = sizes_of(shapes, structure.backbone)
    if (config.tokenizer, config.text_vocab_size) != (front_end, rows):
        languages = sorted(found[1] for token in vocabulary if (found := LANGUAGE.fullmatch(token)))
        changes |= {
            "name": config.name.removesuffix(FINE_TUNED) + FINE_TUNED,
            "tokenizer": front_end,
            "languages": tuple(languages) if front_end == "multilingual" else ("en",),
        }
    return replace(config, **changes)
