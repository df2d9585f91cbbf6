"""One row for each stage of a sampling chain: its place, its kind, its sampling parameters and their ranges.

All other facts about stages (orders, ranges, what an engine supports, the effect of rounding in later stages) are
derived from these rows. Adding a stage: docs/architecture.md.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Stage = str
"""The name of a stage, one of ALL_STAGES."""

LARGEST: Final = 3.4e38
"""Of float32: numbers that are added to or multiplied with scores stay below it."""


class Biases(Mapping[int, float]):
    """An immutable mapping of ids to numbers, so that a config that has it can be hashed."""

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


@dataclass(frozen=True)
class Values:
    """The values of a parameter.

    read: converts a value, None for another type (which NaN and bool are). fits: whether a converted value is in range.
    expected: the range in words. parse: reads the canonical text of a config, raises ValueError.
    """

    read: Callable[[object], Any]
    fits: Callable[[Any], bool]
    expected: str
    parse: Callable[[str], Any]


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer above the largest float
        return None
    return number if math.isfinite(number) else None


def _integer(value: object) -> int | None:
    return None if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)


def _ids(value: object) -> tuple[int, ...] | None:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return None
    ids = [_integer(token) for token in value]
    return tuple(sorted({token for token in ids if token is not None})) if None not in ids else None


def _biases(value: object) -> Biases | None:
    """Pairs of id and number; an id may be a string of digits. None for anything else, or a duplicate id."""
    if not isinstance(value, Mapping):
        return None
    pairs = [(int(key) if isinstance(key, str) and key.isdecimal() else _integer(key), value[key]) for key in value]
    read = [(token, number) for token, bias in pairs if token is not None and (number := _real(bias)) is not None]
    fits = all(token >= 0 and abs(bias) < LARGEST for token, bias in read)
    return Biases(pair for pair in read if pair[1]) if fits and len(dict(read)) == len(pairs) else None


def _parse_biases(text: str) -> dict[int, float]:
    return {int(token): float(bias) for token, bias in (pair.split(":") for pair in text.split(","))}


def real(fits: Callable[[float], bool], expected: str) -> Values:
    """A finite number."""
    return Values(_real, fits, expected, float)


def integer(least: int, expected: str) -> Values:
    """An integer from `least` on."""
    return Values(_integer, lambda value: value >= least, expected, int)


def one_of(*names: str) -> Values:
    """One of several words."""
    return Values(lambda value: value if value in names else None, lambda _: True, f"one of {', '.join(names)}", str)


COUNT: Final = integer(0, "an integer >= 0 (0 is off)")
PENALTY: Final = real(lambda value: abs(value) < LARGEST, "a finite number (0 is off)")
SHARE: Final = real(lambda value: 0 <= value <= 1, "a number from 0 to 1 (0 is off)")
FACTOR: Final = real(lambda value: value > 0, "a finite number > 0 (1 is off)")
AMOUNT: Final = real(lambda value: 0 <= value < LARGEST, "a finite number >= 0 (0 is off)")
IDS: Final = Values(
    _ids,
    lambda value: all(token >= 0 for token in value),
    "a list of token ids, integers >= 0",
    lambda text: [int(token) for token in text.split(",")],
)
BIASES: Final = Values(
    _biases, lambda _: True, "a mapping of token ids, integers >= 0 and each once, to finite numbers", _parse_biases
)

Kind = Literal["ranking", "monotone", "ids", "tail", "head"]
"""Effect of a stage on the order of tokens: ranks them again; none; changes single ids; removes the least likely ones;
may remove the most likely ones."""


@dataclass(frozen=True)
class Row:
    """A stage. An optional one has the name of its main parameter, is off by default and joins an order when it is on.

    neutral: the parameters that turn it on, with the values at which it is the identity. values: the range of each of
    its parameters, including those that only modify it. shared: parameters that modify several stages; an engine that
    has the stage may lack them.
    """

    name: Stage
    kind: Kind
    neutral: Mapping[str, Any]
    values: Mapping[str, Values]
    shared: Sequence[str] = ()
    optional: bool = False


def _main(name: Stage, kind: Kind, off: Any, values: Values, *shared: str) -> Row:
    return Row(name, kind, {name: off}, {name: values}, shared)


def _optional(name: Stage, kind: Kind, off: Any, values: Values, *shared: str, **more: Values) -> Row:
    return Row(name, kind, {name: off}, {name: values, **more}, shared, optional=True)


ROWS: Final = (
    Row(
        "cfg",
        "ranking",
        {"cfg_weight": 0.0, "cfg_convention": "conditional"},
        {
            "cfg_weight": real(lambda value: True, "a finite number"),
            "cfg_convention": one_of("conditional", "unconditional"),
        },
        ("cfg_convention",),
    ),
    Row("alignment", "ids", {}, {}),
    _optional("logit_bias", "ranking", Biases(), BIASES),
    _main("repetition_penalty", "ranking", 1.0, FACTOR, "penalty_window"),
    _optional("frequency_penalty", "ranking", 0.0, PENALTY, "penalty_window"),
    _optional("presence_penalty", "ranking", 0.0, PENALTY, "penalty_window"),
    _optional(
        "dry_multiplier",
        "ranking",
        0.0,
        AMOUNT,
        dry_base=real(lambda value: 1 <= value < LARGEST, "a finite number >= 1"),
        dry_allowed_length=integer(1, "an integer >= 1"),
        dry_breakers=IDS,
    ),
    _optional("no_repeat_ngram_size", "ids", 0, COUNT),
    _optional("min_new_tokens", "ids", 0, COUNT),
    _optional("suppressed_tokens", "ids", (), IDS),
    _main("temperature", "monotone", 1.0, real(lambda value: value >= 0, "a finite number >= 0 (0 is greedy)")),
    _optional("top_n_sigma", "tail", 0.0, AMOUNT),
    _main("top_k", "tail", 0, COUNT, "min_tokens_to_keep"),
    _main("min_p", "tail", 0.0, SHARE, "min_tokens_to_keep"),
    _main("top_p", "tail", 1.0, real(SHARE.fits, "a number from 0 to 1 (1 is off)"), "min_tokens_to_keep"),
    _optional(
        "typical_p",
        "head",
        1.0,
        real(lambda value: 0 < value <= 1, "a number above 0, up to 1 (1 is off)"),
        "min_tokens_to_keep",
    ),
    _optional(
        "xtc_probability",
        "head",
        0.0,
        SHARE,
        "min_tokens_to_keep",
        xtc_threshold=real(
            lambda value: 0 < value <= 0.5, "a number above 0, up to 0.5 (a larger one removes nothing)"
        ),
    ),
)
"""In the order of their places: chatterbox-tts 0.1.3 and later, with top_k and the optional stages."""

VALUES: Final[Mapping[str, Values]] = {
    "min_tokens_to_keep": integer(1, "an integer >= 1"),
    "penalty_window": integer(0, "an integer >= 0 (0 is the whole history)"),
    **{name: values for row in ROWS for name, values in row.values.items()},
}
"""The values of each parameter of a config, including shared ones."""

ALL_STAGES: Final = tuple(row.name for row in ROWS)
STAGES: Final = tuple(row.name for row in ROWS if not row.optional)
"""The default order."""

OPTIONAL_STAGES: Final = tuple(row.name for row in ROWS if row.optional)

NEUTRAL: Final[Mapping[Stage, Mapping[str, Any]]] = {row.name: row.neutral for row in ROWS}
"""The parameters of each stage, with the values at which it is the identity."""


def of_kind(*kinds: Kind) -> frozenset[Stage]:
    """The stages of some kinds."""
    return frozenset(row.name for row in ROWS if row.kind in kinds)
