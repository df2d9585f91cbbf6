"""Properties of every correct chain: inputs are not written, answers repeat, rows are independent of each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sampler.checks.conformance.comparison import VARIATION, Comparison
from sampler.checks.conformance.diagnosis.alternatives import STRAY_IDS, agreement, in_float64
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Maker, Probe
from sampler.checks.conformance.rows import FEW_KINDS
from sampler.checks.conformance.settings import ALL_ON, NEUTRAL
from sampler.checks.verdict import Finding, some_ids
from sampler.config import SamplingConfig
from sampler.engines.calls import Answer, raise_refusal, refusal
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


def subject(judge: Judge, seed: int) -> Subject:
    """An engine and the answer to a probe with every stage that it has. Raises Unsupported if it lacks all."""
    config = SamplingConfig(**ALL_ON)
    for stage in STAGES:
        if stage != "alignment" and not _has(judge, stage):
            config = config.without([stage])
    probe = Maker("properties", seed).make("everything", judge.asked(config), SIZE, (*FEW_KINDS, "positive"))
    return Subject(judge, probe, judge.ask(probe))


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
    try:
        seen = prop.holds(subject)
    except Unsupported as error:
        return Finding.skipped("process", prop.stage, error)
    except _NoAnswer as error:
        return Finding("process", prop.stage, "errored", 0, str(error))
    if seen:
        return Finding("process", prop.stage, "failed", rows, f"{prop.name}: {seen}", 1.0, 0.0)
    return Finding("process", prop.stage, "passed", rows, f"{prop.name}: {rows} rows", 0.0, 0.0)


def unusual_rows(judge: Judge) -> Finding:
    """Report how rows without a distribution are handled. Only a hang or crash is a failure."""
    rows = {"NaN": np.nan, "+inf": np.inf, "every token removed": -np.inf}
    seen: list[str] = []
    for name, value in rows.items():
        logits = np.zeros((1, 9), dtype=np.float32)
        logits[0, :] = value if value == -np.inf else logits[0]
        logits[0, 4] = value
        probe = Probe.of("unusual rows", name, NEUTRAL, logits, [[]], (name,))
        try:
            probe = probe.with_config(judge.asked(NEUTRAL))
        except Unsupported as error:
            return Finding.skipped("process", "purity", error)
        answer = judge.ask(probe)
        refused = refusal(answer)
        if refused is not None:
            return Finding.skipped("process", "purity", refused)
        if answer.failure in ("hung", "died"):
            return Finding("process", "purity", "errored", len(seen), f"{name}: {answer.message}")
        seen.append(f"{name}: {_in_words(answer)}")
    return Finding("process", "purity", "passed", len(seen), f"reported, not judged: {'; '.join(seen)}")


def _in_words(answer: Answer) -> str:
    if answer.value is None:
        return f"refused ({answer.message})"
    scores = answer.value.ravel()
    if np.isnan(scores).any():
        return f"{int(np.isnan(scores).sum())} scores are NaN"
    return f"keeps {some_ids(np.flatnonzero(scores > -np.inf))}"


def strange_ids(judge: Judge, seed: int) -> Finding:
    """Ids outside the vocabulary have no score and must not penalise other tokens. Rejecting them is fine."""
    stage = "repetition_penalty"
    config = replace(NEUTRAL, repetition_penalty=2.0)
    probe = Maker("ids outside the vocabulary", seed).make("V=17", config, 17, ("ordinary", "zeros", "positive"))
    probe = replace(probe, history=[[5, 17, 40], [6_561], [17, 3, 3]])
    try:
        comparison = judge.compare(probe.with_config(judge.asked(config)))
    except Unsupported as error:
        return Finding.skipped("process", stage, error)
    inside = replace(comparison.probe, history=[[token for token in ids if token < 17] for ids in probe.history])
    if comparison.answer.failure == "raised":
        if judge.ask(replace(inside, history=[ids or [0] for ids in inside.history])).failure:
            return Finding("process", stage, "errored", 0, comparison.failure)
        return Finding("process", stage, "passed", 3, f"refuses ids outside the vocabulary: {comparison.failure}")
    if comparison.failure:
        return Finding("process", stage, "errored", 0, comparison.failure)
    if not comparison.wrong.any():
        return Finding("process", stage, "passed", 3, "ids outside the vocabulary are ignored", 0.0, VARIATION)
    if judge.compare(inside).wrong[comparison.wrong].any():
        message = "the same rows are wrong without ids outside the vocabulary"
        return Finding.skipped("process", stage, "after_failure", message)
    message = _of_stray_ids(comparison)
    return Finding("process", stage, "failed", 3, message, comparison.distance, VARIATION)


def _of_stray_ids(comparison: Comparison) -> str:
    """Describe the effect of ids outside the vocabulary."""
    probe = comparison.probe
    rows = in_float64(replace(probe, uncond_logits=None))
    for known in STRAY_IDS:
        if agreement(comparison.scores, known.scores(rows), up_to_ties=False).all():
            return known.explanation
    row = int(np.argmax(comparison.wrong))
    return f"ids outside the vocabulary change other tokens: {comparison.describe(row)}"
