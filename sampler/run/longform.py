"""The suite of a matrix of whole runs, compared with reference runs: all cells pooled, per axis, and per cell.

Pooled questions have the largest shares of the budget: dozens of runs of one cell detect only large differences, those
of all cells much smaller ones. Every group of cells has the same questions (`checks.longform.questions`); runs of one
text in two cells count as runs of two texts. Whether runs are complete and free of loops is tested per cell.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sampler.checks.longform.absolute import Expectation, complete, endless, looping, within_limits
from sampler.checks.longform.questions import ALONE, QUESTIONS, WEIGHTS, two_sided
from sampler.checks.longform.runs import TwoSides
from sampler.checks.longform.same_noise import same
from sampler.checks.longform.stopping import ends
from sampler.checks.verdict import SCORED, CaseId, Finding, Verdict
from sampler.engines.capabilities import is_bitwise
from sampler.matrix.matrix import Case, Detect, Group, Known, Matrix
from sampler.results.store.reference_runs import check_reference
from sampler.run.blocks import block_of, count
from sampler.run.cells import SHARED, CellRuns, Cells, shared_places
from sampler.run.events import CaseResult, CellStarted, Emit, Judged, Progress, progress
from sampler.run.executors import generate_blocks
from sampler.run.groups import alphas_of, groups_of, limits_of, longform_of, looping_cells
from sampler.run.session import Session

NO_REFERENCE = "no reference runs of these cells"


@dataclass
class LongformSuite:
    """Every cell is generated once, and judged in every group that contains it."""

    session: Session

    @property
    def matrix(self) -> Matrix:
        return self.session.matrix

    @cached_property
    def groups(self) -> Sequence[Group]:
        return groups_of(self.matrix)

    @property
    def checks(self) -> Mapping[str, str]:
        return {question.name: question.sentence for question in QUESTIONS} | dict(SCORED) | dict(ALONE)

    @property
    def expected_requests(self) -> int:
        again = SHARED if longform_of(self.matrix).reference else 0
        return sum(count(case) + again for case in self.matrix.cases)

    @cached_property
    def alphas(self) -> dict[str, dict[str, float]]:
        return alphas_of(self.matrix)

    @cached_property
    def cells(self) -> Cells:
        return Cells(self.session)

    def prepare(self, jobs: int = 1) -> None:
        _ = self.alphas
        check_reference(self.matrix.path.parent, longform_of(self.matrix).reference)
        self.session.validate(self.matrix.cases, jobs)

    def results(self, emit: Emit, jobs: int = 1) -> None:
        if jobs > 1 and is_bitwise(self.session.engine):
            for block in generate_blocks(self.session, jobs):
                for cell, runs in block.items():
                    self.cells.made[cell] = runs
                    emit(CellStarted(cell))
                    emit(Progress(runs.tokens, len(runs.generations)))
        self.generate(self.groups, emit)
        for group in self.groups:
            emit(Judged(self.result(group, emit)))

    def together(self, group: Group) -> Sequence[Group]:
        return [group]

    def generate(self, groups: Sequence[Group], emit: Emit) -> None:
        on_step = progress(emit)
        wanted = {case.cell for group in groups for case in group.cases}
        for case in (one for one in self.matrix.cases if one.cell in wanted):
            if case.cell not in self.cells.made:
                emit(CellStarted(case.cell))
            block = [one for one in block_of(self.matrix.cases, case) if one.cell in wanted]
            self.cells.generate_block(block, on_step)
            self.cells.runs_of(case, on_step)

    def result(self, group: Group, emit: Emit) -> CaseResult:
        start = time.perf_counter()
        cells = [self.cells.runs_of(case, progress(emit)) for case in group.cases]
        findings = dict(self._findings(group, cells))
        case = group.cases[0] if group.scope == "cells" else self._case_of(group)
        alone = cells[0] if group.scope == "cells" else CellRuns()
        return CaseResult(
            case=case,
            verdicts=tuple(self._verdict(case, name, finding) for name, finding in findings.items()),
            steps={},
            tokens=alone.tokens,
            seconds=time.perf_counter() - start + alone.seconds,
            requests=alone.requests,
            generations=alone.generations,
            scored=self.cells.made[case.cell].summary if group.scope == "cells" else None,
        )

    def _case_of(self, group: Group) -> Case:
        first = group.cases[0]
        return Case(self.matrix.name, group.name, first.config, first.workload)

    def _verdict(self, case: Case, name: str, finding: Finding) -> Verdict:
        case_id = CaseId(case.matrix, case.cell, name)
        found = finding.verdict(case_id, self.session.reproduce(str(case_id)))
        return found.doubted(longform_of(self.matrix).false_alarms)

    def _findings(self, group: Group, cells: Sequence[CellRuns]) -> Iterator[tuple[str, Finding]]:
        alphas = self.alphas[group.name]
        answered = [one for one in cells if one.problem is None]
        if not answered:
            names = [*alphas, *(["impossible", "same", "ends"] if group.scope == "cells" else [])]
            worst = next((one.problem for one in cells if one.problem and one.problem.outcome == "errored"), None)
            problem = worst or cells[0].problem
            assert problem is not None  # noqa: S101 - none was answered
            yield from ((name, problem) for name in names)
            return
        if group.scope == "cells":
            yield from self._alone(group.cases[0], cells[0], alphas)
        else:
            yield from self._pooled(group, cells, alphas)
        yield from self._two_sided(group, cells, alphas)

    def _pooled(
        self, group: Group, cells: Sequence[CellRuns], alphas: Mapping[str, float]
    ) -> Iterator[tuple[str, Finding]]:
        """The absolute limits on the runs of several cells, without those that are known to loop."""
        known = looping_cells(self.matrix)
        runs = [run for case, one in zip(group.cases, cells, strict=True) if case.cell not in known for run in one.runs]
        if runs:
            yield from within_limits(runs, limits_of(self.matrix, group.scope), alphas).items()

    def _alone(self, case: Case, cell: CellRuns, alphas: Mapping[str, float]) -> Iterator[tuple[str, Finding]]:
        runs, limits = cell.runs, limits_of(self.matrix, "cells")
        known: dict[str, Known] = {entry.check: entry for entry in self.matrix.known if entry.cell == case.cell}
        yield from self.cells.scored_of(case, alphas.get("evidence")).scored.items()
        yield "same", self._same(case, cell)
        yield "ends", ends(runs, self.cells.references.of(case))
        for name, check, expected in (
            ("complete", complete, Expectation(longform_of(self.matrix).most_incomplete)),
            ("looping", looping, Expectation(limits.looping, required=limits.detect)),
            ("endless", endless, Expectation(limits.missing, required=limits.detect)),
        ):
            if name in alphas:
                entry = known.get(name)
                known_bad = replace(expected, known=entry.finding, least=entry.share) if entry else expected
                yield name, check(runs, known_bad, alphas[name])

    def _same(self, case: Case, cell: CellRuns) -> Finding:
        if isinstance(cell.shared, str):
            return Finding.skipped("generate", "draw", "no_reference", cell.shared)
        runs = self.cells.references.of(case)
        return same(cell.shared, [runs[place] for place in shared_places(len(runs))])

    def _two_sided(
        self, group: Group, cells: Sequence[CellRuns], alphas: Mapping[str, float]
    ) -> Iterator[tuple[str, Finding]]:
        pairs = zip(group.cases, cells, strict=True)
        engine = [run for _, one in pairs for run in one.runs]
        reference = [run for case in group.cases for run in self.cells.references.of(case)]
        sides = TwoSides.of(engine, reference)
        if not sides.texts:
            yield from ((name, _nothing(alpha)) for name, alpha in alphas.items() if name in WEIGHTS)
            return
        detect = longform_of(self.matrix).detect.get(group.scope, Detect())
        missing = sum(one.problem is not None for one in cells)
        note = f"; without {missing} of {len(cells)} cells, which have no runs" if missing else ""
        for name, finding in two_sided(sides, alphas, detect.share, detect.superiority):
            yield name, replace(finding, message=finding.message + note)


def _nothing(alpha: float) -> Finding:
    return Finding.skipped("generate", "draw", "no_reference", NO_REFERENCE, alpha=alpha)
