"""The rules by which an engine may differ from HuggingFace by design, and the named dialects that have some of them.

An engine declares them in `EngineInfo.rules` and `EngineInfo.dialect`; it is then judged as it declares, so that a rule
that it does not follow is a failure. The arithmetic: `engines/reference/`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sampler.errors import EngineError
from sampler.stages import Stage

Rules = Mapping[str, Any]
"""The declared rules: name and value."""


@dataclass(frozen=True)
class Rule:
    """One rule. stages: those whose scores it changes, the one to name first. values: the words that it may be set to.

    counts: whether its value is a positive integer instead. meaning: what it means, {} is the value; usual: what
    HuggingFace does.
    """

    stages: tuple[Stage, ...]
    meaning: str
    usual: str
    values: tuple[str, ...] = ()
    counts: bool = False

    def read(self, value: object) -> Any:
        """The value as the reference takes it; None for one that does not fit. A single word needs no value."""
        if self.counts:
            text = value.strip() if isinstance(value, str) else value
            number = int(text) if isinstance(text, str) and text.isdecimal() else text
            return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None
        if value is True and len(self.values) < 2:
            return self.values[0] if self.values else True
        return value if value in self.values else None

    @property
    def expected(self) -> str:
        """The values in words."""
        return "an integer above 0" if self.counts else " or ".join(map(repr, self.values)) or "True"


RULES: Final[Mapping[str, Rule]] = {
    "top_k_ties": Rule(
        ("top_k",),
        "top-k keeps exactly k tokens; which of equal scores they are is open",
        "keeps every tie with the k-th token",
        ("exact",),
    ),
    "top_p_crossing": Rule(
        ("top_p",),
        "top-p {}",
        "stops with the token whose mass reaches top_p",
        ("exceeds", "dropped"),
    ),
    "top_p_ties": Rule(
        ("top_p",),
        "top-p keeps every tie with its last token",
        "keeps no more tokens than the mass needs",
        ("all",),
    ),
    "min_p_relative_to": Rule(
        ("min_p",),
        "min-p removes tokens whose probability is below min_p itself",
        "compares with min_p times the largest probability",
        ("total",),
    ),
    "penalty_window": Rule(
        ("repetition_penalty", "frequency_penalty", "presence_penalty"),
        "the penalties see only the last {} ids of the history, unless the config's penalty_window says otherwise",
        "sees the whole history",
        counts=True,
    ),
    "penalty_counts": Rule(
        ("repetition_penalty",),
        "the repetition penalty acts once for each occurrence of an id",
        "penalises each id once, however often it occurs",
    ),
    "penalty_prompt": Rule(
        ("repetition_penalty", "frequency_penalty", "presence_penalty"),
        "the prompt is {} by the repetition, frequency and presence penalties",
        "counts the prompt for the repetition penalty (and OpenAI's frequency and presence penalties do not)",
        ("excluded", "included"),
    ),
    "penalty_spares_eos": Rule(
        ("repetition_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier"),
        "no penalty changes the score of an EOS id",
        "penalises EOS as any other id",
    ),
    "filters_spare_eos": Rule(
        ("top_k", "min_p", "top_p", "top_n_sigma", "typical_p", "xtc_probability"),
        "no filter removes an EOS id",
        "removes EOS as any other id",
    ),
    "temperature_last": Rule(
        ("temperature",),
        "temperature comes after all other stages, whatever the order says",
        "applies it where the order has it",
    ),
    "greedy_ties": Rule(
        ("temperature",),
        "at temperature 0 {} of the maxima is left",
        "takes the lowest id",
        ("highest", "every"),
    ),
}
"""By name. `usual` is what HuggingFace's processors do."""

_WORDS: Final = {
    "exceeds": "goes on until the mass exceeds top_p, so that a mass of exactly top_p takes one more token",
    "dropped": "drops the token that crosses the mass, so that what is left stays within top_p",
    "excluded": "not counted",
    "included": "counted",
    "highest": "the highest id",
    "every": "every one",
}


def read_rules(given: object) -> dict[str, Any]:
    """Rules as a mapping of names to values, or as names, `name=value` where a rule has several values.

    Raises EngineError naming what is unknown.
    """
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(given, Mapping):
        pairs = given.items()
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        split = [str(item).partition("=") for item in given]
        pairs = [(name, value if equals else True) for name, equals, value in split]
    else:
        raise EngineError(f"rules = {given!r} are no rules", hint="expected a mapping of names to values, or names")
    rules: dict[str, Any] = {}
    for name, value in pairs:
        if name not in RULES:
            raise EngineError(f"the rule {name!r} is unknown", hint=f"known: {', '.join(RULES)}")
        if value is None or value is False:
            continue  # HuggingFace's rule
        read = RULES[name].read(value)
        if read is None:
            raise EngineError(f"the rule {name} = {value!r} is unknown", hint=f"expected {RULES[name].expected}")
        rules[str(name)] = read
    return {name: rules[name] for name in RULES if name in rules}


@dataclass(frozen=True)
class Dialect:
    """A named way to sample that is no mistake.

    order: of its stages. source: where it is documented. rules: those it has.
    """

    order: tuple[Stage, ...]
    source: str
    rules: Rules = field(default_factory=dict, hash=False)


def _ordered(*order: Stage) -> Dialect:
    """HuggingFace's rules in an order of its own."""
    return Dialect(order, "sampler/engines/rules.py")


_FILTERS_FIRST: Final = ("cfg", "repetition_penalty", "top_p", "min_p", "top_k", "temperature")

DIALECTS: Final[Mapping[str, Dialect]] = {
    "transformers": Dialect(
        ("cfg", "repetition_penalty", "temperature", "top_k", "top_p", "min_p"),
        "generation/utils.py, _get_logits_processor, transformers 5",
    ),
    "mlx-lm": Dialect(
        _FILTERS_FIRST,
        "mlx_lm/sample_utils.py, make_sampler, mlx-lm 0.32.2",
        {"top_k_ties": "exact", "top_p_ties": "all"},
    ),
    "mlx-audio": Dialect(_FILTERS_FIRST, "mlx_audio/lm/sample_utils.py, mlx-audio 0.6.2", {"top_k_ties": "exact"}),
    "llama.cpp": Dialect(
        ("cfg", "repetition_penalty", "top_k", "top_p", "min_p", "temperature"),
        "common/sampling.cpp, default sampler chain",
        {"top_k_ties": "exact"},
    ),
    "truncate, then temper": _ordered("cfg", "repetition_penalty", "top_k", "min_p", "top_p", "temperature"),
    "penalty last": _ordered("cfg", "temperature", "top_k", "min_p", "top_p", "repetition_penalty"),
    "guidance after the penalty": _ordered("repetition_penalty", "cfg", "temperature", "top_k", "min_p", "top_p"),
    "guidance last": _ordered("repetition_penalty", "temperature", "top_k", "min_p", "top_p", "cfg"),
    "temperature first": _ordered("temperature", "cfg", "repetition_penalty", "top_p", "top_k", "min_p"),
    "backwards": _ordered("top_p", "min_p", "top_k", "temperature", "repetition_penalty", "cfg"),
}
"""By the name that `EngineInfo.dialect` declares."""


def rules_of(dialect: str | None, rules: Rules) -> dict[str, Any]:
    """The rules of a dialect and of an engine together; the engine's own come first."""
    named = DIALECTS[dialect].rules if dialect is not None and dialect in DIALECTS else {}
    return {name: value for name in RULES if (value := rules.get(name, named.get(name))) is not None}


def sentences(rules: Rules) -> list[str]:
    """What each rule means beside HuggingFace's, one sentence each."""
    return [
        f"{RULES[name].meaning.format(_WORDS.get(str(value), value))} ({_shown(name, value)}); "
        f"HuggingFace {RULES[name].usual}"
        for name, value in rules.items()
    ]


def _shown(name: str, value: object) -> str:
    return name if value is True else f"{name}={value}"


def written(rules: Rules) -> str:
    """The rules as a list of names and values."""
    return ", ".join(_shown(name, value) for name, value in rules.items())
