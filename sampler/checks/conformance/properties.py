"""Properties of every correct chain: inputs are not written, answers repeat, rows are independent of each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.asking import SPARING
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Maker, Probe
from sampler.checks.conformance.rows import FEW_KINDS
from sampler.checks.conformance.settings import ALL_ON, NEUTRAL
from sampler.checks.verdict import Finding, some_ids
from sampler.config import SamplingConfig
from sampler.engines.calls import Answer, raise_refusal
from sampler.errors import Unsupported
from sampler.stages import STAGES, Stage
from sampler.statistics.distance import total_variation

Array = NDArray[np.float64]
SIZE = 257


@dataclass(frozen=True)
class Property:
    """One property. stage: the one to name if it does not hold."""

    name: str
    stage: str
    holds: Callable[["Subject"], str]
    """Returns the violation; empty if it holds."""


@dataclass(frozen=True)
class Subject:
    """An engine and a probe with every stage that it has."""

    judge: Judge
    probe: Probe
    first: Answer

    def answer(self, probe: Probe, *, thread: bool = False) -> Array:
        """Scores of a probe; raises _NoAnswer if there are none."""
        return _scores(self.judge.ask(probe, thread=thread), probe)

    def differing(self, first: Array, second: Array, probe: Probe) -> str:
        """Describe the first row in which two answers are not the same distribution; empty if there is none.

        Both may round: either may keep a token of the grey zone, and each may be off by the tolerance. probe: has the
        columns of the two.
        """
        expected = self.judge.expect(probe)
        sure = expected.must | ~expected.may
        tolerance = 2 * float(np.max(expected.tolerance))
        for row, (mine, other) in enumerate(zip(first, second, strict=True)):
            if np.array_equal(mine, other, equal_nan=True):
                continue
            if (np.isnan(mine) | (mine == np.inf)).any() or not (mine > -np.inf).any() or not (other > -np.inf).any():
                return f"row {row} is no distribution"
            changed = (mine > -np.inf) != (other > -np.inf)
            if (changed & sure[row]).any():
                apart = float(total_variation(mine, other))
                ids = some_ids(np.flatnonzero(changed & sure[row]))
                return f"row {row} keeps other tokens: {ids}; {apart:.2g} apart in total variation"
            if changed.all():
                continue
            distance = float(total_variation(*(np.where(changed, -np.inf, scores) for scores in (mine, other))))
            if not distance <= tolerance:
                return f"row {row} is {distance:.2g} away in total variation, allowed {tolerance:.2g}"
        return ""


class _NoAnswer(Exception):
    """An engine gave no scores; other cells report that."""


def _scores(answer: Answer, probe: Probe) -> Array:
    raise_refusal(answer)
    if answer.value is None or answer.value.shape != probe.logits.shape:
        raise _NoAnswer(answer.message or "scores of another shape")
    return answer.value.astype(np.float64)


def subject(judge: Judge, seed: int) -> Subject | Unsupported:
    """An engine and its very first answer, to a probe with every stage that it has; then find its limits.

    An engine that refuses the probe for one of its limits is asked again within it. Unsupported if it lacks all.
    """
    first = _subject(judge, seed)
    judge.find_limits()
    return first if isinstance(first, Subject) and _fits(first) else _subject(judge, seed)


def _fits(subject: Subject) -> bool:
    value = subject.first.value
    return value is not None and value.shape == subject.probe.logits.shape


def _subject(judge: Judge, seed: int) -> Subject | Unsupported:
    config = SamplingConfig(**ALL_ON)
    for stage in STAGES:
        if stage != "alignment" and not _has(judge, stage):
            config = config.without([stage])
    try:
        asked = judge.asked(config)
        probe = judge.fitted(Maker("properties", seed).make("everything", asked, SIZE, (*FEW_KINDS, "positive")))
        return Subject(judge, probe, judge.ask(probe))
    except Unsupported as error:
        return error


def _has(judge: Judge, stage: Stage) -> bool:
    try:
        judge.asked(replace(NEUTRAL, **{knob: value for knob, value in ALL_ON.items() if knob.startswith(stage)}))
    except Unsupported:
        return False
    return True


def _unharmed(subject: Subject) -> str:
    answer = subject.judge.ask(subject.probe)
    _scores(answer, subject.probe)
    return f"it writes into {', '.join(answer.wrote)}" if answer.wrote else ""


def _keeps(subject: Subject) -> str:
    """The next call of the same shape does not overwrite an answer."""
    other = replace(subject.probe, logits=subject.probe.logits[:, ::-1].copy())
    answer = subject.judge.ask(subject.probe, then=other)
    _scores(answer, subject.probe)
    return f"a further call changes {answer.wrote[0]}" if answer.wrote else ""


def _first(subject: Subject) -> str:
    """The very first call of this run gives what a later one gives."""
    return subject.differing(_scores(subject.first, subject.probe), subject.answer(subject.probe), subject.probe)


def _twice(subject: Subject) -> str:
    first, second = subject.answer(subject.probe), subject.answer(subject.probe)
    if np.array_equal(first, second, equal_nan=True):
        return ""
    return subject.differing(first, second, subject.probe) or "the same call gave other bits"


def _thread(subject: Subject) -> str:
    here, there = subject.answer(subject.probe), subject.answer(subject.probe, thread=True)
    return subject.differing(here, there, subject.probe)


def _split(subject: Subject) -> str:
    together = subject.answer(subject.probe)
    alone = [subject.answer(subject.probe.only([row]))[0] for row in range(len(together))]
    return subject.differing(together, np.stack(alone), subject.probe)


def _mates(subject: Subject) -> str:
    """The first row stays the same while the others change."""
    probe = subject.probe
    logits = probe.logits.copy()
    logits[1:] = logits[1:, ::-1] * np.float32(0.5) + np.float32(3)
    others = replace(probe, logits=logits, history=[probe.history[0], *probe.history[:0:-1]])
    before, after = subject.answer(probe), subject.answer(others)
    return subject.differing(before[:1], after[:1], probe.only([0]))


def _turned(subject: Subject) -> str:
    """The rows in another order give the same answers."""
    probe, order = subject.probe, [3, 0, 4, 1, 2]
    uncond = None if probe.uncond_logits is None else probe.uncond_logits[order]
    history = [probe.history[row] for row in order]
    turned = replace(probe, logits=probe.logits[order], history=history, uncond_logits=uncond)
    return subject.differing(subject.answer(probe)[order], subject.answer(turned), turned)


def _permuted(subject: Subject) -> str:
    """Permuted ids of tokens. Raises Unsupported in half precision, where ids decide among rounded scores."""
    if subject.judge.rounding:
        raise Unsupported("half precision rounds different scores to equal ones")
    if set(SPARING) & set(subject.judge.rules):
        raise Unsupported("its rules depend on which ids are EOS")
    probe = subject.probe
    order = np.random.default_rng(7).permutation(SIZE)
    place = np.argsort(order)
    uncond = None if probe.uncond_logits is None else probe.uncond_logits[:, order]
    history = [[int(place[token]) for token in row] for row in probe.history]
    renamed = replace(probe, logits=probe.logits[:, order], history=history, uncond_logits=uncond)
    return subject.differing(subject.answer(probe)[:, order], subject.answer(renamed), renamed)


def _shifted(subject: Subject) -> str:
    """A constant added to all logits, without the repetition penalty, which depends on it."""
    config = subject.probe.config.without(["repetition_penalty"])
    probe = subject.probe.with_config(config)
    uncond = None if probe.uncond_logits is None else probe.uncond_logits + np.float32(4)
    shifted = replace(probe, logits=probe.logits + np.float32(4), uncond_logits=uncond)
    # Use logits for which adding the constant is exact.
    exact = replace(
        probe,
        logits=shifted.logits - np.float32(4),
        uncond_logits=None if shifted.uncond_logits is None else shifted.uncond_logits - np.float32(4),
    )
    return subject.differing(subject.answer(exact), subject.answer(shifted), shifted)


PROPERTIES: tuple[Property, ...] = (
    Property("writes nothing", "purity", _unharmed),
    Property("keeps its answers", "purity", _keeps),
    Property("first call", "purity", _first),
    Property("twice the same", "purity", _twice),
    Property("worker thread", "purity", _thread),
    Property("split batch", "batch", _split),
    Property("other batch-mates", "batch", _mates),
    Property("rows in another order", "batch", _turned),
    Property("permuted vocabulary", "purity", _permuted),
    Property("shifted logits", "purity", _shifted),
)
"""In the order in which they are tested."""


def ask_properties(subject: Subject | Unsupported) -> Iterator[tuple[Property, Finding]]:
    """Test every property, or skip each if the engine is unsupported."""
    for prop in PROPERTIES:
        if isinstance(subject, Unsupported):
            yield prop, Finding.skipped("process", prop.stage, subject)
        else:
            yield prop, _test(prop, _without_broken(subject))


def _without_broken(subject: Subject) -> Subject:
    """The probe without stages that had no answer by themselves; the engine's first answer is then asked again."""
    broken = subject.judge.broken & subject.probe.config.active_stages()
    if not broken:
        return subject
    probe = subject.probe.with_config(subject.probe.config.without(sorted(broken)))
    return replace(subject, probe=probe, first=subject.judge.ask(probe))


def _test(prop: Property, subject: Subject) -> Finding:
    rows = len(subject.probe.logits)
    if prop.stage == "batch" and subject.judge.row_by_row:
        message = "several rows at once are refused, so each was asked alone"
        return Finding.skipped("process", prop.stage, "unsupported", message)
    try:
        seen = prop.holds(subject)
    except Unsupported as error:
        return Finding.skipped("process", prop.stage, error)
    except _NoAnswer as error:
        return Finding("process", prop.stage, "errored", 0, str(error))
    if seen:
        return Finding("process", prop.stage, "failed", rows, f"{prop.name}: {seen}", 1.0, 0.0)
    return Finding("process", prop.stage, "passed", rows, f"{prop.name}: {rows} rows", 0.0, 0.0)
