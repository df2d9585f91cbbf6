"""Diagnosis of level `process`: from failed cells to causes; single stages first, then orders, then the rest."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sampler.checks.conformance.cells import ProbeResult
from sampler.checks.conformance.comparison import Comparison
from sampler.checks.conformance.diagnosis.alternatives import ALTERNATIVES, Alternative, agreement, in_float64
from sampler.checks.conformance.diagnosis.form import Form, Reader, form_of, read_as
from sampler.checks.conformance.diagnosis.merge import one_cause
from sampler.checks.conformance.diagnosis.off import off_causes
from sampler.checks.conformance.diagnosis.order import Cause, diagnose_order
from sampler.checks.conformance.diagnosis.promises import both_broken, broken_promise, reachable_mask
from sampler.checks.conformance.diagnosis.raised import error_kind, raised_causes
from sampler.checks.conformance.judge import Judge
from sampler.checks.conformance.probes import Mask
from sampler.checks.conformance.settings import OPTIONAL, SINGLE
from sampler.checks.conformance.severity import in_words
from sampler.checks.conformance.ties import AT_TIES
from sampler.engines.calls import Answer
from sampler.stages import ALL_STAGES

WINDOW = "penalty_window"
"""The cell that tests the window of the repetition penalty."""

LARGE = 1_000
SMALL = 300
"""A vocabulary large enough for most mistakes of any size to show."""

SHARE = 0.9
"""An alternative is named if it explains this share of the rows."""


@dataclass(frozen=True)
class Diagnosis:
    """Causes of level `process`, the most likely first, and the stage named in each cell's verdict."""

    causes: tuple[Cause, ...]
    stages: dict[str, str]


def diagnose(judge: Judge, results: Sequence[ProbeResult]) -> Diagnosis:
    """Find the causes of the failed cells: the form of all answers first, then calls that raised, then stages."""
    form = form_of(results) if any(result.failing for result in results) else None
    if form is not None:
        return _of_form(judge, results, form)
    raised, rest = raised_causes(results)
    found = _of_stages(judge, rest)
    stages = {**found.stages, **{name: cause.stage for cause in raised for name in cause.cases}}
    causes = [_with_severity(cause, rest) for cause in found.causes]
    ties = _at_ties(results)
    return Diagnosis((*causes, *raised, *ties), {**stages, **_of_failing(rest, found.stages)})


def _with_severity(cause: Cause, results: Sequence[ProbeResult]) -> Cause:
    """The cause, whose explanation ends with the largest total variation on ordinary rows."""
    known = [one.severity for one in results if one.cell.name in cause.cases and one.severity is not None]
    words = in_words(max(known, default=None))
    return replace(cause, explanation=f"{cause.explanation}; {words}") if words else cause


def _at_ties(results: Sequence[ProbeResult]) -> list[Cause]:
    """What differs at exact ties or an exact mass alone, by stage; whole chains only if no stage does alone."""
    tied = [result for result in results if result.at_ties.comparisons]
    alone = [result for result in tied if len(result.cell.stages) == 1]
    causes = []
    for result in alone or tied[:1]:
        stage = result.cell.stages[0] if alone else "order"
        found = _fitting(result.at_ties, ALTERNATIVES.get(stage, ()))
        what = found.explanation if found else _worst_row(result.at_ties)
        explanation = f"{stage}: {AT_TIES}: {what}; no difference elsewhere, so that it fails under --strict alone"
        causes.append(Cause(stage, explanation, (result.cell.name,), dialect="at ties"))
    return causes


def _of_failing(results: Sequence[ProbeResult], stages: Mapping[str, str]) -> dict[str, str]:
    """The stages of the cells that fail."""
    return {result.cell.name: stages[result.cell.name] for result in results if result.failing}


def _of_form(judge: Judge, results: Sequence[ProbeResult], form: Form) -> Diagnosis:
    """The cause if all answers have another form than scores, and those of the scores that they stand for."""
    read = read_as(form, results)
    rest = _of_stages(replace(judge, client=Reader(judge.client, form)), read)
    names = tuple(result.cell.name for result in results if result.failing)
    right = "" if rest.causes else "; as log-probabilities they would be right"
    words = f"purity: these look like {form.words}, not like scores: every row is what softmax gives{right}"
    stages = {**rest.stages, **dict.fromkeys(names, "purity"), **_of_failing(read, rest.stages)}
    return Diagnosis((Cause("purity", words, names), *rest.causes), stages)


def _of_stages(judge: Judge, results: Sequence[ProbeResult]) -> Diagnosis:
    """Causes in single stages, then in orders, then in the rest; stages that act although they are off come first."""
    causes, explained = off_causes(judge, results, _known)
    found = _of_active(judge, [result for result in results if result.cell.name not in explained])
    stages = {name: cause.stage for cause in reversed(causes) for name in cause.cases}
    return Diagnosis((*causes, *found.causes), {**found.stages, **stages})


def _known(result: ProbeResult, stage: str) -> str:
    """What a stage does where no stage is on, in the words of a known mistake; empty if none fits."""
    found = _fitting(result, ALTERNATIVES["nothing"]) if result.cell.name == "nothing" else None
    if found is None:
        return ""
    return found.explanation if found.stage == stage else f"acts at its off value: {found.explanation}"


def _of_active(judge: Judge, results: Sequence[ProbeResult]) -> Diagnosis:
    """Causes in single stages, then in orders, then in the rest."""
    failing = [result for result in results if result.failing]
    stages = {result.cell.name: _own_stage(result) for result in results}
    causes: list[Cause] = []
    if failing and all(result.outcome == "errored" for result in failing):
        silent = all(result.outcome in ("errored", "skipped") for result in results)
        if silent:
            cause = _silent(judge, failing)
            return Diagnosis((cause,), dict.fromkeys(stages, cause.stage))
    causes.extend(_blamed(failing))
    by_name = {result.cell.name: result for result in failing if not result.blame}
    if "nothing" in by_name and _only_guided(by_name["nothing"]):
        stages["nothing"] = "cfg"
        if "cfg" not in by_name:
            row = _worst_row(by_name["nothing"])
            causes.append(Cause("cfg", f"cfg: weight 0 changes the logits: {row}", ("nothing",)))
        del by_name["nothing"]
    causes.extend(_broken_everywhere(by_name))
    alone: dict[str, ProbeResult] = {stage: by_name[stage] for stage in (*SINGLE, *OPTIONAL) if stage in by_name}
    everywhere = "nothing" in by_name
    chosen = [each for each in alone.items() if not everywhere or _more_than_nothing(each[1], by_name["nothing"])]
    if WINDOW in by_name and not everywhere and "repetition_penalty" not in alone:
        chosen.insert(0, ("repetition_penalty", by_name[WINDOW]))
    causes.extend(one_cause([broken_promise(judge, [result]) or _of_stage(stage, result) for stage, result in chosen]))
    suspects: set[str] = {*alone} | ({*ALL_STAGES} if everywhere else set())
    together = [result for result in by_name.values() if len(result.cell.stages) > 1]
    known = {error_kind(one) for result in alone.values() for one in result.failing if one.failure}
    unexplained = [
        result for result in together if not (suspects & set(result.cell.stages) or _errors(result) <= known)
    ]
    if unexplained:
        judged = [one for one in results if len(one.cell.stages) > 1 and not suspects & set(one.cell.stages)]
        promise = broken_promise(judge, unexplained)
        causes.extend([promise] if promise else diagnose_order(judge, unexplained, judged))
    for cause in causes:
        stages.update({name: cause.stage for name in cause.cases if name in stages})
    for result in together:
        if result not in unexplained and suspects & set(result.cell.stages) and not everywhere:
            first = next(stage for stage in ALL_STAGES if stage in suspects & set(result.cell.stages))
            stages[result.cell.name] = first
    return Diagnosis(tuple(causes), stages)


def _errors(result: ProbeResult) -> set[str]:
    """The kinds of errors of a cell; also an empty one if it has wrong scores."""
    return {error_kind(one) if one.failure else "" for one in result.failing}


def _silent(judge: Judge, failing: Sequence[ProbeResult]) -> Cause:
    """The cause if no cell was answered; tests whether a single row is."""
    names = tuple(result.cell.name for result in failing)
    first = failing[0].failing[0]
    if first.answer.failure == "raised" and not judge.compare(first.probe.only([0])).failure:
        return Cause("batch", f"batch: a row by itself is answered, several are not: {first.failure}", names)
    return Cause("purity", f"purity: gives no answer: {first.failure}", names)


def _own_stage(result: ProbeResult) -> str:
    if result.blame:
        return result.blame
    if not result.cell.stages:
        return "purity"
    return result.cell.stages[0] if len(result.cell.stages) == 1 else "order"


def _blamed(failing: Iterable[ProbeResult]) -> Iterator[Cause]:
    """Causes of cells that are right at a second call, or row by row."""
    explanations = {
        "purity": "purity: the same call gives another answer at a second time",
        "batch": "batch: rows are right by themselves and wrong among others",
    }
    blamed = [result for result in failing if result.blame]
    for blame, explanation in explanations.items():
        names = tuple(result.cell.name for result in blamed if result.blame == blame)
        if names:
            yield Cause(blame, explanation, names)


def _broken_everywhere(by_name: dict[str, ProbeResult]) -> Iterator[Cause]:
    """Causes of a failure without any active stage."""
    result = by_name.get("nothing")
    if result is None:
        return
    masked = reachable_mask(result)
    if masked:
        yield Cause("draw", f"draw: {masked}", tuple(by_name))
        return
    found = _fitting(result, ALTERNATIVES["nothing"])
    if found:
        yield Cause(found.stage, f"{found.stage}: {found.explanation}", tuple(by_name))
        return
    row = _worst_row(result)
    if _only_with_alignment(result):
        yield Cause("alignment", f"alignment: is no identity in process(): {row}", tuple(by_name))
        return
    yield Cause("purity", f"purity: wrong where no stage is on: {row}", tuple(by_name))


def _only_with_alignment(result: ProbeResult) -> bool:
    """Whether the same rows are right if the order names no stage."""
    wrong = {one.probe.name for one in result.failing if not one.failure}
    return "V=17" in wrong and "no stage in the order, V=17" not in wrong


def _only_guided(result: ProbeResult) -> bool:
    """Whether an idle chain is wrong only if it gets unconditional logits."""
    return all(one.probe.uncond_logits is not None for one in result.failing)


def _more_than_nothing(result: ProbeResult, nothing: ProbeResult) -> bool:
    """Whether a stage alone fails on kinds of rows on which an idle chain does not."""
    idle = {kind for one in nothing.failing for kind in _kinds(one)}
    return any(not idle & set(_kinds(one)) for one in result.failing) and not any(
        one.failure for one in nothing.failing
    )


def _kinds(comparison: Comparison) -> list[str]:
    return [kind for kind, wrong in zip(comparison.probe.kinds, comparison.wrong, strict=True) if wrong]


def _of_stage(stage: str, result: ProbeResult) -> Cause:
    known = ALTERNATIVES.get(result.cell.name, ALTERNATIVES.get(stage, ()))
    found = _fitting(result, known)
    errored = [one for one in result.failing if one.failure]
    if found:
        silent = f"; no scores for {errored[0].describe(0)}" if errored else ""
        return Cause(found.stage, f"{stage}: {found.explanation}{silent}", (result.cell.name,))
    right = {one.probe.name for one in result.comparisons if not one.wrong.any()}
    if errored == result.failing and all(f"{one.probe.name}, no empty history" in right for one in errored):
        reason = f"gives no scores where a history is empty: {errored[0].failure}"
        return Cause(stage, f"{stage}: {reason}", (result.cell.name,))
    if len(errored) == len(result.failing):
        return Cause(stage, f"{stage}: no scores: {errored[0].describe(0)}", (result.cell.name,))
    return Cause(stage, f"{stage}: {_where(result)}{_worst_row(result)}", (result.cell.name,))


def _where(result: ProbeResult) -> str:
    """What only the failing probes have in common."""
    sizes = {one.probe.logits.shape[1] for one in result.failing}
    fine = {one.probe.logits.shape[1] for one in result.comparisons} - sizes
    if fine and min(sizes) > max(fine) >= SMALL:
        return f"seen at V = {min(sizes):,}, not up to {max(fine):,}: "
    if any(one.failure for one in result.failing):
        return "gives no scores for some rows: "
    return ""


def _worst_row(result: ProbeResult) -> str:
    shown = next((one for one in result.failing if not one.failure), result.failing[0])
    row = int(np.argmax(np.where(shown.wrong, 1.0 if shown.failure else shown.total, -1.0)))
    return shown.describe(row)


def _fitting(result: ProbeResult, alternatives: Sequence[Alternative]) -> Alternative | None:
    """The first alternative that explains the most rows, if it explains nearly all."""
    compared = [one for one in result.comparisons if not one.failure]
    if not compared or not any(one.wrong.any() for one in compared):
        return None
    best, most = None, 0.0
    for alternative in alternatives:
        share = _share(compared, alternative)
        if share > most + 1e-9:
            best, most = alternative, share
    return best if most >= SHARE else None


def _share(compared: Sequence[Comparison], alternative: Alternative) -> float:
    """Share of the rows that an alternative explains: the smaller of the shares of all rows and of the wrong rows."""
    fits, wrong = [np.ones(0, dtype=np.bool_)], [np.ones(0, dtype=np.bool_)]
    for one in sorted(compared, key=lambda one: one.probe.logits.shape[1]):
        probe = one.probe
        if probe.logits.shape[1] > LARGE and _smaller_share(fits, wrong) < SHARE:
            break  # an alternative that fails on small vocabularies needs no large one
        with np.errstate(all="ignore"):
            scores = alternative.scores(in_float64(probe))
        fit = agreement(one.scores, scores, up_to_ties=alternative.up_to_ties)
        # A wrong row counts as explained only if the alternative is wrong there too, not if it rounds to the same.
        itself = Comparison(probe, one.expected, Answer(scores)).wrong
        fits.append((fit & (itself | ~one.wrong)) | both_broken(one, scores) | one.at_ties)
        wrong.append(one.wrong)
    return _smaller_share(fits, wrong)


def _smaller_share(fits: Sequence[Mask], wrong: Sequence[Mask]) -> float:
    """The smaller share of all rows and of the wrong rows; 1 if there are none."""
    every, of_wrong = np.concatenate(fits), np.concatenate(fits)[np.concatenate(wrong)]
    return min((float(rows.mean()) for rows in (every, of_wrong) if len(rows)), default=1.0)
