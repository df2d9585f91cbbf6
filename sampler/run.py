"""Executing a matrix: generate each cell, put the checks to what came out, give verdicts."""

import importlib.metadata
import platform
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sampler import blas, finch
from sampler.chain.noise import NoiseKey
from sampler.checks.base import Evidence, Finding, Outcome, Step, Verdict, worst
from sampler.checks.draws import allowed, draws
from sampler.checks.equivalence import chain
from sampler.checks.own_ends import stops
from sampler.checks.reproduction import repeats
from sampler.engines.base import Engine, Generates, Generation, Level, Record, Request
from sampler.engines.core import CoreEngine
from sampler.engines.huggingface import HuggingFaceEngine
from sampler.engines.load import load_engine
from sampler.engines.offer import checked_generations, offered
from sampler.engines.reference import ReferenceEngine
from sampler.engines.registry import CORES, known_engines
from sampler.errors import MatrixError, MissingPackage, Unsupported
from sampler.matrix import Case, Matrix, Plan, find_matrix, load_matrix
from sampler.version import __version__

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


@dataclass(frozen=True)
class CaseResult:
    """What became of one cell. steps: by check, the step that shows its failure. tokens: drawn, repeats included.

    requests, generations: what was asked and answered, without logits.
    """

    case: Case
    verdicts: tuple[Verdict, ...]
    steps: Mapping[str, Step]
    tokens: int
    seconds: float
    requests: Sequence[Request] = ()
    generations: Sequence[Generation] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the cell's checks."""
        return worst([verdict.outcome for verdict in self.verdicts])


@dataclass(frozen=True)
class Session:
    """Whom a run asks. engine: a name that `load_engine` knows, None for the core. weights: None for Finch."""

    matrix: Matrix
    seed: int = 0
    engine_name: str | None = None
    weights: Path | None = None

    @cached_property
    def engine(self) -> Engine:
        """The engine under test, loaded once."""
        if self.weights is not None and self.engine_name not in (None, *CORES):
            raise MatrixError(
                f"--weights goes with the core, not with {self.engine_name!r}", hint="leave one of them out"
            )
        return load_engine(self.engine_name or "core", known_engines(self.weights, self.matrix.plan.width))

    @cached_property
    def _oracle(self) -> tuple[Engine | None, str]:
        try:
            return HuggingFaceEngine(), ""
        except MissingPackage as error:
            return None, str(error)

    @cached_property
    def _reference(self) -> ReferenceEngine:
        return ReferenceEngine()

    def prepare(self) -> None:
        """Load everything and look at every request, so that what is wrong shows before the first cell."""
        _ = self._oracle
        for case in self.matrix.cases:
            self.check(case)

    def check(self, case: Case) -> None:
        """Raise what is wrong with the requests of a cell: a text that is empty or too long, a cap beyond the model."""
        requests = self.requests(case)
        if isinstance(self.engine, CoreEngine):
            self.engine.generator.check(requests)

    def run(self, case: Case, on_step: OnStep = lambda tokens, finished: None) -> CaseResult:
        """Run one cell with all checks. What an engine does wrong in it, it does wrong in this cell alone."""
        start = time.perf_counter()
        try:
            evidence = self._evidence(self._asked(case), on_step)
        except Unsupported as error:
            return CaseResult(case, self._all(case, "unavailable", str(error)), {}, 0, 0.0)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine may raise anything; other cells still run
            return CaseResult(case, self._all(case, "errored", _describe(error)), {}, 0, time.perf_counter() - start)
        findings = {name: self._ask(check, level, stage, evidence) for name, check, level, stage in CHECKS}
        tokens = sum(len(generation.tokens) for generation in (*evidence.generations, *evidence.alone))
        return CaseResult(
            case=case,
            verdicts=tuple(self._verdict(case, name, finding) for name, finding in findings.items()),
            steps={name: finding.step for name, finding in findings.items() if finding.step is not None},
            tokens=tokens,
            seconds=time.perf_counter() - start,
            requests=evidence.requests,
            generations=[replace(each, record=_without_logits(each.record)) for each in evidence.generations],
        )

    def _asked(self, case: Case) -> Case:
        """The cell as the engine is to be asked for it. Raises Unsupported where it cannot be."""
        if case.unavailable:
            raise Unsupported(case.unavailable)
        return replace(case, config=offered(self.engine.info, case.config))

    def requests(self, case: Case) -> list[Request]:
        """The requests of a cell, with the suite's noise."""
        info = self.engine.info
        result = []
        for index, text in enumerate(self._prompts(case.plan)):
            key = NoiseKey(self.seed, case.id, index)
            noise = None if info.vocab_size is None else partial(key.gumbel, vocab_size=info.vocab_size)
            seed = int(key.words()[0] >> 1)  # for engines with a generator of their own
            cap, language = case.plan.max_new_tokens, case.plan.language
            result.append(Request(text, case.config, seed, cap, noise=noise, language=language, coin=key.coin))
        return result

    def reproduce(self, case: Case, check: str) -> str:
        """The command that shows one verdict again, as a shell takes it."""
        parts = ["sampler", "replay", f"{case.id}/{check}", "--seed", str(self.seed)]
        if self.engine_name:
            parts += ["--engine", self.engine_name]
        if self.weights:
            parts += ["--weights", str(self.weights)]
        if find_shipped(self.matrix.name) != self.matrix.path.resolve():
            parts += ["--matrix", str(self.matrix.path)]
        return shlex.join(parts)

    def _prompts(self, plan: Plan) -> list[str]:
        if isinstance(plan.prompts, str):
            texts = [prompt.text for prompt in finch.prompts(plan.prompts) if prompt.language == plan.language]
        else:
            texts = plan.prompts
        if len(texts) < plan.count:
            raise MatrixError(
                f"{self.matrix.path}: generation.requests = {plan.requests}", hint=f"there are {len(texts)} prompts"
            )
        return texts[: plan.count]

    def _evidence(self, case: Case, on_step: OnStep) -> Evidence:
        if not isinstance(self.engine, Generates):
            raise Unsupported(f"{self.engine.info.name} does not generate", hint="a matrix runs on generated tokens")
        requests = self.requests(case)
        generations = self._generate(requests, on_step)
        record = generations[0].record
        lonely = replace(requests[0], slot=record.slot if record else None)
        alone = [self._generate([lonely], on_step)[0] for _ in range(2)]
        other = NoiseKey(self.seed, f"{case.id}/other", 0)
        vocab_size = self.engine.info.vocab_size or 0
        noisy = replace(lonely, noise=partial(other.gumbel, vocab_size=vocab_size), coin=other.coin)
        reseeded = replace(noisy, seed=int(other.words()[0] >> 1))
        oracle, missing = self._oracle
        bos = self.engine.info.bos_id
        return Evidence(
            engine=self.engine,
            reference=self._reference,
            oracle=oracle,
            oracle_missing=missing,
            requests=requests,
            generations=generations,
            alone=alone,
            prefix=() if bos is None else (bos,),
            other_noise=lambda: self._generate([noisy], on_step)[0],
            other_seed=lambda: self._generate([reseeded], on_step)[0],
            exact=isinstance(self.engine, CoreEngine),
        )

    def _generate(self, requests: Sequence[Request], on_step: OnStep) -> list[Generation]:
        if isinstance(self.engine, CoreEngine):
            return self.engine.generate(requests, on_step)
        assert isinstance(self.engine, Generates)  # noqa: S101 - _evidence made sure
        generations = checked_generations(self.engine.generate(requests), requests, self.engine.info)
        for generation in generations:
            on_step(len(generation.tokens), 1)
        return generations

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

    def header(self) -> dict[str, Any]:
        """What a run file says first: enough to run it again elsewhere."""
        info = self.engine.info
        oracle, missing = self._oracle
        weights = self.engine.generator.checkpoint.checksum if isinstance(self.engine, CoreEngine) else None
        return {
            "sampler": __version__,
            "matrix": {"name": self.matrix.name, "sha256": self.matrix.checksum, "cells": len(self.matrix.cases)},
            "seed": self.seed,
            "width": self.matrix.plan.width,
            "engine": {"name": info.name, "version": info.version, "device": info.device, "dtype": info.dtype},
            "engine_name": self.engine_name,
            "weights": {"path": str(self.weights) if self.weights else None, "sha256": weights},
            "oracle": oracle.info.version if oracle else missing,
            "mlx": importlib.metadata.version("mlx"),
            "blas": blas.prepare().name,
            "python": platform.python_version(),
            "platform": platform.platform(),
        }


def find_shipped(name: str) -> Path | None:
    """The file of a shipped matrix, None where there is none of that name."""
    try:
        return find_matrix(name).resolve()
    except MatrixError:
        return None


def _without_logits(record: Record | None) -> Record | None:
    return None if record is None else replace(record, logits=None)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def footer(verdicts: Sequence[Verdict], tokens: int, seconds: float) -> dict[str, Any]:
    """What a run file says last."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    return {
        "verdicts": dict(outcomes),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "exit_code": exit_code(verdicts),
    }


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0 agrees, 1 disagrees or errored, 3 where nothing but unavailable came out."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes & {"failed", "errored"}:
        return 1
    return 0 if "passed" in outcomes else 3


def find_case(case_id: str, matrix: Path | None) -> tuple[Matrix, Case, str | None]:
    """Matrix, cell and check that an id names: `matrix/cell` or `matrix/cell/check`.

    Raises MatrixError naming the part that is unknown and the nearest one.
    """
    name, *rest = case_id.split("/")
    if not 1 <= len(rest) <= 2:
        raise MatrixError(f"{case_id!r} is no case", hint="expected matrix/cell or matrix/cell/check")
    loaded = load_matrix(matrix or find_matrix(name))
    if loaded.name != name:
        raise MatrixError(
            f"{case_id} is a case of {name!r}, {loaded.path} is {loaded.name!r}", hint="name its own file"
        )
    case = next((case for case in loaded.cases if case.cell == rest[0]), None)
    if case is None:
        raise MatrixError(f"{loaded.path} has no cell {rest[0]!r}", hint=f"the first one is {loaded.cases[0].cell!r}")
    names = [check for check, *_ in CHECKS]
    if rest[1:] and rest[1] not in names:
        raise MatrixError(f"there is no check {rest[1]!r}", hint=f"checks: {', '.join(names)}")
    return loaded, case, rest[1] if rest[1:] else None
