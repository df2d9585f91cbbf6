"""Showing a verdict again: by running its cell, or from a crash file alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sampler.checks.steps.chain import LARGEST_VARIATION, ChainComparison
from sampler.checks.steps.recorded import recorded_steps
from sampler.checks.steps.sampled import allowed, draws
from sampler.checks.verdict import Evidence, Finding, Step, Verdict
from sampler.config import SamplingConfig
from sampler.engines.base import EngineInfo, Generation, Level, Logits, Record, Request
from sampler.engines.reference.chain import ReferenceEngine
from sampler.errors import MatrixError
from sampler.results.store.crash import read_crash
from sampler.run.cases import find_case
from sampler.run.session import Session

LEVELS: tuple[Level, ...] = get_args(Level)
"""What the ids of `sampler check` begin with."""


def replay_case(
    case_id: str, seed: int, engine: str | None = None, weights: Path | None = None, matrix: Path | None = None
) -> list[Verdict]:
    """Run one cell again and return the verdict of the named check, or all of the cell's."""
    loaded, cell, check = find_case(case_id, matrix)
    session = Session(loaded, seed, engine, weights)
    if loaded.longform:
        from sampler.run.groups import find_group
        from sampler.run.longform import LongFormRun

        group = find_group(loaded, cell)
        for each in group.cases:
            session.validate(each)
        result = LongFormRun(session).result(group)
    else:
        case = next(each for each in loaded.cases if each.cell == cell)
        session.validate(case)
        result = session.run(case)
    return [verdict for verdict in result.verdicts if check in (None, verdict.check)]


def replay_check(case_id: str, seed: int, engine: str | None, rate: float, tolerance: float) -> list[Verdict]:
    """Put one question of `sampler check` again: `level/cell/check`, or all of a cell.

    rate, tolerance: those of the run, which fix the alpha. Raises MatrixError for a case that there is not.
    """
    from sampler.engines.isolation import Isolated
    from sampler.engines.registry import load_known
    from sampler.run.conformance import ConformanceRun

    level = next(each for each in LEVELS if each == case_id.partition("/")[0])
    cell = "/".join(case_id.split("/")[:2])
    client = Isolated(partial(load_known, engine or "core"))
    try:
        report = ConformanceRun(client, engine or "core", (level,), seed, rate, tolerance, only=cell).run()
    finally:
        client.close()
    found = [verdict for verdict in report.verdicts if case_id in (verdict.case, cell)]
    if not found:
        raise MatrixError(f"there is no case {case_id!r}", hint="`sampler check ENGINE --json FILE` lists all of them")
    return found


def replay_crash(path: Path) -> tuple[dict[str, Any], list[Verdict]]:
    """Judge the recorded step again, with the float64 reference alone: no model, no engine, any backend.

    Returns what was recorded of the failure, and what the step by itself shows.
    """
    content, step = read_crash(path)
    recorded = _Recorded(step)
    reference = ReferenceEngine()
    evidence = Evidence(recorded, reference, None, "", [recorded.request], [recorded.generation], prefix=step.history)
    findings = {"allowed": allowed(evidence), "draws": draws(evidence)}
    if step.scores is not None:
        findings["chain"] = _judge_scores(recorded, reference, evidence, str(content["stage"]))
    cell = str(content["case"]).rsplit("/", 1)[0]
    verdicts = [finding.verdict(cell, name, f"sampler replay {path}") for name, finding in findings.items()]
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
    """Stands where an engine stands: it can only say again what an engine did at one step."""

    info = EngineInfo(name="recorded", version="")

    def __init__(self, step: Step) -> None:
        rows = [step.logits] if step.uncond_logits is None else [step.logits, step.uncond_logits]
        empty = np.zeros(0, dtype=np.float32)
        record = Record(empty, empty.astype(np.int32), empty, empty, 0, 1, logits=np.stack(rows)[None])
        self.request = Request((), step.config, 0, 1, noise=lambda at: step.gumbel)
        self.generation = Generation((step.token,), "length", record)
        self._scores = step.scores

    def process(
        self,
        logits: Logits,  # noqa: ARG002 - the same answer to every question
        history: Sequence[Sequence[int]],  # noqa: ARG002
        config: SamplingConfig,  # noqa: ARG002
        uncond_logits: Logits | None = None,  # noqa: ARG002
    ) -> Logits:
        """The recorded scores, (1, V)."""
        assert self._scores is not None  # noqa: S101 - asked only where there are some
        return self._scores[None]
