"""Reproduce a verdict: by running its cell, or from a crash file alone."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sampler.checks.steps.chain import LARGEST_VARIATION, ChainComparison
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.recorded import recorded_steps
from sampler.checks.steps.sampled import allowed, draws
from sampler.checks.verdict import CaseId, Finding, Verdict
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo, Level
from sampler.engines.limits import DEFAULT_LIMITS, Limits
from sampler.engines.reference.chain import ReferenceEngine
from sampler.errors import MatrixError, nearest
from sampler.matrix.matrix import find_matrix, load_matrix
from sampler.requests import Generation, Logits, Record, Request, Steps
from sampler.results.store.crash import read_crash
from sampler.results.store.folder import settle
from sampler.run.session import Session
from sampler.run.suite import find_group, ignore_event, suite_of

LEVELS: tuple[Level, ...] = get_args(Level)
"""The first part of case ids of `sampler check`."""


def replay_case(
    case_id: str,
    seed: int,
    engine: str | None = None,
    weights: Path | None = None,
    matrix: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Verdict]:
    """Run one cell again and return the verdict of the named check, or all of the cell's."""
    path, cell, check = find_case(case_id, matrix)
    with closing(Session(load_matrix(path), seed, engine, weights, limits)) as session:
        suite = suite_of(session)
        group = find_group(suite, cell)
        session.validate(group.cases)
        result = suite.result(group, ignore_event)
    return [verdict for verdict in result.verdicts if check in (None, verdict.check)]


def find_case(case_id: str, matrix: Path | None) -> tuple[Path, str, str | None]:
    """Matrix file, cell and check of `matrix/cell` or `matrix/cell/check`; a cell may be an axis or `all`.

    Raises MatrixError naming the unknown part and the nearest known one.
    """
    name, *rest = case_id.split("/")
    if not 1 <= len(rest) <= 2:
        raise MatrixError(f"{case_id!r} is no case", hint="expected matrix/cell or matrix/cell/check")
    loaded = load_matrix(matrix or find_matrix(name))
    if loaded.name != name:
        raise MatrixError(
            f"{case_id} is a case of {name!r}, {loaded.path} is {loaded.name!r}", hint="name its own file"
        )
    suite = suite_of(Session(loaded))
    cell, check = find_group(suite, rest[0]).name, rest[1] if rest[1:] else None
    if check not in (None, *suite.checks):
        raise MatrixError(f"there is no check {check!r}", hint=nearest(str(check), suite.checks))
    return loaded.path, cell, check


def replay_check(
    case_id: str,
    seed: int,
    engine: str | None,
    limits: Limits = DEFAULT_LIMITS,
    against: str | None = None,
    **settings: Any,
) -> list[Verdict]:
    """Run one check of `sampler check` again: `level/cell/check`, or all of a cell.

    against, settings: those of the run (ConformanceRun). Raises MatrixError for an unknown case.
    """
    from sampler.run.conformance import check_engine

    level = next(name for name in LEVELS if name == case_id.partition("/")[0])
    cell = "/".join(case_id.split("/")[:2])
    with check_engine(engine or "core", against, limits, levels=(level,), seed=seed, only=cell, **settings) as run:
        report = run.run()
    found = [verdict for verdict in report.verdicts if case_id in (verdict.case, cell)]
    if not found:
        raise MatrixError(f"there is no case {case_id!r}", hint="`sampler check ENGINE --json FILE` lists all of them")
    return found


def replay_crash(path: Path) -> tuple[dict[str, Any], list[Verdict]]:
    """Judge the recorded step again with only the float64 reference: no model, no engine, any backend.

    Returns the recorded description of the failure, and the verdicts about the step alone.
    """
    settle(path.parent.parent)
    content, step = read_crash(path)
    recorded = _Recorded(step)
    reference = ReferenceEngine()
    runs = [recorded.request], [recorded.generation]
    evidence = Evidence(recorded, reference, None, "", *runs, prefix=tuple(step.history[0]))
    findings = {"allowed": allowed(evidence), "draws": draws(evidence)}
    if step.scores is not None:
        findings["chain"] = _judge_scores(recorded, reference, evidence, str(content["stage"]))
    case = CaseId.parse(content["case"])
    verdicts = [
        finding.verdict(replace(case, check=name), f"sampler replay {path}") for name, finding in findings.items()
    ]
    return content, verdicts


def _judge_scores(recorded: "_Recorded", reference: ReferenceEngine, evidence: Evidence, stage: str) -> Finding:
    """Compare the recorded scores with those of the reference."""
    compared = ChainComparison(recorded, reference, reference, next(recorded_steps(evidence)))
    variation = float(compared.variation[0])
    bad = variation > LARGEST_VARIATION
    message = f"the recorded scores are {variation:.3g} from the reference's in total variation"
    if bad:
        message = f"the recorded scores are not the reference's; {compared.describe(0)}"
    return Finding("process", stage, "failed" if bad else "passed", 1, message, variation, LARGEST_VARIATION)


class _Recorded:
    """An engine that can only repeat the recorded answer at one step."""

    info = EngineInfo(name="recorded", version="")

    def __init__(self, step: Steps) -> None:
        rows = [step.logits[0]] if step.uncond_logits is None else [step.logits[0], step.uncond_logits[0]]
        empty = np.zeros(0, dtype=np.float32)
        record = Record(empty, empty.astype(np.int32), empty, empty, 0, 1, logits=np.stack(rows)[None])
        noise = np.asarray(step.gumbel)[0]
        self.request = Request((), step.config, 0, 1, noise=lambda at: noise)
        self.generation = Generation((int(step.tokens[0]),), "length", record)
        self._scores = step.scores

    def process(
        self,
        logits: Logits,  # noqa: ARG002 - the answer is always the same
        history: Sequence[Sequence[int]],  # noqa: ARG002
        config: SamplingConfig,  # noqa: ARG002
        uncond_logits: Logits | None = None,  # noqa: ARG002
    ) -> Logits:
        return np.asarray(self._scores)
