"""`run_conformance(engine)`: one line for the tests of an engine's author."""

from collections.abc import Iterator, Sequence
from typing import Any

from sampler.engines.base import Engine, Level
from sampler.engines.isolation import Local
from sampler.errors import ConfigError
from sampler.run.conformance import LEVELS, ConformanceRun
from sampler.run.report import Report


def examine(engine: Engine, **settings: Any) -> Report:
    """Run the checks on an engine object in this process; settings as in ConformanceRun."""
    return ConformanceRun(Local(engine), engine.info.name, **settings).run()


class Disagreement(AssertionError):
    """An engine does not conform; the text has its verdicts and the diagnosis."""


def run_conformance(engine: Engine, *, levels: Sequence[Level] = ("process", "draw"), seed: int = 0) -> Report:
    """Run every check that an engine supports.

    Raises Disagreement with the diagnosis if a verdict failed or errored, or if nothing could be tested.
    """
    for level in levels:
        if level not in LEVELS:
            raise ConfigError(f"{level!r} is no level", hint=f"levels: {', '.join(LEVELS)}")
    report = examine(engine, levels=tuple(levels), seed=seed)
    if report.outcome != "agrees":
        raise Disagreement("\n".join(describe(report)))
    return report


def describe(report: Report) -> Iterator[str]:
    """A report as lines: outcome, causes, failures."""
    yield f"{report.info.name} {report.info.version}: {report.outcome}"
    for cause in report.diagnosis:
        yield f"  {cause.explanation}"
    for verdict in report.verdicts:
        if verdict.outcome in ("failed", "errored"):
            yield f"  {verdict.outcome} {verdict.case} (stage {verdict.stage}): {verdict.message}"
