"""Every engine that has a name: to add one, write its file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sampler.engines.base import Engine
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface import HuggingFaceEngine
from sampler.engines.load import load_engine
from sampler.engines.mlx_audio import MlxAudioEngine
from sampler.engines.mlx_lm import MlxLmEngine
from sampler.engines.reference import ReferenceEngine

ENGINES: Final[dict[str, Callable[[], Engine]]] = {
    "core": CoreEngine.load,
    "reference": ReferenceEngine,
    "huggingface": HuggingFaceEngine,
    "mlx-lm": MlxLmEngine,
    "mlx-audio": MlxAudioEngine,
}
"""Name and factory. Loading may raise MissingPackage; importing this module needs no optional package."""


def known_engines(weights: Path | None, width: int) -> dict[str, Callable[[], Engine]]:
    """The table for one run: the core with these weights (None for Finch) and slots of a block."""
    return {**ENGINES, "core": lambda: CoreEngine.load(weights, width)}


def load_known(name: str) -> Engine:
    """Load an engine by known name, `package.module:factory` or `path/to/file.py:factory`. Raises EngineError."""
    return load_engine(name, ENGINES)
