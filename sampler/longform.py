"""Executing a long-form matrix: all cells are generated, then asked together, by axis and alone, beside reference runs.

Pooled questions come first in the budget: one cell's dozens of runs see only what is large, those of all cells much
less. Every group of cells is asked the same questions (`checks.questions`); runs of one text in two cells are runs of
two texts. What a cell is by itself (whole, without loops) is asked of the cell alone.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sampler.blocks import apart, block_of, count, shares
from sampler.case_result import CaseResult
from sampler.cell_runs import CellRuns, cell_runs
from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.checks.base import Finding, Verdict
from sampler.checks.by_itself import Expectation, complete, looping
from sampler.checks.questions import WEIGHTS, two_sided
from sampler.checks.runs import TokenRun, TwoSides, token_run
from sampler.checks.same import IGNORES_NOISE, parting, same
from sampler.checks.steps import EXACT_DTYPES
from sampler.checks.stopping import ends
from sampler.engines.base import Generation, Request
from sampler.engines.core import CoreEngine
from sampler.errors import Unsupported
from sampler.groups import Group, alphas_of, groups_of, plan_of, reference_key
from sampler.matrix import Case, Detect, Known, Matrix
from sampler.results.reference_runs import ReferenceRuns, read_reference, shipped_reference
from sampler.results.token_runs import read_token_runs
from sampler.run import OnCell, OnStep, Session

ALONE: Mapping[str, Callable[..., Finding]] = {"same": same, "ends": ends, "complete": complete, "looping": looping}
"""What a cell is asked by itself; `same` and `ends` are exact and need no part of the budget."""

SHARED = 2
"""Runs of a cell that are spoken again with the reference's noise: of its first and of its last text."""

NO_REFERENCE = "no reference runs of these cells"


@dataclass
class LongFormRun:
    """A long-form matrix put to an engine; every cell is generated once. jobs: processes that generate the core's."""

    session: Session
    on_step: OnStep = lambda tokens, finished: None
    jobs: int = 1
    _made: dict[str, CellRuns] = field(default_factory=dict)

    @property
    def matrix(self) -> Matrix:
        """The matrix."""
        return self.session.matrix

    @cached_property
    def alphas(self) -> dict[str, dict[str, float]]:
        """Alpha of each question, by group."""
        return alphas_of(self.matrix)

    @cached_property
    def reference(self) -> ReferenceRuns | None:
        """The reference runs that come with the package, None where the matrix has none, or a file of its own."""
        name = plan_of(self.matrix).reference
        return read_reference(shipped_reference(name)) if name and not name.endswith(".jsonl") else None

    @cached_property
    def _own_reference(self) -> Sequence[TokenRun]:
        name = plan_of(self.matrix).reference
        return read_token_runs(self.matrix.path.parent / name) if name.endswith(".jsonl") else ()

    def reference_of(self, case: Case) -> list[TokenRun]:
        """Reference runs of a cell; their texts are named after cell and prompt."""
        if self.reference is not None:
            runs = self.reference.runs(case.cell) if self._fits(self.reference, case) else ()
            return [replace(run, text=f"{case.cell} {run.text}") for run in runs]
        return [
            replace(run, text=f"{case.cell} {run.text.removeprefix(f'{case.id} ')}")
            for run in self._own_reference
            if run.text.startswith(f"{case.id} ") or (" " not in run.text and len(self.matrix.cases) == 1)
        ]

    def _fits(self, reference: ReferenceRuns, case: Case) -> bool:
        """Whether runs that ship were made with a cell's knobs, and with the weights of the core."""
        cell = reference.cells.get(case.cell)
        engine = self.session.engine
        core = engine.generator.checkpoint.checksum if isinstance(engine, CoreEngine) else None
        same_weights = core is None or core == reference.provenance.get("weights_sha256")
        return cell is not None and cell.config == str(case.config) and same_weights

    def results(self, on_cell: OnCell = lambda name: None) -> Iterator[CaseResult]:
        """Generate everything, then answer: all cells together, axes, cells."""
        if self.jobs > 1 and isinstance(self.session.engine, CoreEngine):
            self._generate_beside(on_cell)
        for case in self.matrix.cases:
            if case.cell not in self._made:
                on_cell(case.cell)
            self.generate_block(block_of(self.matrix.cases, case))
            self.runs_of(case)
        for group in groups_of(self.matrix):
            yield self.result(group)

    def generate_block(self, cases: Sequence[Case]) -> None:
        """Generate the cells of a block that were not yet, all at once; only the core can."""
        waiting = [case for case in cases if case.cell not in self._made]
        if len(waiting) > 1 and isinstance(self.session.engine, CoreEngine):
            self._made |= self.generate_together(waiting)

    def _generate_beside(self, on_cell: OnCell) -> None:
        from sampler.longform_workers import generate_blocks

        for block in generate_blocks(self.session, self.jobs):
            for cell, made in block.items():
                self._made[cell] = made
                on_cell(cell)
                self.on_step(made.tokens, len(made.generations))

    def result(self, group: Group) -> CaseResult:
        """The verdicts of one group; what it needs is generated."""
        start = time.perf_counter()
        made = [self.runs_of(case) for case in group.cases]
        findings = dict(self._findings(group, made))
        case = group.cases[0] if group.level == "cells" else self._case_of(group)
        alone = made[0] if group.level == "cells" else CellRuns()
        return CaseResult(
            case=case,
            verdicts=tuple(self._verdict(case, name, finding) for name, finding in findings.items()),
            steps={},
            tokens=alone.tokens,
            seconds=time.perf_counter() - start + alone.seconds,
            requests=alone.requests,
            generations=alone.generations,
        )

    def _case_of(self, group: Group) -> Case:
        first = group.cases[0]
        return Case(self.matrix.name, group.name, first.config, first.plan)

    def _verdict(self, case: Case, name: str, finding: Finding) -> Verdict:
        return finding.verdict(case.id, name, self.session.reproduce(case, name))

    def _findings(self, group: Group, made: Sequence[CellRuns]) -> Iterator[tuple[str, Finding]]:
        alphas = self.alphas[group.name]
        told = [each for each in made if each.problem is None]
        if not told:
            names = [*alphas, *(["same", "ends"] if group.level == "cells" else [])]
            worst = next((each.problem for each in made if each.problem and each.problem.outcome == "errored"), None)
            problem = worst or made[0].problem
            assert problem is not None  # noqa: S101 - none was told
            yield from ((name, problem) for name in names)
            return
        if group.level == "cells":
            yield from self._alone(group.cases[0], made[0], alphas)
        yield from self._two_sided(group, made, alphas)

    def _alone(self, case: Case, made: CellRuns, alphas: Mapping[str, float]) -> Iterator[tuple[str, Finding]]:
        runs = made.runs
        plan = plan_of(self.matrix)
        known: dict[str, Known] = {each.check: each for each in self.matrix.known if each.cell == case.cell}
        yield "same", self._same(case, made)
        yield "ends", ends(runs, self.reference_of(case))
        for name, check, most in (
            ("complete", complete, plan.most_incomplete),
            ("looping", looping, plan.most_looping),
        ):
            if name not in alphas:
                continue
            entry = known.get(name)
            expected = Expectation(most, entry.finding, entry.share) if entry else Expectation(most)
            yield name, check(runs, expected, alphas[name])

    def _same(self, case: Case, made: CellRuns) -> Finding:
        if isinstance(made.shared, str):
            return Finding("generate", "draw", "unavailable", 0, made.shared)
        runs = self.reference_of(case)
        return same(made.shared, [runs[place] for place in shared_places(len(runs))])

    def _shared_requests(self, case: Case) -> "list[Request] | str":
        """Requests for runs with the reference's noise, or why there are none."""
        reference, info = self.reference, self.session.engine.info
        if reference is None or not self._fits(reference, case):
            return "no reference runs whose noise is known"
        if info.vocab_size is None or info.dtype not in EXACT_DTYPES:
            return f"{info.name} takes no noise, or computes in another precision than the reference"
        theirs = reference.runs(case.cell)
        runs = [(theirs[place].text, self._key(reference, case, place)) for place in shared_places(len(theirs))]
        return self.session.requests_of(runs, case, first=count(case))

    def _shared(
        self, case: Case, requests: "Sequence[Request] | str", made: Sequence[Generation]
    ) -> "tuple[TokenRun, ...] | str":
        """The runs with the reference's noise, or why they are none."""
        if isinstance(requests, str):
            return requests
        try:
            theirs = self.reference_of(case)
            pairs = [(theirs[place], each) for place, each in zip(shared_places(len(theirs)), made, strict=True)]
            runs = tuple(token_run(their.text, each) for their, each in pairs)
            parted = any(parting(run.tokens, their.tokens) for run, (their, _) in zip(runs, pairs, strict=True))
            return IGNORES_NOISE if parted and self._ignores_noise(case, requests[0], made[0]) else runs
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the runs that are there are judged all the same
            return _failed_shared(error)

    def _key(self, reference: ReferenceRuns, case: Case, place: int) -> NoiseKey:
        return reference_key(reference.provenance["seed"], reference.provenance["matrix"], case.cell, place)

    def _ignores_noise(self, case: Case, request: Request, answer: Generation) -> bool:
        other = NoiseKey(self.session.seed, f"{case.id}/other", 0)
        noise = RequestNoise(other, self.session.engine.info.vocab_size or 0)
        if case.config.greedy:
            return False
        other_noise, once_more = (
            self.session.answers(case, [each], self.on_step)[0] for each in (replace(request, noise=noise), request)
        )
        return other_noise.tokens == answer.tokens or once_more.tokens != answer.tokens

    def _two_sided(
        self, group: Group, made: Sequence[CellRuns], alphas: Mapping[str, float]
    ) -> Iterator[tuple[str, Finding]]:
        pairs = zip(group.cases, made, strict=True)
        engine = [run for _, each in pairs for run in each.runs]
        reference = [run for case in group.cases for run in self.reference_of(case)]
        sides = TwoSides.of(engine, reference)
        if not sides.texts:
            yield from ((name, _nothing(alpha)) for name, alpha in alphas.items() if name in WEIGHTS)
            return
        detect = plan_of(self.matrix).detect.get(group.level, Detect())
        missing = sum(each.problem is not None for each in made)
        note = f"; without {missing} of {len(made)} cells, which have no runs" if missing else ""
        for name, finding in two_sided(sides, alphas, detect.share, detect.superiority):
            yield name, replace(finding, message=finding.message + note)

    def runs_of(self, case: Case) -> CellRuns:
        """The runs of a cell, generated once. What an engine does wrong in it, it does wrong in this cell alone."""
        if case.cell not in self._made:
            self._made[case.cell] = self.generate(case)
        return self._made[case.cell]

    def generate_together(self, cases: Sequence[Case]) -> dict[str, CellRuns]:
        """Cells of a block at once, by name; none where something went wrong: a cell by itself says which of them."""
        start = time.perf_counter()
        try:
            own = [self.session.requests(case) for case in cases]
            shared = [self._shared_requests(case) for case in cases]
            queues = [*own, *(each for each in shared if not isinstance(each, str))]
            answers = iter(apart(self.session.answers(cases[0], list(itertools.chain(*queues)), self.on_step), queues))
        except Exception:  # noqa: BLE001
            return {}
        made = [cell_runs(case, asked, next(answers)) for case, asked in zip(cases, own, strict=True)]
        told = [
            self._shared(case, asked, () if isinstance(asked, str) else next(answers))
            for case, asked in zip(cases, shared, strict=True)
        ]
        seconds = shares(time.perf_counter() - start, [each.tokens for each in made])
        return {
            case.cell: replace(each, shared=of_shared, seconds=took)
            for case, each, of_shared, took in zip(cases, made, told, seconds, strict=True)
        }

    def generate(self, case: Case) -> CellRuns:
        """Generate a cell and look at nothing."""
        start = time.perf_counter()
        try:
            requests = self.session.requests(case)
            generations = self.session.answers(case, requests, self.on_step)
        except Unsupported as error:
            return CellRuns(problem=Finding("generate", "draw", "unavailable", 0, str(error)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything; other cells still run
            message = f"{type(error).__name__}: {error}"
            return CellRuns(problem=Finding("generate", "draw", "errored", 0, message))
        made = cell_runs(case, requests, generations)
        return replace(made, shared=self._generate_shared(case), seconds=time.perf_counter() - start)

    def _generate_shared(self, case: Case) -> "tuple[TokenRun, ...] | str":
        try:
            asked = self._shared_requests(case)
            answers = () if isinstance(asked, str) else self.session.answers(case, asked, self.on_step)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the runs that are there are judged all the same
            return _failed_shared(error)
        return self._shared(case, asked, answers)


def shared_places(runs: int) -> list[int]:
    """Which of a cell's reference runs are spoken again."""
    return sorted({0, runs - 1})[:SHARED]


def _failed_shared(error: BaseException) -> str:
    return f"runs with the reference's noise: {type(error).__name__}: {error}"


def _nothing(alpha: float) -> Finding:
    return Finding("generate", "draw", "unavailable", 0, NO_REFERENCE, alpha=alpha)
