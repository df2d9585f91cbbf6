"""The suite of a matrix whose cells are judged step by step: every drawn token, and the end of every run."""

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from sampler.chain.noise import NoiseKey
from sampler.checks.longform.runs import TokenRun
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.precision import precision_of
from sampler.checks.steps.repeats import places_of
from sampler.checks.steps.table import CHECKS, StepCheck
from sampler.checks.verdict import ABSOLUTE, SCORED, CaseId, Finding, Verdict
from sampler.engines.base import Engine
from sampler.engines.calls import OnStep
from sampler.engines.capabilities import generate, is_bitwise
from sampler.engines.reference.chain import ReferenceEngine
from sampler.engines.rules import rules_of
from sampler.errors import Unsupported
from sampler.matrix.matrix import ALL, Case, Group
from sampler.requests import Generation, Record, Request
from sampler.run.blocks import apart, block_of, count, shares
from sampler.run.cell_scoring import NOT_ASKED, Scored, scored
from sampler.run.events import CaseResult, CellStarted, Emit, Judged, progress
from sampler.run.groups import limits_of
from sampler.run.known_model import known_model
from sampler.run.pooled import RATE, alphas_of, pooled, spoken
from sampler.run.session import Session

RECORDED_TOGETHER = 1_000_000_000
"""Bytes of logits of cells that are generated together, if every run has its full length."""


@dataclass(frozen=True)
class Generated:
    """A cell's requests and generations.

    reordered, alone, reseeded: see Evidence. seconds: its share of the block's.
    """

    requests: Sequence[Request]
    generations: Sequence[Generation]
    reordered: Mapping[int, Generation]
    alone: Generation | None = None
    reseeded: Generation | None = None
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        again = [one for one in (self.alone, self.reseeded) if one is not None]
        return sum(len(generation.tokens) for generation in (*self.generations, *self.reordered.values(), *again))

    def request(self, place: int) -> Request:
        """One of the requests, for the slot that served it."""
        record = self.generations[place].record
        return replace(self.requests[place], slot=record.slot if record else None)

    @property
    def backwards(self) -> dict[int, Request]:
        """The requests that are generated again, by their places, the last one first."""
        return {place: self.request(place) for place in reversed(places_of(len(self.requests)))}


@dataclass
class StepSuite:
    """Judges every cell alone; cells with the same variant are generated together if the engine allows it.

    rate: of false alarms of all questions together; of the shares of sampled tokens and of scoring each sampled cell
    has the same part. scores: whether the tokens of each cell are scored under the engine's model.
    """

    session: Session
    table: Sequence[StepCheck] = CHECKS
    rate: float = RATE
    scores: bool = True
    _generated: dict[str, Generated] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)
    _runs: dict[str, Sequence[TokenRun]] = field(default_factory=dict)

    @cached_property
    def groups(self) -> Sequence[Group]:
        cases = self.session.matrix.cases
        return [*(Group(case.cell, "cells", (case,)) for case in cases), Group(ALL, "all", cases)]

    @property
    def checks(self) -> Mapping[str, str]:
        return {check.name: check.sentence for check in self.table} | dict(SCORED) | dict(ABSOLUTE)

    @property
    def expected_requests(self) -> int:
        more = 2 - is_bitwise(self.session.engine)  # request 0 with another seed, and alone
        return sum(count(case) + len(places_of(count(case))) + more for case in self.session.matrix.cases)

    def prepare(self, jobs: int = 1) -> None:
        _ = self.session.oracle
        self.session.validate(self.session.matrix.cases, jobs)

    def results(self, emit: Emit, jobs: int = 1) -> None:  # noqa: ARG002 - blocks are generated in sequence
        for group in self.groups:
            emit(CellStarted(group.name))
            self.generate(self.together(group), emit)
            emit(Judged(self.result(group, emit)))

    def together(self, group: Group) -> Sequence[Group]:
        if group.scope == "all":
            return []
        block = {case.cell for case in block_of(self.session.matrix.cases, group.cases[0])}
        return [other for other in self.groups if other.name in block]

    def generate(self, groups: Sequence[Group], emit: Emit) -> None:
        if any(group.name in self._generated for group in groups):
            return  # what is recorded of those is judged, and dropped, first
        untried = [group.cases[0] for group in groups if group.name not in self._tried]
        waiting = self._fitting(untried)
        if not is_bitwise(self.session.engine) or len(waiting) < 2:
            return
        self._tried.update(case.cell for case in waiting)
        start, on_step = time.perf_counter(), progress(emit)
        try:
            engine = self.session.engine_for(waiting[0])
            requests = [self.session.requests(case) for case in waiting]
            answers = apart(generate(engine, list(itertools.chain(*requests)), on_step), requests)
            generated = [Generated(*parts, {}) for parts in zip(requests, answers, strict=True)]
            again = [cell.backwards for cell in generated]
            others = [self._reseeded(case, cell) for case, cell in zip(waiting, generated, strict=True)]
            queues = [*(list(one.values()) for one in again), others]
            *repeated, reseeded = apart(generate(engine, list(itertools.chain(*queues)), on_step), queues)
            reordered = [dict(zip(*pair, strict=True)) for pair in zip(again, repeated, strict=True)]
        except Exception:  # noqa: BLE001 - running each cell alone shows which one failed
            return
        generated = [
            replace(cell, reordered=runs, reseeded=other)
            for cell, runs, other in zip(generated, reordered, reseeded, strict=True)
        ]
        seconds = shares(time.perf_counter() - start, [cell.tokens for cell in generated])
        for case, cell, own in zip(waiting, generated, seconds, strict=True):
            self._generated[case.cell] = replace(cell, seconds=own)

    def _fitting(self, cases: Sequence[Case]) -> list[Case]:
        """As many of the first cells as may be recorded at the same time; tokens do not depend on how many."""
        fitting, size = list[Case](), 0
        for case in cases:
            size += self._bytes(case, count(case))
            if fitting and size > RECORDED_TOGETHER:
                break
            fitting.append(case)
        return fitting

    def _bytes(self, case: Case, runs: int) -> int:
        """Size of what so many runs of a cell record, if each has its full length; at least 1."""
        info = self.session.engine.info
        rows = 2 if info.cfg and "cfg" in case.config.active_stages() else 1
        return max(1, 4 * rows * (info.vocab_size or 0) * case.workload.max_new_tokens * runs)

    def result(self, group: Group, emit: Emit) -> CaseResult:
        if group.scope == "all":
            return self._pooled(group, progress(emit))
        (case,), start, on_step = group.cases, time.perf_counter(), progress(emit)
        try:
            generated = self._generated.pop(case.cell, None) or self._alone(case, on_step)
            self._runs[case.cell] = spoken(case, generated.generations)
            evidence = self._evidence(case, generated, on_step)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything; other cells still run
            seconds = 0.0 if isinstance(error, Unsupported) else time.perf_counter() - start
            answers = {check.name: Finding.of_error(check.level, check.stage, error) for check in self.table}
            return CaseResult(case, self._verdicts(case, answers), {}, 0, seconds)
        findings = {check.name: _ask(check, evidence) for check in self.table}
        tokens = self._scored(case, generated, findings) if self.scores else Scored({})
        return CaseResult(
            case=case,
            verdicts=self._verdicts(case, {**findings, **tokens.findings}),
            steps={name: finding.step for name, finding in findings.items() if finding.step is not None},
            tokens=generated.tokens,
            seconds=time.perf_counter() - start + generated.seconds,
            requests=evidence.requests,
            generations=[replace(one, record=_without_logits(one.record)) for one in evidence.generations],
            scored=tokens.summary,
        )

    def _scored(self, case: Case, generated: Generated, others: Mapping[str, Finding]) -> Scored:
        """The tokens under the engine's model; where records have failed already, they tell more.

        Where the chain takes the likeliest token there is nothing to bet on: any other one is impossible.
        """
        names = ["impossible"] if case.config.greedy else list(SCORED)
        failed = {name for name, finding in others.items() if finding.outcome == "failed"}
        if failed & {"allowed", "draws", "chain", "records"}:
            why = "the recorded steps are wrong already"
            return Scored({name: Finding.skipped("generate", "draw", "after_failure", why) for name in names})
        recorded = all(one.record is not None and one.record.logits is not None for one in generated.generations)
        runs, alpha = spoken(case, generated.generations), self._share("scoring")
        answers = scored(self.session, case, generated.requests, runs, alpha, None, networks=not recorded)
        asked = {name: one for name, one in answers.findings.items() if name in names and one.reason not in NOT_ASKED}
        return answers._replace(findings=asked)

    def _share(self, question: str) -> float:
        """The part of a cell in the budget of a question."""
        return alphas_of(self.rate)[question] / max(1, sum(not one.config.greedy for one in self.session.matrix.cases))

    def _pooled(self, group: Group, on_step: OnStep) -> CaseResult:
        """The absolute limits on the runs of all cells; where a cell has not run here, it is generated for them."""
        start, tokens, matrix = time.perf_counter(), 0, self.session.matrix
        for case in (one for one in group.cases if one.cell not in self._runs):
            with suppress(Exception, SystemExit):  # the verdicts of the cell say what happened
                generations = generate(self.session.engine_for(case), self.session.requests(case), on_step)
                self._runs[case.cell] = spoken(case, generations)
                tokens += sum(len(generation.tokens) for generation in generations)
        runs = [run for case in group.cases for run in self._runs.get(case.cell, ())]
        findings = pooled(runs, limits_of(matrix, "all"), self.rate)
        case = Case(matrix.name, group.name, group.cases[0].config, group.cases[0].workload)
        return CaseResult(case, self._verdicts(case, findings), {}, tokens, time.perf_counter() - start)

    def _alone(self, case: Case, on_step: OnStep) -> Generated:
        """Generate the requests of a cell, and some of them again, without other cells."""
        engine, requests = self.session.engine_for(case), self.session.requests(case)
        made = Generated(requests, generate(engine, requests, on_step), {})
        alone = None if is_bitwise(engine) else generate(engine, [made.request(0)], on_step)[0]
        reseeded = generate(engine, [self._reseeded(case, made)], on_step)[0]
        return replace(made, reordered=_reordered(engine, made, on_step), alone=alone, reseeded=reseeded)

    def _reseeded(self, case: Case, generated: Generated) -> Request:
        """Request 0 with another seed and other noise, for any slot."""
        return self._with_key(generated.request(0), self.session.other_key(case))

    def _with_key(self, request: Request, key: NoiseKey) -> Request:
        """The request with the seed and the noise of a key, for any slot."""
        return replace(self.session.with_noise(request, key), seed=int(key.words()[0] >> 1), slot=None)

    def _evidence(self, case: Case, generated: Generated, on_step: OnStep) -> Evidence:
        engine, other = self.session.engine_for(case), self.session.other_key(case)
        first, reseeded = generated.request(0), generated.reseeded
        noisy = self.session.with_noise(first, other)
        rules = rules_of(engine.info.dialect, engine.info.rules)
        # HuggingFace's processors cannot follow another rule.
        oracle, missing = (ReferenceEngine(rules=rules), "") if rules else self.session.oracle
        known = known_model(self.session, case, engine)
        precision = precision_of(engine.info.dtype, generated.generations)
        bos = self.session.engine.info.bos_id
        return Evidence(
            engine=engine,
            reference=ReferenceEngine(precision.rounding, rules),
            oracle=oracle,
            oracle_missing=missing,
            requests=generated.requests,
            generations=generated.generations,
            reordered=generated.reordered,
            alone=generated.alone,
            reorder=lambda: _reordered(engine, generated, on_step),
            repeat=lambda: generate(engine, [first], on_step)[0],
            prefix=() if bos is None else (bos,),
            other_noise=lambda: generate(engine, [noisy], on_step)[0],
            other_seed=None if reseeded is None else lambda: reseeded,
            exact=is_bitwise(engine),
            reseeded=reseeded,
            model=known.model,
            model_name=known.name,
            analyzed=known.analyzed,
            alpha=self._share("tokens"),
            further=lambda first, count: self._further(case, engine, first, count, on_step),
        )

    def _further(
        self, case: Case, engine: Engine, first: int, wanted: int, on_step: OnStep
    ) -> tuple[Sequence[Request], Sequence[Generation]]:
        """Runs of the cell's texts in turn, with seeds that no other request has, as many as may be recorded."""
        texts = self.session.requests(case)
        most = max(1, RECORDED_TOGETHER // self._bytes(case, 1))
        requests = [
            self._with_key(texts[place % len(texts)], NoiseKey(self.session.seed, f"{case.id}/further", place))
            for place in range(first, first + min(wanted, most))
        ]
        return requests, generate(engine, requests, lambda tokens, _: on_step(tokens, 0))

    def _verdicts(self, case: Case, findings: dict[str, Finding]) -> tuple[Verdict, ...]:
        ids = {name: CaseId(case.matrix, case.cell, name) for name in findings}
        return tuple(
            finding.verdict(ids[name], self.session.reproduce(str(ids[name]))).doubted(self.rate)
            for name, finding in findings.items()
        )


def _ask(check: StepCheck, evidence: Evidence) -> Finding:
    try:
        return check.ask(evidence)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the other checks still run
        return Finding.of_error(check.level, check.stage, error)


def _reordered(engine: Engine, generated: Generated, on_step: OnStep) -> dict[int, Generation]:
    """Some requests of a cell again, in the reverse order."""
    again = generated.backwards
    return dict(zip(again, generate(engine, list(again.values()), on_step), strict=True))


def _without_logits(record: Record | None) -> Record | None:
    return None if record is None else replace(record, logits=None)
