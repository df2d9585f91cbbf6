"""What a long-form cell's engine did."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sampler.checks.base import Finding
from sampler.checks.runs import TokenRun, token_run
from sampler.engines.base import Generation, Request
from sampler.matrix import Case
from sampler.prompts import prompts_of
from sampler.results.reference_runs import as_kept


@dataclass(frozen=True)
class CellRuns:
    """What a cell's engine did. shared: some runs with the reference's noise, or why there are none.

    problem: why it did nothing at all.
    """

    requests: tuple[Request, ...] = ()
    generations: tuple[Generation, ...] = ()
    runs: tuple[TokenRun, ...] = ()
    seconds: float = 0.0
    shared: tuple[TokenRun, ...] | str = ""
    problem: Finding | None = None

    @property
    def tokens(self) -> int:
        """Tokens drawn."""
        return sum(len(generation.tokens) for generation in self.generations)


def cell_runs(case: Case, requests: Sequence[Request], generations: Sequence[Generation]) -> CellRuns:
    """A cell's requests and what came of them, as the questions about runs take it."""
    prompts = [prompt for prompt in prompts_of(case.plan) for _ in range(case.plan.runs)]
    runs = [
        as_kept(token_run(f"{case.cell} {prompt.id}", generation, float(prompt.tokens) if prompt.tokens else None))
        for prompt, generation in zip(prompts, generations, strict=True)
    ]
    return CellRuns(tuple(requests), tuple(_without_attention(each) for each in generations), tuple(runs))


def _without_attention(generation: Generation) -> Generation:
    """A generation without what is large: a picture generates it once more."""
    record = generation.record
    return generation if record is None else replace(generation, record=replace(record, logits=None, attention=None))
