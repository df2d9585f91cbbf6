"""Questions about all runs of a matrix together whose cells are judged step by step: a cell alone has too few runs."""

from collections.abc import Mapping, Sequence
from typing import Final

from sampler.checks.longform.absolute import RunLimits, within_limits
from sampler.checks.longform.runs import TokenRun, token_run
from sampler.checks.verdict import ABSOLUTE, Finding
from sampler.matrix.matrix import Case
from sampler.requests import Generation
from sampler.run.prompts import prompts_of
from sampler.statistics.budget import Budget

RATE: Final = 1e-6
"""Of false alarms of a whole run."""

SHARES: Final[Mapping[str, float]] = {"looping": 1.0, "endless": 1.0, "tokens": 2.0, "scoring": 1.0}
"""The shares of the limits, of the questions about sampled tokens and of scoring, in a budget."""


def alphas_of(rate: float) -> dict[str, float]:
    """How often each share of a budget may accuse a right engine."""
    return Budget(rate).split(SHARES)


def spoken(case: Case, generations: Sequence[Generation]) -> list[TokenRun]:
    """The runs of a cell, named after the cell and its text."""
    prompts = [prompt for prompt in prompts_of(case.workload) for _ in range(case.workload.runs)]
    return [
        token_run(f"{case.cell} {prompt.id}", Generation(one.tokens, one.stop_reason), float(prompt.tokens) or None)
        for prompt, one in zip(prompts, generations, strict=False)
    ]


def pooled(runs: Sequence[TokenRun], limits: RunLimits, rate: float) -> dict[str, Finding]:
    """Both absolute limits on all runs of a matrix; skipped if there are none. rate: of the whole budget."""
    if not runs:
        return {
            name: Finding.skipped("generate", stage, "after_failure", "no cell of the matrix has runs")
            for name, stage in zip(ABSOLUTE, ("draw", "stop"), strict=True)
        }
    return within_limits(runs, limits, alphas_of(rate))
