"""What `sampler check` and `sampler plan` show: a table, a diagnosis, failures with their line, the JSON file."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from sampler.checks.conformance.diagnosis.order import Cause
from sampler.checks.conformance.draw.plan import DrawPlan
from sampler.checks.conformance.sentences import sentence
from sampler.checks.longform.power import Announced, Prospect
from sampler.checks.longform.runs import TokenRun, TwoSides, shown_texts
from sampler.checks.verdict import OUTCOMES, Verdict, worst
from sampler.matrix.matrix import Matrix
from sampler.results.report.terminal import STYLES, plain_table, verdict_notes
from sampler.runtime.files import whole_file
from sampler.runtime.text import LONG, SHORT, visible

TOGETHER = ("properties", "itself")
"""Cells whose checks are one line of the table."""

SECONDS_A_DRAW = 6e-6
"""Measured on our engine with a vocabulary of 17 on two CPU cores; a plan estimates its time from it."""


def table(verdicts: Sequence[Verdict]) -> Table:
    """One row for each level and check: how many cells and observations, what is detected, the worst outcome."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        cell = verdict.id.cell
        groups.setdefault((verdict.level, cell if cell in TOGETHER else verdict.check), []).append(verdict)
    columns = ("level", "check", "cells", "n", "detects", "alpha", "verdict")
    result = plain_table(*columns, left=("level", "check", "verdict"))
    for (level, check), group in groups.items():
        outcome = worst([verdict.outcome for verdict in group])
        counts = Counter(verdict.outcome for verdict in group)
        shown = ", ".join(f"{counts[each]} {each}" for each in OUTCOMES if counts[each]) if len(group) > 1 else outcome
        result.add_row(
            level, check, str(len(group)), f"{sum(verdict.n for verdict in group):,}",
            _largest([verdict.detectable for verdict in group], "any"),
            _largest([verdict.alpha for verdict in group], "exact"),
            Text(shown, style=STYLES[outcome]),
        )  # fmt: skip
    return result


def token_header(
    name: str,
    runs: Sequence[TokenRun],
    against: str | None,
    reference: Sequence[TokenRun],
    rate: float,
    model: str | None = None,
) -> Iterator[str]:
    """What was read, what it is compared with, and which texts only one file has.

    model: that of `against`, which scores the tokens.
    """
    compared = f", compared with {against}: {_amount(reference)}" if against else ", without reference runs"
    compared = f", scored under {visible(model, SHORT)}" if model else compared
    yield f"{name}: {_amount(runs)}{compared}; at most {rate:g} false alarms in all checks together"
    others = TwoSides.of(runs, reference).others if against and model is None else ()
    if others:
        yield f"left out, because only one of the files has them: {len(others)} texts, {shown_texts(others)}"


def log_notes(translated: str, fixed: Sequence[str]) -> Iterator[str]:
    """How a log was read, and what was put right."""
    if translated:
        yield f"not quite TOKENS.jsonl: {visible(translated, LONG)}"
    yield from (visible(text, LONG) for text in fixed)


def _amount(runs: Sequence[TokenRun]) -> str:
    tokens = sum(len(run.tokens) for run in runs)
    return f"{len(runs):,} runs of {len({run.text for run in runs}):,} texts, {tokens:,} tokens"


def answers(verdicts: Sequence[Verdict]) -> Iterator[Text]:
    """What was found where nothing failed, and what the column `detects` means for tokens."""
    passed = [verdict for verdict in verdicts if verdict.outcome == "passed"]
    for verdict in passed:
        yield Text(f"{verdict.check}: {visible(verdict.message, LONG)}")
    if any(verdict.detectable is not None for verdict in passed):
        yield Text(
            "detects: for distinct, early, late, missing and forced, a share of the runs; for the others, the share of "
            "pairs of runs of one text in which the engine's value is the larger one, or the smaller one"
        )


def _largest(values: Sequence[float | None], unknown: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return unknown
    return "exact" if max(known) == 0 else f"{max(known):.2g}"


def lines(verdicts: Sequence[Verdict], diagnosis: Sequence[Cause], declared: Sequence[str]) -> Iterator[Text]:
    """The diagnosis, most likely first, then every failure with its line. declared: what the engine's rules mean."""
    if diagnosis:
        harmless = not any(verdict.bad for verdict in verdicts)
        yield Text("differs without failing:" if harmless else "most likely:", style="bold")
        for place, cause in enumerate(diagnosis, 1):
            cases = f"{cause.cases[0]}{f' and {len(cause.cases) - 1} more' if len(cause.cases) > 1 else ''}"
            yield Text(f"  {place}. {visible(cause.explanation, LONG)}\n     ({visible(cases, LONG)})")
    for text in declared:
        yield Text(text)
    shown = {case for cause in diagnosis for case in cause.cases[:3]}
    failing = [verdict for verdict in verdicts if verdict.bad]
    chosen = [verdict for verdict in failing if verdict.case in shown] or failing[:6]
    rest = [verdict for verdict in verdicts if verdict.outcome in ("inconclusive", "skipped")]
    yield from verdict_notes([*chosen, *rest], sentence=sentence)
    if len(failing) > len(chosen):
        yield Text(f"{len(failing) - len(chosen)} further failures that the diagnosis explains: --json has them all")


@contextmanager
def written_at_the_end(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Make sure first that a report can be written, then write it whole or not at all."""
    if path is None:
        yield lambda report: None
        return
    with whole_file(path) as write:
        yield lambda report: write(json.dumps(report, indent=1, allow_nan=False) + "\n")


def draw_plan(plan: DrawPlan, detectable: Callable[[str], float]) -> Table:
    """Every statistical check of `sampler check`: n, what it detects, alpha, expected time."""
    result = plain_table("check", "n", "required", "detects", "alpha", "s", left=("check",))
    for check in plan.checks:
        seconds = check.n * SECONDS_A_DRAW * plan.vocabulary(check.name) / 17
        result.add_row(
            check.name, f"{check.n:,}", f"{check.detect:g}", f"{detectable(check.name):.3f}",
            f"{plan.alphas[check.name]:.2g}", f"{seconds:.1f}",
        )  # fmt: skip
    return result


def draw_plan_total(plan: DrawPlan) -> str:
    """The sum under the table."""
    return (
        f"{len(plan.checks)} statistical checks share {plan.rate:g} false alarms; all others are exact. Discrepancies: "
        "total variation; of pairs, the probability of equal tokens; of ranks, the distance of distribution functions"
    )


def longform_plan(prospects: Iterable[Prospect]) -> Table:
    """What the runs of all cells, of each axis and of each cell detect."""
    columns = ("cells", "runs", "reference\nruns", "detects loops,\nmissing ends", "detects\nsuperiority", "incomplete")
    table = plain_table(*columns, left=("cells",))
    for each in prospects:
        detects = [
            f"{value:.2g}" if value is not None and value < 1 else "" if value is None else "nothing"
            for value in (each.share, each.superiority, each.incomplete)
        ]
        table.add_row(each.name, f"{each.runs:,}", f"{each.reference:,}", *detects)
    return table


def matrix_plan(matrix: Matrix) -> Table:
    """Cells of a matrix with the runs and steps that its checks will test."""
    result = plain_table("cell", "runs", "steps at most", left=("cell",))
    for case in matrix.cases:
        plan = case.workload
        result.add_row(case.id, str(plan.count), f"{plan.count * plan.max_new_tokens:,}")
    return result


def token_plan(questions: Iterable[Announced]) -> Table:
    """Every question about token runs: its alpha, what it detects, and whether that is enough for `passed`."""
    result = plain_table("question", "detects", "required", "alpha", "of what", left=("question", "of what"))
    for each in questions:
        result.add_row(
            each.question,
            "nothing" if each.detects >= 1 else f"{each.detects:.2g}",
            "any" if each.asked is None else f"{each.asked:g}",
            "exact" if each.alpha is None else f"{each.alpha:.2g}",
            each.unit,
            style="" if each.enough else "yellow",
        )
    return result


def token_plan_notes(questions: Iterable[Announced], texts: int, runs: int, rate: float) -> Iterator[str]:
    """What stands under that table."""
    short = [each.question for each in questions if not each.enough]
    yield (
        f"{texts * runs:,} runs on either side, {texts:,} texts x {runs:,}, at most {rate:g} false alarms in all "
        "checks together; a difference of that size is missed at most once in a hundred times. Pairs: the "
        "share of pairs of runs of one text in which the engine's value is the larger one, or the smaller one"
    )
    if short:
        yield f"too few runs to pass, though they may fail: {', '.join(short)}"
