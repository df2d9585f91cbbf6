"""What a matrix can detect and how long it takes, computed before anything is generated."""

import math
from collections.abc import Iterator, Mapping
from typing import Final

from sampler.checks.longform.power import Prospect
from sampler.matrix.matrix import ALL, Detect, Matrix
from sampler.results.store.reference_runs import read_reference, shipped_reference
from sampler.run.blocks import count
from sampler.run.groups import alphas_of, groups_of, longform_of, looping_cells
from sampler.run.pooled import RATE
from sampler.run.pooled import alphas_of as pooled_alphas
from sampler.run.prompts import prompts_of
from sampler.run.spoken import START
from sampler.statistics.ranks import RankSum
from sampler.statistics.share import AtMost

TOKENS_A_SECOND = {"steps": 230.0, "runs": 650.0}
"""Measured with the core and Finch on one of two CPU cores (AMD EPYC): of matrices judged step by step, whose checks
take most of the time, and of long-form matrices, by process."""


def prospects(matrix: Matrix) -> Iterator[Prospect]:
    """One entry for all cells, each axis and each cell of a long-form matrix."""
    assert matrix.longform is not None  # noqa: S101 - ensured by the command
    path, alphas = shipped_reference(matrix.longform.reference), alphas_of(matrix)
    reference = read_reference(path).cells if matrix.longform.reference and path.exists() else {}
    for group in groups_of(matrix):
        own, sizes = alphas[group.name], []
        for case in group.cases:
            texts = [run["prompt"] for run in reference[case.cell].runs] if case.cell in reference else []
            sizes += [(case.workload.runs, texts.count(text)) for text in dict.fromkeys(texts)]
        runs = sum(count(case) for case in group.cases)
        telling = sum(count(case) for case in group.cases if case.cell not in looping_cells(matrix))
        alone = AtMost(longform_of(matrix).most_incomplete, own["complete"]) if group.scope == "cells" else None
        yield Prospect(
            group.name,
            runs,
            sum(other for _, other in sizes),
            AtMost(matrix.limits.looping, own["looping"]).detectable(telling) if telling else None,
            RankSum(own["entropy"] / 2).planned(sizes) if "entropy" in own else None,  # the other half is for windows
            alone.detectable(runs) if alone else None,
        )


def pooled_power(matrix: Matrix) -> str:
    """What all runs of a matrix that is judged step by step detect together, and its false alarms, in sentences."""
    runs = sum(map(count, matrix.cases))
    share = AtMost(matrix.limits.looping, pooled_alphas(RATE)["looping"]).detectable(runs)
    power = f"detect that {share:.0%} of them loop, or never end" if share < 1 else "are too few to detect loops"
    return (
        f"{matrix.name}/{ALL}: {runs:,} runs {power}. Checks of steps are exact; those of runs, and of tokens sampled "
        f"with noise of the engine's own, raise at most {RATE:g} false alarms a run."
    )


SCORED_AT: Final = 2e-9
NEEDED: Final[Mapping[str, int]] = {
    "a temperature 6 % off": 5_400,
    "12 % off": 2_400,
    "25 % off": 1_200,
    "a penalty of another strength": 330,
    "another guidance weight": 680,
    "a missing BOS": 3_100,
    "other speech positions": 880,
    "another prompt or emotion": 660,
    "a bias of the draw": 600,
    "noise that comes again": 1_900,
    "EOS lifted by 4 nats": 18_000,
}
"""Tokens that exclude an alternative at an alpha of SCORED_AT, 99 times in 100: measured on the 40 shipped runs of
upstream at the defaults, 22,464 tokens."""


def scoring_power(matrix: Matrix) -> str:
    """What the tokens of a cell of a long-form matrix exclude when they are scored under the engine's model."""
    alphas = alphas_of(matrix)
    alpha = min(alphas[case.cell].get("evidence", 1.0) for case in matrix.cases)
    if alpha == 1:
        return "The tokens of the cells are not scored: left_out names evidence."
    scale = math.log(alpha) / math.log(SCORED_AT)
    told = {name: float(f"{scale * count:.2g}") for name, count in NEEDED.items()}
    tokens = expected_tokens(matrix) / len(matrix.cases)
    what = f"the tokens of a cell, about {tokens:,.0f}, prove any impossible one, and"
    required = longform_of(matrix).detect.get("cells", Detect()).temperature
    if required is not None:
        scored = sum(length + (runs - 1) * min(length, START) for runs, length in _lengths(matrix)) / len(matrix.cases)
        what = (
            f"about {scored:,.0f} of the {tokens:,.0f} tokens of a cell (one run of each text, of the others the first "
            f"{START}; more until a temperature {required:.0%} off is excluded) prove any impossible one, and"
        )
        tokens = scored
    found = [f"{name} ({count:,.0f})" for name, count in told.items() if count <= tokens]
    return (
        f"Scored under the engine's model, {what} exclude, with the tokens that this takes at the defaults: "
        f"{', '.join(found) or 'nothing'}."
    )


def expected_tokens(matrix: Matrix) -> float:
    """Tokens of a whole run, without repeated requests: true speech; the cap for unknown texts and known loops."""
    return sum(runs * length for runs, length in _lengths(matrix))


def _lengths(matrix: Matrix) -> Iterator[tuple[int, float]]:
    """For each text of each cell the number of runs and the tokens that each is expected to have."""
    endless = looping_cells(matrix)
    for case in matrix.cases:
        for prompt in prompts_of(case.workload):
            length = (0 if case.cell in endless else prompt.tokens) or math.inf
            yield case.workload.runs, min(length, case.workload.max_new_tokens)


def duration(matrix: Matrix) -> str:
    """How long a run takes, in a sentence."""
    tokens, rate = expected_tokens(matrix), TOKENS_A_SECOND["runs" if matrix.longform else "steps"]
    jobs = ", half of it with --jobs 2" if matrix.longform else ""
    took = tokens / rate
    shown = f"{took / 60:.0f} min" if took > 100 else f"{took:.0f} s"
    return f"about {tokens:,.0f} tokens: {shown} at {rate:.0f} tokens a second, as measured on one CPU core{jobs}"
