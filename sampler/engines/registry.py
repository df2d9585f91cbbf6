"""The engines that are known by name, as one visible table."""

from collections.abc import Callable

from sampler.engines.base import Engine
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface import HuggingFaceEngine
from sampler.engines.load import load_engine
from sampler.engines.reference import ReferenceEngine

KNOWN: dict[str, Callable[[], Engine]] = {
    "core": CoreEngine.load,
    "reference": ReferenceEngine,
    "huggingface": HuggingFaceEngine,
}


def load_known(name: str) -> Engine:
    """Load an engine by known name, `package.module:factory` or `file.py:factory`. Raises EngineError."""
    return load_engine(name, KNOWN)
