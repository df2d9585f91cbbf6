"""What an engine is: four small protocols with NumPy at the boundary, so that any framework can stand behind them."""

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.errors import SamplerError
from sampler.requests import Batch, Context, Generation, Logits, Record, Request, StopReason
from sampler.stages import ALL_STAGES, Stage

__all__ = [
    "EVERYTHING",
    "Batch",
    "Context",
    "Draws",
    "Engine",
    "EngineError",
    "EngineInfo",
    "Evaluation",
    "Explains",
    "Generates",
    "Generation",
    "Level",
    "Picks",
    "Predicts",
    "Processes",
    "Record",
    "Request",
    "StopReason",
    "call_process",
]

Level = Literal["process", "draw", "predict", "generate"]
Reading = Literal["defined", "generous", "strict"]
"""How the reference reads a threshold: exactly, or moved either way by what float32 rounding may do."""


EVERYTHING = frozenset({*ALL_STAGES, *(field.name for field in fields(SamplingConfig))} - {"order"})
"""Every stage and knob, for engines that have them all."""


class EngineError(SamplerError):
    """An engine that cannot be loaded."""


@dataclass(frozen=True)
class EngineInfo:
    """Who an engine is.

    supports: frozenset of stages and knobs, None for the seven of the default order and their knobs. orders: "any"
    or those it can do.

    Names, dtypes and collections are taken in the form in which a framework has them. Raises EngineError for a stage
    or a number that cannot be.
    """

    name: str
    version: str
    device: str = "cpu"
    dtype: str = "float32"
    vocab_size: int | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    cfg: bool = True
    supports: frozenset[str] | None = None
    orders: Literal["any"] | tuple[tuple[str, ...], ...] = "any"
    dialect: str | None = None

    def __post_init__(self) -> None:
        """Convert every field to the type that it has here."""
        dtype = getattr(self.dtype, "__name__", str(self.dtype)).rpartition(".")[2]
        try:
            supports = None if self.supports is None else frozenset(map(str, self.supports))
            values = {
                "name": str(self.name),
                "version": str(self.version),
                "device": str(self.device),
                "dtype": dtype,
                "vocab_size": None if self.vocab_size is None else operator.index(self.vocab_size),
                "bos_id": None if self.bos_id is None else operator.index(self.bos_id),
                "eos_ids": tuple(operator.index(token) for token in self.eos_ids),
                "cfg": bool(self.cfg),
                "supports": supports,
                "orders": "any" if self.orders == "any" else tuple(tuple(order) for order in self.orders),
            }
        except TypeError as error:
            raise EngineError(f"the info of {self.name} does not fit: {error}", hint="see EngineInfo") from error
        known = {*ALL_STAGES, *(field.name for field in fields(SamplingConfig))}
        unknown = (supports or frozenset()) - known
        if unknown:
            raise EngineError(
                f"the info of {self.name} supports {min(unknown)!r}", hint=f"known: {', '.join(sorted(known))}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)


@runtime_checkable
class Engine(Protocol):
    """Anything that says who it is."""

    @property
    def info(self) -> EngineInfo:
        """Who this is."""
        ...


@runtime_checkable
class Processes(Engine, Protocol):
    """Logits to scores: (B, V) float32 with B histories -> (B, V) float32, -inf = removed. Never writes its input."""

    def process(
        self,
        logits: Logits,
        history: Sequence[Sequence[int]],
        config: SamplingConfig,
        uncond_logits: Logits | None = None,
    ) -> Logits:
        """Scores after every stage of `config.order`, (B, V).

        history: ids that the penalty sees, BOS included where the model has one. At temperature 0 (with `temperature`
        in the order) only the lowest id among the maxima is left after the last stage. Meanings: SamplingConfig.
        """
        ...


@runtime_checkable
class Draws(Engine, Protocol):
    """n draws from one row, each as in generation: (V,) -> int64 (n,)."""

    def draw(
        self,
        logits: Logits,
        history: Sequence[int],
        config: SamplingConfig,
        n: int,
        seed: int,
        uncond_logits: Logits | None = None,
    ) -> NDArray[np.int64]:
        """Tokens, (n,)."""
        ...


@runtime_checkable
class Picks(Engine, Protocol):
    """The deterministic half of drawing: scores and Gumbel noise, both (B, V), to tokens (B,)."""

    def pick(self, scores: Logits, gumbel: Logits) -> NDArray[np.int64]:
        """Tokens, (B,)."""
        ...


@runtime_checkable
class Predicts(Engine, Protocol):
    """Teacher-forced logits: row t predicts tokens[t]; (len + 1, V), or (2, len + 1, V) iff info.cfg."""

    def predict(self, prompt: str | tuple[int, ...], tokens: Sequence[int]) -> Logits:
        """Logits of every step."""
        ...


@runtime_checkable
class Generates(Engine, Protocol):
    """Requests in, generations out, in the same order."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One generation for each request.

        To be comparable, step t draws argmax(scores + request.noise(t)); an engine that cannot may follow
        `request.seed`. `Generation.record.logits` (T, 2 or 1, V), before the chain, is what `allowed`, `draws` and
        `chain` look at: without it they are unavailable.
        """
        ...


@dataclass(frozen=True)
class Evaluation:
    """The state after one stage. scores: float64 (B, V), -inf = removed; error: how far float32 may be off."""

    stage: Stage | Literal["logits", "greedy"]
    scores: NDArray[np.float64]
    error: NDArray[np.float64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which tokens are left: bool (B, V)."""
        return self.scores > -np.inf


@runtime_checkable
class Explains(Processes, Protocol):
    """What the reference can do beyond the others: every stage's state, and what float32 rounding leaves open."""

    def evaluate(self, batch: Batch, reading: Reading = "defined") -> list[Evaluation]:
        """The state before and after every stage."""
        ...

    def bounds(self, batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Evaluation]:
        """What must be kept, what may be kept, and the last state as it is defined."""
        ...


def call_process(engine: Processes, batch: Batch) -> Logits:
    """Call `process` on rows that share a config, with the context where its signature has it."""
    process: Callable[..., Logits] = engine.process
    logits, history, config, uncond = batch.inputs
    more = {"context": batch.context} if "context" in inspect.signature(process).parameters else {}
    return process(logits, history, config, *(() if uncond is None else (uncond,)), **more)
