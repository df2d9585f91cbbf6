"""The parameters of a sampling chain and the order of its stages: validated, frozen, with a one-line text form."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final, Literal, Self

from sampler.errors import ConfigError
from sampler.stages import ALL_STAGES, NEUTRAL, OPTIONAL_STAGES, STAGES, VALUES, Biases, Stage

CfgConvention = Literal["conditional", "unconditional"]
"""`conditional`: c + w (c - u), Chatterbox and Dia. `unconditional`: u + w (c - u), HuggingFace and MusicGen."""


def _off(value: Any) -> Any:
    """A field that is off by default. It is compared but not hashed, so configs without it keep their earlier hash."""
    return field(default=value, hash=False)


@dataclass(frozen=True)
class SamplingConfig:
    """How logits become a token: sampling parameters, a convention and the order of the stages.

    A stage with neutral parameters is the identity, and so is one of the seven that `order` leaves out. An optional
    stage that is on must be in the order; the default order includes it automatically. Each parameter has the meaning
    of its source's processor (docs/processors.md). Raises ConfigError for a value out of range, which includes NaN and
    bool.
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
    """Finite; skipped without unconditional logits."""
    min_tokens_to_keep: int = 1
    """>= 1; for top_k, top_p, min_p, typical_p and xtc_probability."""
    order: tuple[Stage, ...] = STAGES
    """A permutation of a subset of ALL_STAGES. The default order includes optional stages that are on."""
    cfg_convention: CfgConvention = "conditional"
    """`conditional`: c + w (c - u), Chatterbox and Dia. `unconditional`: u + w (c - u), HuggingFace and MusicGen."""

    logit_bias: Mapping[int, float] = _off(Biases())
    """Id -> number added to its score; ids may be text, as in JSON and TOML. Empty is off."""
    frequency_penalty: float = _off(0.0)
    """Finite; subtracted once for each occurrence of an id in the output. 0 is off."""
    presence_penalty: float = _off(0.0)
    """Finite; subtracted from the score of every generated id. 0 is off."""
    penalty_window: int = _off(0)
    """>= 0; the repetition, frequency and presence penalties use this many of the last ids. 0 is all."""
    dry_multiplier: float = _off(0.0)
    """>= 0; a token that would extend a repeat of length n loses dry_multiplier x dry_base^(n - allowed)."""
    dry_base: float = _off(1.75)
    """>= 1."""
    dry_allowed_length: int = _off(2)
    """>= 1; the shortest repeat that counts."""
    dry_breakers: tuple[int, ...] = _off(())
    """Ids that no repeat contains and that are never penalised."""
    no_repeat_ngram_size: int = _off(0)
    """>= 0; tokens that would repeat an n-gram of the history are removed. 0 is off."""
    min_new_tokens: int = _off(0)
    """>= 0; the EOS ids of the context are removed until this many tokens were generated."""
    suppressed_tokens: tuple[int, ...] = _off(())
    """Ids that are removed."""
    top_n_sigma: float = _off(0.0)
    """>= 0; removed where score < largest - n x standard deviation of the scores that are left. 0 is off."""
    typical_p: float = _off(1.0)
    """(0, 1]; keeps the smallest set of tokens with the most typical surprise that reaches this mass. 1 is off."""
    xtc_probability: float = _off(0.0)
    """[0, 1]; how often all tokens above xtc_threshold except the least likely one are removed. 0 is off."""
    xtc_threshold: float = _off(0.1)
    """(0, 0.5]."""

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            value, values = getattr(self, name), VALUES[name]
            read = values.read(value)
            if read is None or not values.fits(read):
                raise ConfigError(f"{name} = {value!r} is out of range", hint=f"expected {values.expected}")
            object.__setattr__(self, name, read)
        object.__setattr__(self, "order", _with_optional(_read_order(self.order), self._on()))

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from the defaults."""
        usual, given = SamplingConfig(), {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in given.items() if value != getattr(usual, name)}

    def __str__(self) -> str:
        """Canonical text: one line, every parameter in the order of the fields, optional ones only if they are on."""
        shown = {name: getattr(self, name) for name in PARAMETERS}
        parts = [f"{name}={_write(value)}" for name, value in shown.items() if value != DEFAULTS.get(name)]
        return " ".join([*parts, f"order={'>'.join(self.order) or 'none'}"])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises ConfigError naming the first part that is invalid."""
        values: dict[str, Any] = {}
        for part in text.split():
            name, equals, value = part.partition("=")
            if not equals or name not in {field.name for field in fields(cls)}:
                raise ConfigError(f"{part!r} is not part of a sampling config", hint="expected name=value pairs")
            if name in values:
                raise ConfigError(f"{name} is given twice in {text!r}", hint="give every parameter once")
            values[name] = _parse_value(name, value)
        return cls(**values)

    def active_stages(self) -> frozenset[Stage]:
        """Stages of the order that are on; never `alignment`, which has no parameter."""
        return self._active

    @cached_property
    def _active(self) -> frozenset[Stage]:
        return frozenset(self._on(self.order))

    def _on(self, stages: Iterable[Stage] = OPTIONAL_STAGES) -> list[Stage]:
        return [name for name in stages if any(getattr(self, knob) != off for knob, off in NEUTRAL[name].items())]

    def without(self, stages: Iterable[Stage]) -> Self:
        """The same config with some stages off."""
        return replace(self, **{knob: value for stage in stages for knob, value in NEUTRAL[stage].items()})

    @cached_property
    def looks_back(self) -> bool:
        """Whether the chain needs the order of the history, not only the set of its ids."""
        return bool(self.penalty_window or self._on())

    @property
    def greedy(self) -> bool:
        """Whether the chain keeps only the single most likely token."""
        return self.temperature == 0 and "temperature" in self.order


PARAMETERS: Final = tuple(item.name for item in fields(SamplingConfig) if item.name != "order")
"""Every field except the order."""

DEFAULTS: Final[dict[str, Any]] = {
    item.name: item.default for item in fields(SamplingConfig) if item.hash is False or item.name == "cfg_convention"
}
"""The fields that the text leaves out at their default, which is off."""


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
    """Whether an order is the default one, possibly with optional stages in their places."""
    return order == tuple(stage for stage in ALL_STAGES if stage in STAGES or stage in order)


def _with_optional(order: tuple[Stage, ...], on: Iterable[Stage]) -> tuple[Stage, ...]:
    """Put optional stages that are on into the default order. Raises ConfigError if another order lacks one."""
    missing = [stage for stage in on if stage not in order]
    if missing and not is_default(order):
        hint = "name it in the order, or turn it off"
        raise ConfigError(f"{missing[0]} is on and the order {'>'.join(order) or 'none'} lacks it", hint=hint)
    return tuple(stage for stage in ALL_STAGES if stage in (*order, *missing)) if missing else order


def _write(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{token}:{bias!r}" for token, bias in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else repr(value)


def _parse_value(name: str, value: str) -> Any:
    if name == "order":
        return () if value == "none" else tuple(value.split(">"))
    try:
        return VALUES[name].parse(value)
    except ValueError as error:
        raise ConfigError(f"{name} = {value!r} is not a number", hint=f"expected {VALUES[name].expected}") from error
