"""The knobs of a sampling chain and the order of its stages, validated, frozen, with a one-line text."""

import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, Self, get_args

from sampler.errors import ConfigError

Stage = Literal["cfg", "alignment", "repetition_penalty", "temperature", "top_k", "min_p", "top_p"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""Every stage that an order may name, in the default order (chatterbox-tts 0.1.3 and later, top_k from HuggingFace)."""

CfgConvention = Literal["conditional", "unconditional"]
"""`conditional`: c + w (c - u), Chatterbox and Dia. `unconditional`: u + w (c - u), HuggingFace and MusicGen."""


@dataclass(frozen=True)
class SamplingConfig:
    """How logits become a token: seven knobs, a convention and the order of the stages.

    A stage whose knob is neutral is the identity, and so is a stage that `order` leaves out. top_k, top_p, min_p and
    repetition_penalty mean what HuggingFace's logits processors mean. Raises ConfigError for a value out of range;
    NaN and bool are out of every range.
    """

    temperature: float = 0.8
    """[0, inf); 0 keeps, after the last stage, only the lowest id among the maxima."""
    top_k: int = 0
    """>= 0; 0 is off. Ties with the k-th score stay."""
    top_p: float = 1.0
    """[0, 1]; 1 is off. The token that crosses the mass stays."""
    min_p: float = 0.05
    """[0, 1]; 0 is off. Removed where p < min_p x largest p."""
    repetition_penalty: float = 1.2
    """(0, inf); 1 is off. Applied once for each distinct id of the history."""
    cfg_weight: float = 0.5
    """Finite; skipped where there are no unconditional logits."""
    min_tokens_to_keep: int = 1
    """>= 1; for top_k, top_p and min_p."""
    order: tuple[Stage, ...] = STAGES
    """A permutation of a subset of STAGES."""
    cfg_convention: CfgConvention = "conditional"

    def __post_init__(self) -> None:
        for name, (read, fits, expected) in _RANGES.items():
            value = getattr(self, name)
            number = read(value)
            if number is None or not fits(number):
                raise ConfigError(f"{name} = {value!r} is out of range", hint=f"expected {expected}")
            object.__setattr__(self, name, number)
        object.__setattr__(self, "order", _read_order(self.order))
        if self.cfg_convention not in get_args(CfgConvention):
            raise ConfigError(
                f"cfg_convention = {self.cfg_convention!r} is unknown",
                hint=f"expected one of {', '.join(get_args(CfgConvention))}",
            )

    def __str__(self) -> str:
        """Canonical text: one line, every knob in the order of the fields, options only where they are on."""
        parts = [f"{name}={getattr(self, name)!r}" for name in _RANGES]
        if self.cfg_convention != "conditional":
            parts.append(f"cfg_convention={self.cfg_convention}")
        return " ".join([*parts, f"order={'>'.join(self.order) or 'none'}"])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises ConfigError naming the first part that cannot be read."""
        values: dict[str, Any] = {}
        for part in text.split():
            name, equals, value = part.partition("=")
            if not equals or name not in {field.name for field in fields(cls)}:
                raise ConfigError(f"{part!r} is not part of a sampling config", hint="expected knob=value pairs")
            if name in values:
                raise ConfigError(f"{name} is given twice in {text!r}", hint="give every knob once")
            values[name] = _parse_value(name, value)
        return cls(**values)

    def active_stages(self) -> frozenset[Stage]:
        """Stages of the order whose knob is not neutral; `alignment` has no knob and is none of them."""
        return frozenset(
            stage
            for stage in self.order
            if any(getattr(self, knob) != value for knob, value in NEUTRAL_KNOBS[stage].items())
        )

    def without(self, stages: Iterable[Stage]) -> Self:
        """The same order with the knobs of some stages neutral, so that these are the identity."""
        return replace(self, **{knob: value for stage in stages for knob, value in NEUTRAL_KNOBS[stage].items()})

    @property
    def greedy(self) -> bool:
        """Whether the chain ends in the single most likely token."""
        return self.temperature == 0 and "temperature" in self.order


NEUTRAL_KNOBS: Final[dict[Stage, dict[str, Any]]] = {
    "cfg": {"cfg_weight": 0.0, "cfg_convention": "conditional"},
    "alignment": {},
    "repetition_penalty": {"repetition_penalty": 1.0},
    "temperature": {"temperature": 1.0},
    "top_k": {"top_k": 0},
    "min_p": {"min_p": 0.0},
    "top_p": {"top_p": 1.0},
}
"""The knobs of each stage, at the values at which it is the identity."""


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        return None
    return number if math.isfinite(number) else None


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    return int(value)


_Range = tuple[Callable[[object], Any], Callable[[Any], bool], str]
_RANGES: Final[dict[str, _Range]] = {
    "temperature": (_real, lambda x: x >= 0, "a finite number >= 0 (0 is greedy)"),
    "top_k": (_integer, lambda x: x >= 0, "an integer >= 0 (0 is off)"),
    "top_p": (_real, lambda x: 0 <= x <= 1, "a number from 0 to 1 (1 is off)"),
    "min_p": (_real, lambda x: 0 <= x <= 1, "a number from 0 to 1 (0 is off)"),
    "repetition_penalty": (_real, lambda x: x > 0, "a finite number > 0 (1 is off)"),
    "cfg_weight": (_real, lambda x: True, "a finite number"),
    "min_tokens_to_keep": (_integer, lambda x: x >= 1, "an integer >= 1"),
}


def _read_order(order: Iterable[str]) -> tuple[Stage, ...]:
    if isinstance(order, str) or not isinstance(order, Iterable):
        raise ConfigError(f"order = {order!r} is not a list of stages", hint=f"stages: {', '.join(STAGES)}")
    stages: list[Stage] = []
    for name in order:
        known = next((stage for stage in STAGES if stage == name), None)
        if known is None:
            raise ConfigError(f"order names the unknown stage {name!r}", hint=f"stages: {', '.join(STAGES)}")
        if known in stages:
            raise ConfigError(f"order names {name!r} twice", hint="each stage at most once")
        stages.append(known)
    return tuple(stages)


def _parse_value(name: str, value: str) -> Any:
    if name == "order":
        return () if value == "none" else tuple(value.split(">"))
    if name == "cfg_convention":
        return value
    try:
        return int(value) if name in ("top_k", "min_tokens_to_keep") else float(value)
    except ValueError as error:
        raise ConfigError(f"{name} = {value!r} is not a number", hint=f"expected {_RANGES[name][2]}") from error
