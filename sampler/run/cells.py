"""The runs of the cells of a long-form matrix: each cell is generated once."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sampler.chain.noise import NoiseKey
from sampler.checks.longform.runs import TokenRun, token_run
from sampler.checks.longform.same_noise import IGNORES_NOISE, parting
from sampler.checks.scoring.summary import ScoreSummary
from sampler.checks.steps.recorded import EXACT_DTYPES
from sampler.checks.verdict import SCORED, Finding
from sampler.engines.calls import OnStep
from sampler.engines.capabilities import is_bitwise, weights_of
from sampler.matrix.matrix import Case, Detect
from sampler.requests import Generation, Request
from sampler.results.store.reference_runs import ReferenceRuns, as_kept
from sampler.run.blocks import apart, count, shares
from sampler.run.cell_scoring import scored
from sampler.run.groups import longform_of, reference_key
from sampler.run.prompts import prompts_of
from sampler.run.references import References
from sampler.run.session import Session

SHARED = 2
"""Runs of a cell that are repeated with the reference's noise: of its first and of its last text."""


@dataclass(frozen=True)
class CellRuns:
    """The runs of a cell. shared: some runs with the reference's noise, or why there are none.

    scored: the answers of scoring; summary: what pictures show of it. problem: why there are no runs at all.
    """

    requests: tuple[Request, ...] = ()
    generations: tuple[Generation, ...] = ()
    runs: tuple[TokenRun, ...] = ()
    seconds: float = 0.0
    shared: tuple[TokenRun, ...] | str = ""
    scored: Mapping[str, Finding] = field(default_factory=dict)
    summary: ScoreSummary | None = None
    problem: Finding | None = None

    @property
    def tokens(self) -> int:
        return sum(len(generation.tokens) for generation in self.generations)


def cell_runs(case: Case, requests: Sequence[Request], generations: Sequence[Generation]) -> CellRuns:
    """A cell's requests and generations in the form that the questions about runs use."""
    prompts = [prompt for prompt in prompts_of(case.workload) for _ in range(case.workload.runs)]
    runs = [
        as_kept(token_run(f"{case.cell} {prompt.id}", generation, float(prompt.tokens) if prompt.tokens else None))
        for prompt, generation in zip(prompts, generations, strict=True)
    ]
    return CellRuns(tuple(requests), tuple(_without_attention(generation) for generation in generations), tuple(runs))


def _without_attention(generation: Generation) -> Generation:
    """A generation without its large arrays; a picture generates it again."""
    record = generation.record
    return generation if record is None else replace(generation, record=replace(record, logits=None, attention=None))


@dataclass
class Cells:
    """The runs of the cells of a long-form matrix. made: the generated ones, by cell."""

    session: Session
    made: dict[str, CellRuns] = field(default_factory=dict)

    @cached_property
    def references(self) -> References:
        return References(self.session.matrix, weights_of(self.session.engine))

    def generate_block(self, cases: Sequence[Case], on_step: OnStep) -> None:
        """Generate the missing cells of a block at once, if the engine gives equal bits in any batch."""
        waiting = [case for case in cases if case.cell not in self.made]
        if waiting and is_bitwise(self.session.engine):
            self.made |= self._together(waiting, on_step)

    def runs_of(self, case: Case, on_step: OnStep) -> CellRuns:
        """The runs of a cell, generated once. An engine's error in it affects only this cell."""
        if case.cell not in self.made:
            self.made[case.cell] = self._generate(case, on_step)
        return self.made[case.cell]

    def scored_of(self, case: Case, alpha: float | None) -> CellRuns:
        """The runs of a cell that has been generated, with the answers of scoring, unless it has no alpha."""
        runs = self.made[case.cell]
        if alpha is not None and not (runs.scored or runs.problem):
            start = time.perf_counter()
            required = longform_of(self.session.matrix).detect.get("cells", Detect()).temperature
            answers, summary = scored(
                self.session, case, runs.requests, runs.runs, alpha, required, sparing=required is not None
            )
            found = {name: finding for name, finding in answers.items() if name in SCORED}
            seconds = runs.seconds + time.perf_counter() - start
            self.made[case.cell] = replace(runs, scored=found, summary=summary, seconds=seconds)
        return self.made[case.cell]

    def _together(self, cases: Sequence[Case], on_step: OnStep) -> dict[str, CellRuns]:
        """Cells of a block at once, by name; empty after an error: then running each cell alone shows which has it."""
        start = time.perf_counter()
        try:
            own = [self.session.requests(case) for case in cases]
            shared = [self._shared_requests(case) for case in cases]
            queues = [*own, *(some for some in shared if not isinstance(some, str))]
            answers = iter(apart(self.session.answers(cases[0], list(itertools.chain(*queues)), on_step), queues))
        except Exception:  # noqa: BLE001
            return {}
        runs = [cell_runs(case, requests, next(answers)) for case, requests in zip(cases, own, strict=True)]
        with_noise = [
            self._shared(case, requests, () if isinstance(requests, str) else next(answers), on_step)
            for case, requests in zip(cases, shared, strict=True)
        ]
        seconds = shares(time.perf_counter() - start, [one.tokens for one in runs])
        return {
            case.cell: replace(one, shared=noisy, seconds=took)
            for case, one, noisy, took in zip(cases, runs, with_noise, seconds, strict=True)
        }

    def _generate(self, case: Case, on_step: OnStep) -> CellRuns:
        start = time.perf_counter()
        try:
            requests = self.session.requests(case)
            generations = self.session.answers(case, requests, on_step)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other runs are still judged
            return CellRuns(problem=Finding.of_error("generate", "draw", error))
        runs = cell_runs(case, requests, generations)
        return replace(runs, shared=self._generate_shared(case, on_step), seconds=time.perf_counter() - start)

    def _generate_shared(self, case: Case, on_step: OnStep) -> "tuple[TokenRun, ...] | str":
        try:
            requests = self._shared_requests(case)
            answers = () if isinstance(requests, str) else self.session.answers(case, requests, on_step)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other runs are still judged
            return _failed_shared(error)
        return self._shared(case, requests, answers, on_step)

    def _shared_requests(self, case: Case) -> "list[Request] | str":
        """Requests for runs with the reference's noise, or why there are none."""
        info, shipped, theirs = self.session.engine.info, self.references.shipped, self.references.shipped_of(case)
        if shipped is None or not theirs:
            return "no reference runs whose noise is known"
        if info.vocab_size is None or info.dtype not in EXACT_DTYPES:
            return f"{info.name} takes no noise, or computes in another precision than the reference"
        runs = [(theirs[place].text, _key(shipped, case, place)) for place in shared_places(len(theirs))]
        return self.session.requests_of(runs, case, first=count(case))

    def _shared(
        self, case: Case, requests: "Sequence[Request] | str", answers: Sequence[Generation], on_step: OnStep
    ) -> "tuple[TokenRun, ...] | str":
        """The runs with the reference's noise, or why there are none."""
        if isinstance(requests, str):
            return requests
        try:
            theirs = self.references.of(case)
            pairs = [(theirs[place], one) for place, one in zip(shared_places(len(theirs)), answers, strict=True)]
            runs = tuple(token_run(their.text, one) for their, one in pairs)
            parted = any(parting(run.tokens, their.tokens) for run, (their, _) in zip(runs, pairs, strict=True))
            asked = parted and not case.config.greedy
            if asked and self.session.ignores_noise(case, requests[0], answers[0].tokens, on_step):
                return IGNORES_NOISE
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other runs are still judged
            return _failed_shared(error)
        return runs


def _key(reference: ReferenceRuns, case: Case, place: int) -> NoiseKey:
    return reference_key(reference.provenance["seed"], reference.provenance["matrix"], case.cell, place)


def shared_places(runs: int) -> list[int]:
    """The indices of a cell's reference runs that are repeated."""
    return sorted({0, runs - 1})[:SHARED]


def _failed_shared(error: BaseException) -> str:
    return f"runs with the reference's noise: {type(error).__name__}: {error}"
