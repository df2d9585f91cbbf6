"""Executing a matrix: generate each cell, put the checks to what came out, give verdicts."""

import itertools
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from sampler.chain.noise import NoiseKey, RequestNoise
from sampler.checks.steps.chain import chain
from sampler.checks.steps.repeats import repeats
from sampler.checks.steps.sampled import allowed, draws
from sampler.checks.steps.stops import stops
from sampler.checks.verdict import Evidence, Finding, Outcome, Verdict
from sampler.engines.base import Engine, Generates, Generation, Level, Record, Request
from sampler.engines.capabilities import checked_generations, offered
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface.chain import HuggingFaceEngine
from sampler.engines.load import load_engine
from sampler.engines.reference.chain import ReferenceEngine
from sampler.engines.registry import CORES, known_engines
from sampler.errors import MatrixError, MissingPackage, Unsupported
from sampler.matrix.matrix import Case, Matrix, is_shipped
from sampler.results.store.reference_runs import check_reference
from sampler.run.blocks import apart, shares, slots_of
from sampler.run.events import CaseResult, Generated
from sampler.run.prompts import prompts_of
from sampler.runtime import blas
from sampler.variants import variant

Check = Callable[[Evidence], Finding]
CHECKS: tuple[tuple[str, Check, Level, str], ...] = (
    ("allowed", allowed, "draw", "draw"),
    ("draws", draws, "draw", "draw"),
    ("chain", chain, "process", "order"),
    ("repeats", repeats, "generate", "seed"),
    ("stops", stops, "generate", "stop"),
)
"""Name, function, and the level and stage that stand in the verdict if the check could not be asked at all."""

OnStep = Callable[[int, int], None]
OnCell = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """Whom a run asks. engine: a name that `load_engine` knows, None for the core. weights: None for Finch."""

    matrix: Matrix
    seed: int = 0
    engine_name: str | None = None
    weights: Path | None = None
    _made: dict[str, Generated] = field(default_factory=dict, repr=False, compare=False)
    _tried: set[str] = field(default_factory=set, repr=False, compare=False)

    @cached_property
    def engine(self) -> Engine:
        """The engine under test, loaded once."""
        if self.weights is not None and self.engine_name not in (None, *CORES):
            raise MatrixError(
                f"--weights goes with the core, not with {self.engine_name!r}", hint="leave one of them out"
            )
        return load_engine(self.engine_name or "core", known_engines(self.weights, self.matrix.workload.width))

    @cached_property
    def oracle(self) -> tuple[Engine | None, str]:
        """HuggingFace's processors, or None and why they are missing."""
        try:
            return HuggingFaceEngine(), ""
        except MissingPackage as error:
            return None, str(error)

    @cached_property
    def _reference(self) -> ReferenceEngine:
        return ReferenceEngine()

    def prepare(self, processes: int = 1) -> None:
        """Load everything and look at every request, so that what is wrong shows before the first cell.

        processes: how many will generate blocks beside each other.
        """
        if self.matrix.longform:
            from sampler.run.groups import alphas_of

            alphas_of(self.matrix)  # what is wrong with the questions shows here
            check_reference(self.matrix.path.parent, self.matrix.longform.reference)
        _ = self.oracle
        for case in self.matrix.cases:
            self.validate(case, processes)

    def validate(self, case: Case, processes: int = 1) -> None:
        """Raise what is wrong with the requests of a cell: an empty or too long text, a cap beyond model or memory."""
        requests = self.requests(case)
        engine = self.engine
        if isinstance(engine, CoreEngine):
            generator = _following(case, engine).generator
            generator.check_memory(requests, generator.tokenize(requests), processes)

    def run(self, case: Case, on_step: OnStep = lambda tokens, finished: None) -> CaseResult:
        """Run one cell with all checks. What an engine does wrong in it, it does wrong in this cell alone."""
        start = time.perf_counter()
        made = self._made.pop(case.cell, None)
        try:
            asked = self._asked(case)
            made = made or self._generate_alone(asked, on_step)
            evidence = self._evidence(asked, made, on_step)
        except Unsupported as error:
            return CaseResult(case, self._all(case, "unavailable", str(error)), {}, 0, 0.0)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything; other cells still run
            return CaseResult(case, self._all(case, "errored", _describe(error)), {}, 0, time.perf_counter() - start)
        findings = {name: self._ask(check, level, stage, evidence) for name, check, level, stage in CHECKS}
        return CaseResult(
            case=case,
            verdicts=tuple(self._verdict(case, name, finding) for name, finding in findings.items()),
            steps={name: finding.step for name, finding in findings.items() if finding.step is not None},
            tokens=made.tokens,
            seconds=time.perf_counter() - start + made.seconds,
            requests=evidence.requests,
            generations=[replace(each, record=_without_logits(each.record)) for each in evidence.generations],
        )

    def generate_together(self, cases: Sequence[Case], on_step: OnStep = lambda tokens, finished: None) -> None:
        """Generate cells of a block at once, for `run` to take up; only the core can.

        What goes wrong here is left to `run`, where it is the error of the cell that has it.
        """
        engine = self.engine
        waiting = [case for case in cases if case.cell not in self._tried]
        if not isinstance(engine, CoreEngine) or len(waiting) < 2:
            return
        self._tried.update(case.cell for case in waiting)
        start = time.perf_counter()
        try:
            following = _following(cases[0], engine)
            asked = [self.requests(self._asked(case)) for case in waiting]
            made = apart(following.generate(list(itertools.chain(*asked)), on_step), asked)
            lonely = [_in_its_slot(requests[0], answers[0]) for requests, answers in zip(asked, made, strict=True)]
            alone = zip(*(following.generate(lonely, on_step) for _ in range(2)), strict=True)
        except Exception:  # noqa: BLE001 - a cell by itself says which of them it is
            return
        generated = [Generated(*each) for each in zip(asked, made, alone, strict=True)]
        seconds = shares(time.perf_counter() - start, [each.tokens for each in generated])
        for case, each, own in zip(waiting, generated, seconds, strict=True):
            self._made[case.cell] = replace(each, seconds=own)

    def _generate_alone(self, case: Case, on_step: OnStep) -> Generated:
        engine = self.engine_for(case)
        if not isinstance(engine, Generates):
            raise Unsupported(f"{engine.info.name} does not generate", hint="a matrix runs on generated tokens")
        requests = self.requests(case)
        generations = _generate(engine, requests, on_step)
        lonely = _in_its_slot(requests[0], generations[0])
        return Generated(requests, generations, [_generate(engine, [lonely], on_step)[0] for _ in range(2)])

    def _asked(self, case: Case) -> Case:
        """The cell as the engine is to be asked for it. Raises Unsupported where it cannot be."""
        return replace(case, config=offered(self.engine.info, case.config))

    def requests(self, case: Case) -> list[Request]:
        """The requests of a cell, with the suite's noise."""
        prompts = [prompt for prompt in prompts_of(case.workload) for _ in range(case.workload.runs)]
        return self.requests_of(
            [(prompt.id, NoiseKey(self.seed, case.id, index)) for index, prompt in enumerate(prompts)], case
        )

    def requests_of(self, runs: Iterable[tuple[str, NoiseKey]], case: Case, first: int = 0) -> list[Request]:
        """Requests for prompts of a cell, by their ids, each with noise of a key; first: number of the first one."""
        info, prompts, runs = self.engine.info, {prompt.id: prompt for prompt in prompts_of(case.workload)}, list(runs)
        slots: Sequence[int | None] = [None] * len(runs)
        if isinstance(self.engine, CoreEngine):
            slots = slots_of(self.matrix.cases, case, len(runs), self.engine.generator.width, first)
        result = []
        for (name, key), slot in zip(runs, slots, strict=True):
            prompt = prompts[name]
            noise = None if info.vocab_size is None else RequestNoise(key, info.vocab_size)
            seed = int(key.words()[0] >> 1)  # for engines with a generator of their own
            cap = case.workload.max_new_tokens
            result.append(
                Request(prompt.text, case.config, seed, cap, noise, prompt.language, slot=slot, uniform=key.uniform)
            )
        return result

    def engine_for(self, case: Case) -> Engine:
        """The engine as a cell wants it. Raises Unsupported where it cannot be told to follow a variant."""
        engine = self.engine
        if isinstance(engine, CoreEngine):
            return _following(case, engine)
        # Another engine is taken to be what the base of the matrix says.
        if case.variant and case.variant != self.matrix.base_variant:
            raise Unsupported(f"{engine.info.name} cannot be told to follow the variant {case.variant}")
        return engine

    def answers(self, case: Case, requests: Sequence[Request], on_step: OnStep) -> list[Generation]:
        """What the engine generates for a long-form cell, with attention where it can record it, without logits."""
        engine = self.engine_for(self._asked(case))
        if not isinstance(engine, Generates):
            raise Unsupported(f"{engine.info.name} does not generate", hint="a matrix runs on generated tokens")
        if isinstance(engine, CoreEngine):
            heads = bool(engine.generator.checkpoint.config.aligned_heads)
            engine = CoreEngine(replace(engine.generator, keep_logits=False, keep_attention=heads))
        return _generate(engine, requests, on_step)

    def reproduce(self, case: Case, check: str) -> str:
        """The command that shows one verdict again, as a shell takes it."""
        parts = ["sampler", "replay", f"{case.id}/{check}", "--seed", str(self.seed)]
        if self.engine_name:
            parts += ["--engine", self.engine_name]
        if self.weights:
            parts += ["--weights", str(self.weights)]
        if not is_shipped(self.matrix):
            parts += ["--matrix", str(self.matrix.path)]
        threads = blas.threads_by_setting()
        if threads is not None and (self.engine_name is None or self.engine_name in CORES):
            parts += ["--threads", str(threads)]
        return shlex.join(parts)

    def _evidence(self, case: Case, made: Generated, on_step: OnStep) -> Evidence:
        engine, lonely = self.engine_for(case), _in_its_slot(made.requests[0], made.generations[0])
        other = NoiseKey(self.seed, f"{case.id}/other", 0)
        vocab_size = self.engine.info.vocab_size or 0
        noisy = replace(lonely, noise=RequestNoise(other, vocab_size), uniform=other.uniform)
        reseeded = replace(noisy, seed=int(other.words()[0] >> 1))
        oracle, missing = self.oracle
        bos = self.engine.info.bos_id
        return Evidence(
            engine=engine,
            reference=self._reference,
            oracle=oracle,
            oracle_missing=missing,
            requests=made.requests,
            generations=made.generations,
            alone=made.alone,
            prefix=() if bos is None else (bos,),
            other_noise=lambda: _generate(engine, [noisy], on_step)[0],
            other_seed=lambda: _generate(engine, [reseeded], on_step)[0],
            exact=isinstance(engine, CoreEngine),
        )

    def _ask(self, check: Check, level: Level, stage: str, evidence: Evidence) -> Finding:
        try:
            return check(evidence)
        except Unsupported as error:
            return Finding(level, stage, "unavailable", 0, str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other checks still run
            return Finding(level, stage, "errored", 0, _describe(error))

    def _all(self, case: Case, outcome: Outcome, message: str) -> tuple[Verdict, ...]:
        return tuple(
            self._verdict(case, name, Finding(level, stage, outcome, 0, message)) for name, _, level, stage in CHECKS
        )

    def _verdict(self, case: Case, check: str, finding: Finding) -> Verdict:
        return finding.verdict(case.id, check, self.reproduce(case, check))


def _in_its_slot(request: Request, generation: Generation) -> Request:
    """The same request, for the slot in which it was served."""
    return replace(request, slot=generation.record.slot if generation.record else None)


def _following(case: Case, engine: CoreEngine) -> CoreEngine:
    return CoreEngine(replace(engine.generator, **variant(case.variant).rules())) if case.variant else engine


def _generate(engine: Engine, requests: Sequence[Request], on_step: OnStep) -> list[Generation]:
    if isinstance(engine, CoreEngine):
        return engine.generate(requests, on_step)
    assert isinstance(engine, Generates)  # noqa: S101 - the callers made sure
    generations = checked_generations(engine.generate(requests), requests, engine.info)
    for generation in generations:
        on_step(len(generation.tokens), 1)
    return generations


def _without_logits(record: Record | None) -> Record | None:
    return None if record is None else replace(record, logits=None)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
