"""Whether the drawn tokens are right: kept by the chain, and the same that the reference draws with the same noise."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import bdtrc, log_softmax, softmax

from sampler.checks.scoring.impossible import removal
from sampler.checks.scoring.named import Named
from sampler.checks.scoring.race import Race
from sampler.checks.scoring.wagers import Block, Wagers, likeliest
from sampler.checks.steps.coverage import gaps
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.recorded import kept_bounds, nothing_recorded, one_step, recorded_steps
from sampler.checks.verdict import Finding, some_ids
from sampler.engines.base import Evaluation
from sampler.requests import Steps
from sampler.stages import Stage, of_kind

COINCIDENCE = 1e-9
"""Below this probability, equal tokens with other seeds and other noise are no coincidence."""

RARE = 1e-3
"""A token counts as rare if it is among the least likely ones with this total probability."""

ROUND, MOST_RUNS = 1_200, 64
"""Tokens, and at most how many runs, that are generated at a time for an engine with noise of its own."""

LEAST_ROUNDS, MOST_ROUNDS = 3, 16
"""Rounds: the first ones for every engine, the others while a bet grows or too little is known."""

FILTERS = of_kind("tail", "head")


def allowed(evidence: Evidence) -> Finding:
    """Every drawn token is kept by the float64 reference, or is in its grey zone.

    The named stage is `stop` if only ends are wrong; with noise of the engine's own the one whose other value makes the
    tokens likeliest; else the earliest one that, left out, would have produced exactly these tokens.
    If there is none, it is `draw` if such tokens are too rare even without any filter, else the earliest stage that
    removes a drawn token, since removals by later stages may follow from it.
    """
    checked = grey = 0
    wrong: list[_Removal] = []
    for steps in recorded_steps(evidence):
        must, may = kept_bounds(evidence, steps)
        rows = np.arange(len(steps.tokens))
        checked += len(rows)
        grey += int((may & ~must)[rows, steps.tokens].sum())
        outside = np.flatnonzero(~may[rows, steps.tokens]).tolist()
        if outside:
            states = evidence.reference.evaluate(steps)
            wrong.extend(_removal(steps, states, index) for index in outside)
    if checked == 0:
        return nothing_recorded(evidence, "draw", "draw")
    if not wrong:
        message = f"{checked} tokens drawn, all kept by the float64 chain ({grey} in the grey zone)"
        return Finding("draw", "draw", "passed", checked, message, statistic=0, bound=0)
    first = min(wrong, key=lambda removal: removal.place)
    message = f"{len(wrong)} of {checked} tokens drawn were not allowed; {first.message}"
    ends = all(removal.ends for removal in wrong)
    other = _other_value(evidence) if not ends and evidence.ignores_noise() else None
    missing = [] if ends or other else missing_stages(evidence)
    rare = 0 if ends or missing or other else _too_rare(evidence, checked)
    message += f"; {other.text}" if other else _as_if(missing)
    if rare:
        message += f"; no filter is the cause: {rare} tokens are rarer than the rarest {RARE:.1%} without any of them"
    if ends:
        message += "; each time EOS was drawn, or nothing else was allowed"
    causes = ["stop"] if ends else [other.stage] if other else [*missing, *(["draw"] if rare else []), first.stage]
    stage = causes[0]
    return Finding(
        "draw", stage, "failed", checked, message, statistic=len(wrong), bound=0, request=first.request, step=first.step
    )


def _other_value(evidence: Evidence) -> Named | None:
    """What an engine with noise of its own does otherwise: what bets are won on, else what can draw all its tokens."""
    found = _follows(evidence)
    if found.outcome == "failed":
        return Named(found.stage, found.message)
    other = likeliest(evidence.requests[0].config, recorded_steps(evidence), evidence.reference)
    return other and other._replace(text=f"with {other.text} all of them may be drawn")


def _reseeded(evidence: Evidence) -> Evidence | None:
    """Request 0 with another seed."""
    return evidence.of_others([evidence.requests[0]], [evidence.other_seed()]) if evidence.other_seed else None


def _too_rare(evidence: Evidence, checked: int) -> int:
    """How many tokens are among the rarest thousandth of the distribution without filters; 0 if that may be chance."""
    rare = 0
    for steps in recorded_steps(evidence):
        bare = steps.with_config(steps.config.without(FILTERS))
        scores = evidence.reference.evaluate(bare)[-1].scores
        p = softmax(scores, axis=-1)
        own = p[np.arange(len(p)), steps.tokens][:, None]
        rare += int(((p * (p <= own)).sum(axis=-1) < RARE).sum())
    return rare if rare and bdtrc(rare - 1, checked, RARE) < COINCIDENCE else 0


@dataclass(frozen=True)
class _Removal:
    """A drawn token that the reference removes. place: of the stage. ends: it is EOS, or only EOS is kept."""

    stage: str
    place: int
    message: str
    request: int
    step: Steps | None
    ends: bool = False


def _removal(steps: Steps, states: Sequence[Evaluation], index: int) -> _Removal:
    """The stage of the reference that removed the token of one step, with a message."""
    token = int(steps.tokens[index])
    found = removal(states, index, token)
    if found is None:
        message = f"{steps.name(index)}: token {token} was drawn, whose logit is -inf"
        return _Removal("draw", -1, message, steps.request, one_step(steps, index))
    ratio = np.exp(found.before.scores[index, token] - found.before.scores[index].max())
    kept = np.flatnonzero(found.after.kept[index])
    message = (
        f"{steps.name(index)}: token {token} was drawn, {found.stage} removes it: {ratio:.3g} times as likely as "
        f"the best; {len(kept)} tokens are kept, {some_ids(kept)}"
    )
    eos_ids = set(steps.context.eos_ids if steps.context else ())
    ends = token in eos_ids or set(np.flatnonzero(states[-1].kept[index]).tolist()) <= eos_ids
    return _Removal(found.stage, found.place, message, steps.request, one_step(steps, index), ends)


def draws(evidence: Evidence) -> Finding:
    """Every drawn token is the one that the reference draws with the same noise, unless rounding may decide.

    Rounding may decide between tokens whose score plus noise differs by less than float32 errors, and whether a token
    of the grey zone is kept.
    """
    checked = close = 0
    wrong: list[tuple[str, int, Steps | None]] = []
    for steps in recorded_steps(evidence):
        if steps.gumbel is None:
            if evidence.requests[0].config.greedy:
                return Finding.skipped("draw", "draw", "unsupported", "the engine does not take the suite's noise")
            return _noise_of_its_own(evidence, len(steps.tokens))
        race = Race.of(evidence.reference, steps, *kept_bounds(evidence, steps))
        checked += len(race.lost)
        close += int(((race.best != steps.tokens) & ~race.lost).sum())
        lost = np.flatnonzero(race.lost).tolist()
        wrong.extend((race.describe(steps, index), steps.request, one_step(steps, index)) for index in lost)
    if checked == 0:
        return nothing_recorded(evidence, "draw", "draw")
    if not wrong:
        message = f"{checked} draws equal the reference's with the same noise ({close} decided by rounding)"
        return Finding("draw", "draw", "passed", checked, message, statistic=0, bound=0)
    if evidence.ignores_noise():
        return _noise_of_its_own(evidence, checked)
    missing = missing_stages(evidence)
    shown, request, step = wrong[0]
    message = f"{len(wrong)} of {checked} draws differ from the reference's; {shown}{_as_if(missing)}"
    stage = missing[0] if missing else "draw"
    return Finding("draw", stage, "failed", checked, message, statistic=len(wrong), bound=0, request=request, step=step)


def _noise_of_its_own(evidence: Evidence, checked: int) -> Finding:
    """The finding for an engine that ignores the suite's noise: another seed must change its tokens."""
    reseeded = _reseeded(evidence)
    if reseeded is None or reseeded.generations[0].tokens != (evidence.alone or evidence.generations[0]).tokens:
        return _follows(evidence)
    probability = float(np.exp(sum(_log_probabilities(evidence))))
    same = f"another seed and other noise gave the same {len(evidence.generations[0].tokens)} tokens"
    message = f"{same}, which the chain's distribution does with probability {probability:.1g}"
    if probability > COINCIDENCE:
        message = f"{message}: too likely to be proof"
        return Finding("draw", "draw", "inconclusive", checked, message, reason="too_few")
    figures: dict[str, Any] = {"statistic": probability, "bound": COINCIDENCE, "alpha": COINCIDENCE, "request": 0}
    return Finding("draw", "draw", "failed", checked, message, **figures)


def _follows(evidence: Evidence) -> Finding:
    """The finding of bets, asked once."""
    if "draws" not in evidence.findings:
        evidence.findings["draws"] = _judged_by_bets(evidence)
    return evidence.findings["draws"]


def _judged_by_bets(evidence: Evidence) -> Finding:
    """Bets on the cell's runs and on further ones: so many that they tell enough, and more while a bet grows.

    That is right with bets alone, whose rate of false alarms does not depend on when one stops. A token of the cell's
    own runs that may not be drawn is left to `allowed`; of further runs `allowed` is asked here.
    """
    wagers, reseeded = wagers_of(evidence), _reseeded(evidence)
    parts = [] if reseeded is None else [reseeded]
    drawn = [len(generation.tokens) for generation in evidence.generations]
    wanted = min(MOST_RUNS, int(np.ceil(ROUND / max(1.0, float(np.mean(drawn))))))
    add_runs(wagers, evidence)
    first = number = 0
    wrong: Finding | None = None
    while parts or evidence.further is not None:
        if parts:
            part = parts.pop()
        elif number == MOST_ROUNDS or wagers.rejected or (number >= LEAST_ROUNDS and (wagers.settled or wrong)):
            break
        else:
            assert evidence.further is not None  # noqa: S101 - for the type
            part = evidence.of_others(*evidence.further(first, wanted))
            first, number = first + len(part.generations), number + 1
        if gaps(part):
            message = f"in a further run: {'; '.join(gaps(part))}: any token may have been drawn there"
            return replace(wagers.finding(), outcome="inconclusive", reason="not_recorded", message=message)
        before = wagers.outside
        add_runs(wagers, part)
        if wagers.outside > before and wrong is None:
            wrong = allowed(part)
    if wrong is None or wagers.rejected:
        return wagers.finding()
    return replace(wrong, message=f"of further runs with other seeds {wrong.message}")


def wagers_of(evidence: Evidence) -> Wagers:
    """Bets on the tokens of a cell."""
    rounding = evidence.precision.rounding
    return Wagers(evidence.requests[0].config, evidence.alpha, evidence.reference, rounding)


def add_runs(wagers: Wagers, evidence: Evidence) -> None:
    """Every recorded run of a cell, one after the other."""
    for _, steps in itertools.groupby(recorded_steps(evidence), key=lambda steps: steps.request):
        wagers.add(Block(some, *kept_bounds(evidence, some)) for some in steps)


def _log_probabilities(evidence: Evidence) -> Iterator[float]:
    """Log-probability of each token of request 0 under the reference; 0 if the reference removes it."""
    for steps in recorded_steps(evidence):
        if steps.request == 0:
            final = evidence.reference.evaluate(steps)[-1].scores
            rows = np.arange(len(steps.tokens))
            values = log_softmax(final, axis=-1)[rows, steps.tokens]
            yield float(np.where(np.isfinite(values), values, 0.0).sum())


def missing_stages(evidence: Evidence) -> list[Stage]:
    """Stages, in order, each of which alone may be missing: the reference without it draws every drawn token.

    Empty for a single step, as in a crash file, which is too little evidence.
    """
    if sum(len(generation.tokens) for generation in evidence.generations) < 2:
        return []
    config = evidence.requests[0].config
    return [stage for stage in config.order if stage in config.active_stages() and _explains(evidence, stage)]


def _explains(evidence: Evidence, stage: Stage) -> bool:
    for recorded in recorded_steps(evidence):
        steps = recorded.with_config(recorded.config.without([stage]))
        must, may, _ = evidence.reference.bounds(steps)
        if steps.gumbel is None:
            explained = bool(may[np.arange(len(steps.tokens)), steps.tokens].all())
        else:
            explained = not Race.of(evidence.reference, steps, must, may).lost.any()
        if not explained:
            return False
    return True


def _as_if(missing: Sequence[Stage]) -> str:
    stages = ", or without ".join(missing)
    return f"; without {stages}, the reference draws every token of the runs" if missing else ""
