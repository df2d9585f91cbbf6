"""Every engine that has a name. To add one, write its file and a line here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from sampler.engines.base import Engine
from sampler.engines.calls import Offer
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.load import load_engine
from sampler.engines.mlx.audio import MlxAudioEngine
from sampler.engines.mlx.lm import MlxLmEngine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.t3.weights import Dtype

CORES: Final[dict[str, Dtype]] = {"core": "float32", "core-float16": "float16", "core-bfloat16": "bfloat16"}
"""The suite's own core by the dtype of its network; `--weights` works with these engines."""

ENGINES: Final[dict[str, Callable[[], Engine]]] = {
    **{name: partial(CoreEngine.load, dtype=dtype) for name, dtype in CORES.items()},
    "reference": ReferenceEngine,
    "huggingface": HuggingFaceEngine,
    "mlx-lm": MlxLmEngine,
    "mlx-audio": MlxAudioEngine,
}
"""Name and factory. Loading may raise MissingPackage; importing this module needs no optional package."""


def known_engines(weights: Path | None, width: int) -> dict[str, Callable[[], Engine]]:
    """The table for one run, whose cores have these weights (None for Finch) and number of slots in a block."""
    return ENGINES | {name: partial(CoreEngine.load, weights, width, dtype) for name, dtype in CORES.items()}


def under_test(offer: Offer, given: str) -> Offer:
    """The offer under the name that the user gave, where an engine has the name of a known one that is inside it."""
    inside = offer.info.name.partition(":")[0]
    return offer if given in ENGINES or inside not in ENGINES else replace(offer, info=replace(offer.info, name=given))


def load_known(name: str) -> Engine:
    """Load an engine by known name, `package.module:factory` or `path/to/file.py:factory`. Raises EngineError."""
    return load_engine(name, ENGINES)
