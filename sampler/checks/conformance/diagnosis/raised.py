"""An engine that raises for some inputs: which value of what they have in common and the answered ones have not."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sampler.checks.conformance.cells import ProbeResult
from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.conformance.probes import Probe
from sampler.stages import ROWS, Stage

MOST_VALUES = 4
"""So many values are named; for more, the smallest or the largest of them if they are all on one side."""


@dataclass(frozen=True)
class _Asked:
    """One row of a probe, and whether it was answered. cell: its name; comparison: where it stands."""

    cell: str
    comparison: Comparison
    row: int

    @property
    def probe(self) -> Probe:
        return self.comparison.probe

    @property
    def stages(self) -> frozenset[Stage]:
        greedy = {"temperature"} if self.probe.config.greedy else set()
        return self.probe.config.active_stages() | greedy


Reads = Callable[[_Asked], Any]

INPUTS: tuple[tuple[str, Reads], ...] = (
    ("a history of {} ids", lambda one: len(one.probe.history[one.row])),
    ("a vocabulary of {} tokens", lambda one: one.probe.logits.shape[1]),
    ("rows of the kind {!r}", lambda one: one.probe.kinds[one.row]),
    ("{} rows together", lambda one: len(one.probe.logits)),
)
"""What inputs may have in common, beside a parameter."""


def raised_causes(results: Sequence[ProbeResult]) -> tuple[list[Cause], list[ProbeResult]]:
    """Causes of calls that raised, by the value they have in common; and the results without these calls."""
    rows = [
        _Asked(result.cell.name, one, row)
        for result in results
        for one in result.comparisons
        for row in range(len(one.probe.logits))
    ]
    raised = [one for one in rows if one.comparison.answer.failure in ("raised", "died", "hung")]
    answered = [one for one in rows if not one.comparison.failure]
    causes: list[Cause] = []
    explained: set[int] = set()
    for error in dict.fromkeys(error_kind(one.comparison) for one in raised):
        group = [one for one in raised if error_kind(one.comparison) == error]
        cause = next(_of_group(group, answered), None) if answered else None
        if cause is not None:
            causes.append(cause)
            explained |= {id(one.comparison) for one in group}
    rest = [
        replace(result, comparisons=[one for one in result.comparisons if id(one) not in explained])
        for result in results
    ]
    return causes, rest


def error_kind(comparison: Comparison) -> str:
    """The message without its numbers, which name the values."""
    return re.sub(r"\d[\d.e+-]*", "#", comparison.failure)


def _of_group(group: Sequence[_Asked], answered: Sequence[_Asked]) -> Iterator[Cause]:
    common = frozenset.intersection(*(one.stages for one in group))
    cases = tuple(dict.fromkeys(one.cell for one in group))
    for row in ROWS:
        others = [one for one in answered if row.name in one.stages]
        if row.name not in common or not others:
            continue
        knobs = dict.fromkeys((*row.neutral, *row.values, *row.shared))
        values = [_apart(f"{knob}={{}}", partial(_knob, knob), group, others) for knob in knobs]
        beyond = _apart("a top_k of the vocabulary or more", _beyond, group, others) if row.name == "top_k" else ""
        yield from _causes(row.name, beyond or ", ".join(filter(None, values)), group, cases)
    for stage in (None, *(row.name for row in ROWS if row.name in common)):
        beside = [one for one in answered if stage is None or stage in one.stages]
        for words, read in INPUTS if beside else ():
            name = ("batch" if "together" in words else "purity") if stage is None else stage
            yield from _causes(name, _apart(words, read, group, beside), group, cases)


def _knob(knob: str, one: _Asked) -> Any:
    return getattr(one.probe.config, knob)


def _beyond(one: _Asked) -> bool:
    return one.probe.config.top_k >= int(one.probe.logits.shape[1])


def _causes(stage: str, value: str, group: Sequence[_Asked], cases: tuple[str, ...]) -> Iterator[Cause]:
    if value:
        how = {"died": "ends its process", "hung": "hangs"}.get(group[0].comparison.answer.failure or "", "raises")
        yield Cause(stage, f"{stage}: {how} for {value}: {group[0].comparison.failure}", cases)


def _apart(words: str, read: Reads, group: Iterable[_Asked], answered: Iterable[_Asked]) -> str:
    """The values that only a group has, in words; empty if answered calls have them too, or if they are too many."""
    values, others = {read(one) for one in group}, {read(one) for one in answered}
    if values & others:
        return ""
    if len(values) <= MOST_VALUES:
        return words.format(", ".join(map(str, sorted(values, key=str))))
    if all(isinstance(value, int | float) for value in values | others):
        if min(values) > max(others):
            return words.format(f"{min(values)} or more")
        if max(values) < min(others):
            return words.format(f"{max(values)} or less")
    return ""
