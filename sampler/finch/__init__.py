"""The embedded model: a small T3 in upstream's own state-dict format, trained on generated speech."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sampler.t3.checkpoint import Checkpoint, load_checkpoint
from sampler.t3.weights import Dtype


@dataclass(frozen=True)
class Prompt:
    """A held-out text. tokens: its true length, that of the espeak-ng audio. index: in held_out.safetensors."""

    id: str
    text: str
    language: str
    tokens: int
    index: int


def folder() -> Path:
    """The folder of Finch's files."""
    return Path(str(resources.files("sampler.finch")))


def load(dtype: Dtype = "float32") -> Checkpoint:
    """Load Finch with the given dtype."""
    return load_checkpoint(folder(), dtype)


def prompts(group: str) -> list[Prompt]:
    """Held-out texts: `sentences` (one sentence each), `paragraphs` (two to six) or `long` (500 to 1,500 tokens)."""
    return prompts_in(folder(), group)


def prompts_in(directory: Path, group: str) -> list[Prompt]:
    """Held-out texts of a model in another folder."""
    data = json.loads((directory / "prompts.json").read_text(encoding="utf-8"))
    return [Prompt(**entry) for entry in data[group]]
