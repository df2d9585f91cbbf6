"""The protocols of an engine, with NumPy at the boundary, so that any framework can implement them."""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sampler.config import SamplingConfig
from sampler.engines.rules import Rules, read_rules
from sampler.errors import EngineError
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
    "by_signature",
    "call_process",
    "takes_context",
]

Level = Literal["process", "draw", "predict", "generate"]
Reading = Literal["defined", "generous", "strict"]
"""How the reference applies a threshold: exactly, or shifted up or down by possible float32 rounding."""


EVERYTHING = frozenset({*ALL_STAGES, *(item.name for item in fields(SamplingConfig))} - {"order"})
"""Every stage and parameter, for engines that support all."""


MOST_TOKENS = 2**24
"""Of a vocabulary."""

MOST_TEXT = 200
"""Characters of a name that are kept."""


@dataclass(frozen=True)
class EngineInfo:
    """Identity and features of an engine.

    supports: frozenset of stages and parameters, None for the seven stages of the default order with their parameters
    and min_tokens_to_keep, and nothing else. cfg: whether it has guidance. orders: "any" or a list. dialect: a name of
    sampler/engines/rules.py, whose order and rules it has; it then need not list the order. rules: by which rules it
    differs from HuggingFace's processors, a mapping of names to values or a set of names (docs/check.md).
    Names, dtypes and collections may have the types of any framework. Raises EngineError for an unknown stage or rule
    or an invalid number.
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
    rules: Rules = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Convert every field to its declared type."""
        dtype = getattr(self.dtype, "__name__", str(self.dtype)).rpartition(".")[2]
        try:
            supports = None if self.supports is None else frozenset(map(str, self.supports))
            values = {
                "name": str(self.name)[:MOST_TEXT],
                "version": str(self.version)[:MOST_TEXT],
                "device": str(self.device)[:MOST_TEXT],
                "dtype": dtype[:MOST_TEXT],
                "vocab_size": None if self.vocab_size is None else _number(self.vocab_size, "vocab_size", 1),
                "bos_id": None if self.bos_id is None else _number(self.bos_id, "bos_id", 0),
                "eos_ids": tuple(_number(token, "eos_ids", 0) for token in self.eos_ids),
                "cfg": bool(self.cfg),
                "supports": supports,
                "orders": "any" if self.orders == "any" else tuple(tuple(order) for order in self.orders),
                "dialect": None if self.dialect is None else str(self.dialect)[:MOST_TEXT],
                "rules": read_rules(self.rules),
            }
        except (TypeError, ValueError) as error:
            raise EngineError(f"the info of {self.name} does not fit: {error}", hint="see EngineInfo") from error
        known = {*ALL_STAGES, *(item.name for item in fields(SamplingConfig))}
        unknown = (supports or frozenset()) - known
        if unknown:
            raise EngineError(
                f"the info of {self.name} supports {min(unknown)!r}", hint=f"known: {', '.join(sorted(known))}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _number(value: Any, name: str, least: int) -> int:
    number = operator.index(value)
    if isinstance(value, bool) or not least <= number <= MOST_TOKENS:
        shown = number if abs(number) < 10**30 else "a longer number"
        raise ValueError(f"{name} has {shown}, expected {least} to {MOST_TOKENS}")
    return number


@runtime_checkable
class Engine(Protocol):
    """Anything with an `info`."""

    @property
    def info(self) -> EngineInfo: ...


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

        history: ids for the penalty, BOS included if the model has one. At temperature 0 (with `temperature` in the
        order) only the lowest id among the maxima is left after the last stage. Meanings: SamplingConfig.
        """


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
    ) -> NDArray[np.int64]: ...


@runtime_checkable
class Picks(Engine, Protocol):
    """The deterministic half of drawing: scores and Gumbel noise, both (B, V), to tokens (B,)."""

    def pick(self, scores: Logits, gumbel: Logits) -> NDArray[np.int64]: ...


@runtime_checkable
class Predicts(Engine, Protocol):
    """Teacher-forced logits: row t predicts tokens[t]; (len + 1, V), or (2, len + 1, V) iff info.cfg."""

    def predict(self, prompt: str | tuple[int, ...], tokens: Sequence[int]) -> Logits: ...


@runtime_checkable
class Generates(Engine, Protocol):
    """Requests in, generations out, in the same order."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One generation for each request.

        For comparable runs, step t draws argmax(scores + request.noise(t)); an engine that cannot do so may use
        `request.seed`. `allowed`, `draws` and `chain` need `Generation.record.logits` (T, 2 or 1, V), before the chain;
        without it they are skipped.
        """


@dataclass(frozen=True)
class Evaluation:
    """The state after one stage. scores: float64 (B, V), -inf = removed; error: possible float32 error of each."""

    stage: Stage | Literal["logits", "greedy"]
    scores: NDArray[np.float64]
    error: NDArray[np.float64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        return self.scores > -np.inf


@runtime_checkable
class Explains(Processes, Protocol):
    """What only the reference can do: the state of every stage, and what float32 rounding may decide."""

    def with_rules(self, rules: Rules) -> "Explains":
        """The reference for an engine of other rules."""

    def evaluate(self, batch: Batch, reading: Reading = "defined") -> list[Evaluation]:
        """The state before and after every stage."""

    def last(self, batch: Batch, reading: Reading = "defined") -> Evaluation:
        """The last state, in less time; it may tell the error of a removed token as 0."""

    def bounds(self, batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Evaluation]:
        """Which tokens must be kept, which may be kept, and the last state as defined."""


def by_signature(method: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as a method takes them: by position, or by keyword where its signature wants that.

    Raises TypeError if it takes keywords only and their names are others.
    """
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # a compiled function may have no signature
        return list(arguments.values()), {}
    keywords = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "context"]
    named = {name: value for name, value in arguments.items() if name in keywords}
    rest = [value for name, value in arguments.items() if name not in named]
    places = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
    if keywords and places < len(rest) and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        name = getattr(method, "__name__", "the method")
        raise TypeError(
            f"{name}() uses its arguments by keyword only and has other names for them: {', '.join(keywords)}; "
            f"expected {', '.join(arguments)}"
        )
    return rest, named


def takes_context(method: Callable[..., object]) -> bool:
    """Whether a method has the keyword `context`, by name or among any keywords."""
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # a compiled function may have no signature
        return False
    return "context" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def call_process(engine: Processes, batch: Batch) -> Logits:
    """Call `process` on rows that share a config, with the context if its signature has one."""
    process: Callable[..., Logits] = engine.process
    values = zip(("logits", "history", "config", "uncond_logits"), batch.inputs, strict=True)
    arguments, named = by_signature(process, {name: value for name, value in values if value is not None})
    more = {"context": batch.context} if takes_context(process) else {}
    return process(*arguments, **named, **more)
