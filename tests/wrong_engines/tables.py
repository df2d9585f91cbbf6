"""The tables of wrong and right engines, and an input on which each fault shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sampler.config import SamplingConfig
from sampler.requests import Context

Factory = Callable[[], Any]
NEUTRAL = {"temperature": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "cfg_weight": 0.0}


@dataclass(frozen=True)
class Example:
    """One call of `process`: logits (B, V), B histories, a config, unconditional logits or None, a context or None."""

    logits: np.ndarray
    history: list[list[int]]
    config: SamplingConfig
    uncond: np.ndarray | None = None
    context: Context | None = None


def spread(size: int = 25, low: float = -4.0, high: float = 4.0) -> np.ndarray:
    """Evenly spaced scores of both signs in a mixed order, no two equal: float32 (1, V)."""
    places = np.arange(size) * 7 % size if size % 7 else np.arange(size)[::-1]
    return np.linspace(low, high, size, dtype=np.float32)[places][None]


def example(
    logits: Any = None, history: Any = (), uncond: Any = None, context: Context | None = None, **knobs: Any
) -> Example:
    """An input whose knobs are neutral but for those that are given; one history serves all rows."""
    rows = np.atleast_2d(np.asarray(spread() if logits is None else logits, dtype=np.float32))
    each = history if history and isinstance(history[0], Sequence) else [history] * len(rows)
    other = None if uncond is None else np.atleast_2d(np.asarray(uncond, dtype=np.float32))
    return Example(rows, [list(ids) for ids in each], SamplingConfig(**{**NEUTRAL, **knobs}), other, context)


TWO_ROWS = np.concatenate([spread(), np.roll(spread(), 3) * np.float32(0.5)])
EXAMPLES = {
    "repetition_penalty": example(history=[3, 5, 5, 0, 7, 12], repetition_penalty=1.5),
    "temperature": example(temperature=0.6),
    "top_k": example(top_k=5),
    "min_p": example(min_p=0.1),
    "top_p": example(top_p=0.7),
    "cfg": example(uncond=np.roll(spread(), 2), cfg_weight=0.5),
    "order": example(history=[3, 5, 0, 7], temperature=1.5, top_k=12, min_p=0.05, top_p=0.7, repetition_penalty=1.5),
    "batch": example(
        TWO_ROWS, [[3, 5, 0, 7], [2, 9]], TWO_ROWS[::-1], repetition_penalty=1.5, top_p=0.7, min_p=0.05, cfg_weight=0.5
    ),
}
PLAIN = example(history=[3, 5, 0, 7], temperature=0.8, top_k=12, min_p=0.02, top_p=0.9, repetition_penalty=1.2)


@dataclass(frozen=True)
class Wrong:
    """A wrong engine and what is to be found out about it.

    stage: expected first in the diagnosis; also: stages that would be right as well; offers: levels that it has;
    seen: levels at which the fault is detectable; total_variation: of its draws on `shows`, where only draws show it
    and independent draws of another law are what it gives; shows: an input on which `process` (else `draw`) differs;
    says: words of the first explanation.
    """

    factory: Factory
    stage: str
    also: tuple[str, ...]
    offers: tuple[str, ...]
    seen: tuple[str, ...]
    total_variation: float | None
    shows: Example
    says: str = ""


WRONG: dict[str, Wrong] = {}
RIGHT: dict[str, Factory] = {}
Within = Callable[[Example], bool]
WITHIN: dict[str, Within] = {}
"""Of each right engine: whether an input is within its limits."""

BOTH = ("process", "draw")
PROCESS = ("process",)
DRAW = ("draw",)


def flat(*items: Any) -> Iterator[tuple[str, str, list[Any]]]:
    """Name, sentence and the items of each row of a flat table, in which a row begins with "name: sentence"."""
    starts = [place for place, item in enumerate(items) if isinstance(item, str)]
    for start, stop in zip(starts, [*starts[1:], len(items)], strict=True):
        name, sentence = items[start].split(": ", 1)
        yield name, sentence, list(items[start + 1 : stop])


def named(factory: Callable[..., Any], name: str, sentence: str) -> Any:
    """The factory under a name, with a docstring, as if it had been defined by `def`."""

    def made(*arguments: Any) -> Any:
        return factory(*arguments)

    made.__name__, made.__doc__ = name, sentence
    return made


def put_into(engines: dict[str, Any], stages: dict[str, str], stage: str, *rows: Any) -> None:
    """Rows of a flat table, each with one factory; stage: that of the fault, empty for right engines."""
    for name, text, (make,) in flat(*rows):
        engines[name] = named(make, name, f"{'Fault' if stage else 'No fault'}: {text}")
        stages.update({name: stage} if stage else {})


def wrong(
    stage: str,
    shows: Example | None = None,
    *,
    of: Callable[[Any], Any] | None = None,
    also: Sequence[str] = (),
    offers: Sequence[str] = BOTH,
    seen: Sequence[str] | None = None,
    total_variation: float | None = None,
    says: str = "",
) -> Callable[[Any], Any]:
    """Put a factory into the table of wrong engines, or the part from which `of` makes the engine."""

    def register(part: Any) -> Any:
        factory = part if of is None else named(lambda: of(part), part.__name__, part.__doc__)
        inputs = EXAMPLES.get(stage, PLAIN) if shows is None else shows
        levels = tuple(offers) if seen is None else tuple(seen)
        assert factory.__name__ not in WRONG
        known = (factory, stage, tuple(also), tuple(offers), levels, total_variation, inputs, says)
        WRONG[factory.__name__] = Wrong(*known)
        return part

    return register


def wrong_rows(stage: str, *items: Any, **common: Any) -> None:
    """Put the rows of a flat table into that of wrong engines: "name: fault", factory, and what is special to the row.

    That is the input that shows the fault, and a dict of what differs from `stage` and `common`.
    """
    for name, fault, (factory, *special) in flat(*items):
        options = {"stage": stage, **common}
        for each in special:
            options.update({"shows": each} if isinstance(each, Example) else each)
        wrong(**options)(named(factory, name, f"Fault: {fault}"))


def right(part: Any = None, *, of: Callable[[Any], Any] | None = None, within: Within | None = None) -> Any:
    """Put a factory into the table of right engines, or the part from which `of` makes the engine.

    within: whether an input is within the engine's limits, beyond which it may raise.
    """
    if part is None:
        return lambda part: right(part, of=of, within=within)
    assert part.__name__ not in RIGHT
    WITHIN[part.__name__] = within or (lambda inputs: True)
    RIGHT[part.__name__] = part if of is None else named(lambda: of(part), part.__name__, part.__doc__)
    return part


def right_rows(*items: Any) -> None:
    """Put the rows of a flat table into that of right engines: "name: what looks different", factory, its limits."""
    for name, difference, (factory, *within) in flat(*items):
        right(named(factory, name, f"No fault: {difference}"), within=next(iter(within), None))


def replace_config(config: SamplingConfig, **knobs: Any) -> SamplingConfig:
    """The same config with other knobs."""
    return replace(config, **knobs)
