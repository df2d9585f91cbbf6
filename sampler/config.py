"""The knobs of a sampling chain and the order of its stages, validated, frozen, with a one-line text."""

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, Self, get_args

from sampler.errors import ConfigError

Stage = Literal[
    "cfg", "alignment", "logit_bias", "repetition_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier",
    "no_repeat_ngram_size", "min_new_tokens", "suppressed_tokens",
    "temperature", "top_n_sigma", "top_k", "min_p", "top_p", "typical_p", "xtc_probability",
]  # fmt: skip
STAGES: Final[tuple[Stage, ...]] = ("cfg", "alignment", "repetition_penalty", "temperature", "top_k", "min_p", "top_p")
"""The default order (chatterbox-tts 0.1.3 and later, top_k from HuggingFace)."""

ALL_STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
FURTHER_STAGES: Final[tuple[Stage, ...]] = tuple(stage for stage in ALL_STAGES if stage not in STAGES)
"""Every stage that an order may name, with the places that further ones take among the seven; and these, off by
default, each called after its main field (docs/processors.md)."""

CfgConvention = Literal["conditional", "unconditional"]
"""`conditional`: c + w (c - u), Chatterbox and Dia. `unconditional`: u + w (c - u), HuggingFace and MusicGen."""


class Biases(Mapping[int, float]):
    """A mapping of ids to numbers that does not change, so that a config which has it can be hashed."""

    def __init__(self, pairs: Iterable[tuple[int, float]] = ()) -> None:
        self._values = dict(sorted(pairs))

    def __getitem__(self, token: int) -> float:
        return self._values[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def _off(value: Any) -> Any:
    """A field that is off by default. It is compared but not hashed: configs without it keep the hash they had."""
    return field(default=value, hash=False)


@dataclass(frozen=True)
class SamplingConfig:
    """How logits become a token: knobs, a convention and the order of the stages.

    A stage whose knob is neutral is the identity, and so is one of the seven that `order` leaves out; a further stage
    that is on must be in the order, and joins it where the order is the default one. Each knob means what the
    processor of its source does (docs/processors.md). Raises ConfigError for a value out of range; NaN and bool are
    out of every range.
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
    """>= 1; for top_k, top_p, min_p, typical_p and xtc_probability."""
    order: tuple[Stage, ...] = STAGES
    """A permutation of a subset of ALL_STAGES. In the default order further stages that are on take their places."""
    cfg_convention: CfgConvention = "conditional"

    logit_bias: Mapping[int, float] = _off(Biases())
    """Id -> number added to its score; ids as text, which is all that JSON and TOML have, are read. Empty is off."""
    frequency_penalty: float = _off(0.0)
    """Finite; subtracted once for each time that an id was generated. 0 is off."""
    presence_penalty: float = _off(0.0)
    """Finite; subtracted from the score of every id that was generated. 0 is off."""
    penalty_window: int = _off(0)
    """>= 0; how many of the last ids the repetition, frequency and presence penalties see. 0 is all."""
    dry_multiplier: float = _off(0.0)
    """>= 0; a token that would make a repeat of length n longer loses dry_multiplier x dry_base^(n - allowed)."""
    dry_base: float = _off(1.75)
    """>= 1."""
    dry_allowed_length: int = _off(2)
    """>= 1; the shortest repeat that counts."""
    dry_breakers: tuple[int, ...] = _off(())
    """Ids that no repeat contains and that are never penalised."""
    no_repeat_ngram_size: int = _off(0)
    """>= 0; tokens that would complete an n-gram of the history a second time are removed. 0 is off."""
    min_new_tokens: int = _off(0)
    """>= 0; the EOS ids of the context are removed until so many tokens were generated."""
    suppressed_tokens: tuple[int, ...] = _off(())
    """Ids that are removed."""
    top_n_sigma: float = _off(0.0)
    """>= 0; removed where score < largest - n x standard deviation of the scores that are left. 0 is off."""
    typical_p: float = _off(1.0)
    """(0, 1]; smallest set of tokens of most typical surprise that reaches the mass. 1 is off."""
    xtc_probability: float = _off(0.0)
    """[0, 1]; how often all but the least likely of the tokens that reach xtc_threshold are removed. 0 is off."""
    xtc_threshold: float = _off(0.1)
    """(0, 0.5]."""

    def __post_init__(self) -> None:
        for name, (read, fits, expected) in _RANGES.items():
            value = getattr(self, name)
            number = read(value)
            if number is None or not fits(number):
                raise ConfigError(f"{name} = {value!r} is out of range", hint=f"expected {expected}")
            object.__setattr__(self, name, number)
        object.__setattr__(self, "order", _with_further(_read_order(self.order), self._on()))
        if self.cfg_convention not in get_args(CfgConvention):
            raise ConfigError(
                f"cfg_convention = {self.cfg_convention!r} is unknown",
                hint=f"expected one of {', '.join(get_args(CfgConvention))}",
            )

    def __str__(self) -> str:
        """Canonical text: one line, every knob in the order of the fields, options only where they are on."""
        parts = [f"{name}={getattr(self, name)!r}" for name in _RANGES if name not in OFF]
        if self.cfg_convention != "conditional":
            parts.append(f"cfg_convention={self.cfg_convention}")
        parts += [f"{name}={_write(getattr(self, name))}" for name, off in OFF.items() if getattr(self, name) != off]
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
        return frozenset(self._on(self.order))

    def _on(self, stages: Iterable[Stage] = FURTHER_STAGES) -> list[Stage]:
        return [name for name in stages if any(getattr(self, knob) != off for knob, off in NEUTRAL_KNOBS[name].items())]

    def without(self, stages: Iterable[Stage]) -> Self:
        """The same order with the knobs of some stages neutral, so that these are the identity."""
        return replace(self, **{knob: value for stage in stages for knob, value in NEUTRAL_KNOBS[stage].items()})

    @property
    def looks_back(self) -> bool:
        """Whether the chain has to know more of a row's past than which ids it contains."""
        return bool(self.penalty_window or self._on())

    @property
    def greedy(self) -> bool:
        """Whether the chain ends in the single most likely token."""
        return self.temperature == 0 and "temperature" in self.order


OFF: Final[dict[str, Any]] = {each.name: each.default for each in fields(SamplingConfig) if each.hash is False}
"""The further knobs at their defaults, at which nothing of them is to be seen."""

NEUTRAL_KNOBS: Final[dict[Stage, dict[str, Any]]] = {
    "cfg": {"cfg_weight": 0.0, "cfg_convention": "conditional"},
    "alignment": {},
    "repetition_penalty": {"repetition_penalty": 1.0},
    "temperature": {"temperature": 1.0},
    "top_k": {"top_k": 0},
    "min_p": {"min_p": 0.0},
    "top_p": {"top_p": 1.0},
    **{stage: {stage: OFF[stage]} for stage in FURTHER_STAGES},
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


def _ids(value: object) -> tuple[int, ...] | None:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return None
    ids = [_integer(token) for token in value]
    return tuple(sorted({token for token in ids if token is not None})) if None not in ids else None


def _biases(value: object) -> Biases | None:
    """Read pairs of id and number; an id may be digits as text. None for anything else, or an id that comes twice."""
    if not isinstance(value, Mapping):
        return None
    pairs = [(int(key) if isinstance(key, str) and key.isdecimal() else _integer(key), value[key]) for key in value]
    read = [(token, number) for token, bias in pairs if token is not None and (number := _real(bias)) is not None]
    fits = all(token >= 0 and abs(bias) < _LARGEST for token, bias in read)
    return Biases(pair for pair in read if pair[1]) if fits and len(dict(read)) == len(pairs) else None


_Range = tuple[Callable[[object], Any], Callable[[Any], bool], str]
_COUNT: Final[_Range] = (_integer, lambda x: x >= 0, "an integer >= 0 (0 is off)")
_IDS: Final[_Range] = (_ids, lambda x: all(token >= 0 for token in x), "a list of token ids, integers >= 0")
_LARGEST: Final = 3.4e38  # of float32
_PENALTY: Final[_Range] = (_real, lambda x: abs(x) < _LARGEST, "a finite number (0 is off)")
_RANGES: Final[dict[str, _Range]] = {
    "temperature": (_real, lambda x: x >= 0, "a finite number >= 0 (0 is greedy)"),
    "top_k": _COUNT,
    "top_p": (_real, lambda x: 0 <= x <= 1, "a number from 0 to 1 (1 is off)"),
    "min_p": (_real, lambda x: 0 <= x <= 1, "a number from 0 to 1 (0 is off)"),
    "repetition_penalty": (_real, lambda x: x > 0, "a finite number > 0 (1 is off)"),
    "cfg_weight": (_real, lambda x: True, "a finite number"),
    "min_tokens_to_keep": (_integer, lambda x: x >= 1, "an integer >= 1"),
    "logit_bias": (_biases, lambda x: True, "a mapping of token ids, integers >= 0 and each once, to finite numbers"),
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "penalty_window": (_integer, lambda x: x >= 0, "an integer >= 0 (0 is the whole history)"),
    "dry_multiplier": (_real, lambda x: 0 <= x < _LARGEST, "a finite number >= 0 (0 is off)"),
    "dry_base": (_real, lambda x: 1 <= x < _LARGEST, "a finite number >= 1"),
    "dry_allowed_length": (_integer, lambda x: x >= 1, "an integer >= 1"),
    "dry_breakers": _IDS,
    "no_repeat_ngram_size": _COUNT,
    "min_new_tokens": _COUNT,
    "suppressed_tokens": _IDS,
    "top_n_sigma": (_real, lambda x: 0 <= x < _LARGEST, "a finite number >= 0 (0 is off)"),
    "typical_p": (_real, lambda x: 0 < x <= 1, "a number above 0, up to 1 (1 is off)"),
    "xtc_probability": (_real, lambda x: 0 <= x <= 1, "a number from 0 to 1 (0 is off)"),
    "xtc_threshold": (_real, lambda x: 0 < x <= 0.5, "a number above 0, up to 0.5 (a larger one removes nothing)"),
}


def _read_order(order: Iterable[str]) -> tuple[Stage, ...]:
    hint = f"stages: {', '.join(ALL_STAGES)}"
    if isinstance(order, str) or not isinstance(order, Iterable):
        raise ConfigError(f"order = {order!r} is not a list of stages", hint=hint)
    stages: list[Stage] = []
    for name in order:
        known = next((stage for stage in ALL_STAGES if stage == name), None)
        if known is None:
            raise ConfigError(f"order names the unknown stage {name!r}", hint=hint)
        if known in stages:
            raise ConfigError(f"order names {name!r} twice", hint="each stage at most once")
        stages.append(known)
    return tuple(stages)


def is_default(order: tuple[str, ...]) -> bool:
    """Whether an order is the default one, alone or with further stages in their places."""
    return order == tuple(stage for stage in ALL_STAGES if stage in STAGES or stage in order)


def _with_further(order: tuple[Stage, ...], on: Iterable[Stage]) -> tuple[Stage, ...]:
    """Put further stages that are on into the default order. Raises ConfigError where another order lacks one."""
    missing = [stage for stage in on if stage not in order]
    if missing and not is_default(order):
        hint = "name it in the order, or turn it off"
        raise ConfigError(f"{missing[0]} is on and the order {'>'.join(order) or 'none'} lacks it", hint=hint)
    return tuple(stage for stage in ALL_STAGES if stage in (*order, *missing)) if missing else order


def _write(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{token}:{bias!r}" for token, bias in value.items())
    return ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)


def _parse_value(name: str, value: str) -> Any:
    if name == "order":
        return () if value == "none" else tuple(value.split(">"))
    if name == "cfg_convention":
        return value
    read, _, expected = _RANGES[name]
    try:
        if read is _biases:
            return {int(token): float(bias) for token, bias in (pair.split(":") for pair in value.split(","))}
        if read is _ids:
            return [int(token) for token in value.split(",")]
        return int(value) if read is _integer else float(value)
    except ValueError as error:
        raise ConfigError(f"{name} = {value!r} is not a number", hint=f"expected {expected}") from error
