"""Executing a long-form matrix: all cells are generated, then asked together, by axis and alone, beside reference runs.

Pooled questions come first in the budget: one cell's dozens of runs see only what is large, those of all cells much
less. Every group of cells is asked the same questions (`checks.questions`); runs of one text in two cells are runs of
two texts. What a cell is by itself (whole, without loops) is asked of the cell alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sampler.checks.longform.absolute import Expectation, complete, looping
from sampler.checks.longform.questions import WEIGHTS, two_sided
from sampler.checks.longform.runs import TwoSides
from sampler.checks.longform.same_noise import same
from sampler.checks.longform.stopping import ends
from sampler.checks.verdict import Finding, Verdict
from sampler.engines.core import CoreEngine
from sampler.matrix.matrix import Case, Detect, Known, Matrix
from sampler.run.blocks import block_of
from sampler.run.cells import CellRuns, Cells, shared_places
from sampler.run.events import CaseResult
from sampler.run.executors import generate_blocks
from sampler.run.groups import Group, alphas_of, groups_of, longform_of
from sampler.run.references import References
from sampler.run.session import OnCell, OnStep, Session

ALONE: Mapping[str, Callable[..., Finding]] = {"same": same, "ends": ends, "complete": complete, "looping": looping}
"""What a cell is asked by itself; `same` and `ends` are exact and need no part of the budget."""

NO_REFERENCE = "no reference runs of these cells"


@dataclass
class LongFormRun:
    """A long-form matrix put to an engine; every cell is generated once. jobs: processes that generate the core's."""

    session: Session
    on_step: OnStep = lambda tokens, finished: None
    jobs: int = 1

    @property
    def matrix(self) -> Matrix:
        """The matrix."""
        return self.session.matrix

    @cached_property
    def alphas(self) -> dict[str, dict[str, float]]:
        """Alpha of each question, by group."""
        return alphas_of(self.matrix)

    @cached_property
    def references(self) -> References:
        """The runs that those of the engine stand beside."""
        engine = self.session.engine
        core = engine.generator.checkpoint.checksum if isinstance(engine, CoreEngine) else None
        return References(self.matrix, core)

    @cached_property
    def cells(self) -> Cells:
        """The runs of the cells."""
        return Cells(self.session, self.references, self.on_step)

    def results(self, on_cell: OnCell = lambda name: None) -> Iterator[CaseResult]:
        """Generate everything, then answer: all cells together, axes, cells."""
        if self.jobs > 1 and isinstance(self.session.engine, CoreEngine):
            self._generate_beside(on_cell)
        for case in self.matrix.cases:
            if case.cell not in self.cells.made:
                on_cell(case.cell)
            self.cells.generate_block(block_of(self.matrix.cases, case))
            self.cells.runs_of(case)
        for group in groups_of(self.matrix):
            yield self.result(group)

    def _generate_beside(self, on_cell: OnCell) -> None:
        for block in generate_blocks(self.session, self.jobs):
            for cell, made in block.items():
                self.cells.made[cell] = made
                on_cell(cell)
                self.on_step(made.tokens, len(made.generations))

    def result(self, group: Group) -> CaseResult:
        """The verdicts of one group; what it needs is generated."""
        start = time.perf_counter()
        made = [self.cells.runs_of(case) for case in group.cases]
        findings = dict(self._findings(group, made))
        case = group.cases[0] if group.scope == "cells" else self._case_of(group)
        alone = made[0] if group.scope == "cells" else CellRuns()
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
        return Case(self.matrix.name, group.name, first.config, first.workload)

    def _verdict(self, case: Case, name: str, finding: Finding) -> Verdict:
        return finding.verdict(case.id, name, self.session.reproduce(case, name))

    def _findings(self, group: Group, made: Sequence[CellRuns]) -> Iterator[tuple[str, Finding]]:
        alphas = self.alphas[group.name]
        told = [each for each in made if each.problem is None]
        if not told:
            names = [*alphas, *(["same", "ends"] if group.scope == "cells" else [])]
            worst = next((each.problem for each in made if each.problem and each.problem.outcome == "errored"), None)
            problem = worst or made[0].problem
            assert problem is not None  # noqa: S101 - none was told
            yield from ((name, problem) for name in names)
            return
        if group.scope == "cells":
            yield from self._alone(group.cases[0], made[0], alphas)
        yield from self._two_sided(group, made, alphas)

    def _alone(self, case: Case, made: CellRuns, alphas: Mapping[str, float]) -> Iterator[tuple[str, Finding]]:
        runs = made.runs
        plan = longform_of(self.matrix)
        known: dict[str, Known] = {each.check: each for each in self.matrix.known if each.cell == case.cell}
        yield "same", self._same(case, made)
        yield "ends", ends(runs, self.references.of(case))
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
        runs = self.references.of(case)
        return same(made.shared, [runs[place] for place in shared_places(len(runs))])

    def _two_sided(
        self, group: Group, made: Sequence[CellRuns], alphas: Mapping[str, float]
    ) -> Iterator[tuple[str, Finding]]:
        pairs = zip(group.cases, made, strict=True)
        engine = [run for _, each in pairs for run in each.runs]
        reference = [run for case in group.cases for run in self.references.of(case)]
        sides = TwoSides.of(engine, reference)
        if not sides.texts:
            yield from ((name, _nothing(alpha)) for name, alpha in alphas.items() if name in WEIGHTS)
            return
        detect = longform_of(self.matrix).detect.get(group.scope, Detect())
        missing = sum(each.problem is not None for each in made)
        note = f"; without {missing} of {len(made)} cells, which have no runs" if missing else ""
        for name, finding in two_sided(sides, alphas, detect.share, detect.superiority):
            yield name, replace(finding, message=finding.message + note)


def _nothing(alpha: float) -> Finding:
    return Finding("generate", "draw", "unavailable", 0, NO_REFERENCE, alpha=alpha)
