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

from sampler.blocks import blocks_of, count
from sampler.case_result import CaseResult
from sampler.cell_runs import CellRuns
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
from sampler.prompts import prompts_of
from sampler.results.reference_runs import ReferenceRuns, as_kept, read_reference, shipped_reference
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
        blocks = {block[0].cell: block for block in blocks_of(self.matrix.cases)}
        for case in self.matrix.cases:
            if case.cell not in self._made:
                on_cell(case.cell)
            self.generate_block(blocks.get(case.cell, (case,)))
        for group in groups_of(self.matrix):
            yield self.result(group)

    def generate_block(self, cases: Sequence[Case]) -> None:
        """Generate cells that were not yet: the core's at once, another engine's one after the other."""
        waiting = [case for case in cases if case.cell not in self._made]
        if isinstance(self.session.engine, CoreEngine):
            self._made |= self.generate_together(waiting) if len(waiting) > 1 else {}
            for case in waiting:
                self.runs_of(case)
        else:
            self.runs_of(cases[0])

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
        self, case: Case, requests: Sequence[Request], made: Sequence[Generation]
    ) -> "tuple[TokenRun, ...] | str":
        """The runs with the reference's noise, or why they are none."""
        theirs = self.reference_of(case)
        pairs = [(theirs[place], each) for place, each in zip(shared_places(len(theirs)), made, strict=True)]
        runs = tuple(token_run(their.text, each) for their, each in pairs)
        parted = any(parting(run.tokens, their.tokens) for run, (their, _) in zip(runs, pairs, strict=True))
        return IGNORES_NOISE if parted and self._ignores_noise(case, requests[0], made[0]) else runs

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
        asked = [(case, self.session.requests(case), self._shared_requests(case)) for case in cases]
        queues = [[*own, *([] if isinstance(shared, str) else shared)] for _, own, shared in asked]
        try:
            answers = iter(self.session.answers(cases[0], list(itertools.chain(*queues)), self.on_step))
        except Exception:  # noqa: BLE001
            return {}
        made = {}
        for (case, own, shared), queue in zip(asked, queues, strict=True):
            answered = [next(answers) for _ in queue]
            cell = self._cell_runs(case, own, answered[: len(own)])
            made[case.cell] = replace(cell, shared=self._judge_shared(case, shared, answered[len(own) :]))
        seconds, tokens = time.perf_counter() - start, sum(each.tokens for each in made.values())
        return {name: replace(each, seconds=seconds * each.tokens / max(tokens, 1)) for name, each in made.items()}

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
        made = self._cell_runs(case, requests, generations)
        return replace(made, shared=self._judge_shared(case, None, ()), seconds=time.perf_counter() - start)

    def _judge_shared(
        self, case: Case, requests: "list[Request] | str | None", made: Sequence[Generation]
    ) -> "tuple[TokenRun, ...] | str":
        """What came of the runs with the reference's noise; requests: None where they are still to be made."""
        try:
            if requests is None:
                requests = self._shared_requests(case)
                made = [] if isinstance(requests, str) else self.session.answers(case, requests, self.on_step)
            return requests if isinstance(requests, str) else self._shared(case, requests, made)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the runs that are there are judged all the same
            return f"runs with the reference's noise: {type(error).__name__}: {error}"

    def _cell_runs(self, case: Case, requests: Sequence[Request], generations: Sequence[Generation]) -> CellRuns:
        prompts = [prompt for prompt in prompts_of(case.plan) for _ in range(case.plan.runs)]
        runs = [
            as_kept(token_run(f"{case.cell} {prompt.id}", generation, float(prompt.tokens) if prompt.tokens else None))
            for prompt, generation in zip(prompts, generations, strict=True)
        ]
        return CellRuns(tuple(requests), tuple(_without_attention(each) for each in generations), tuple(runs))


def shared_places(runs: int) -> list[int]:
    """Which of a cell's reference runs are spoken again."""
    return sorted({0, runs - 1})[:SHARED]


def _nothing(alpha: float) -> Finding:
    return Finding("generate", "draw", "unavailable", 0, NO_REFERENCE, alpha=alpha)


def _without_attention(generation: Generation) -> Generation:
    """A generation without what is large: a picture generates it once more."""
    record = generation.record
    return generation if record is None else replace(generation, record=replace(record, logits=None, attention=None))
