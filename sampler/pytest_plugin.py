"""Run a matrix under pytest with one item per cell, so that -k, -x and -n work as usual."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sampler.checks.verdict import Verdict, exit_code, overall
from sampler.engines.limits import Limits
from sampler.errors import SamplerError
from sampler.matrix.matrix import Group, load_matrix, shipped_folder
from sampler.results.report import terminal
from sampler.results.report.console import plain_console
from sampler.run.session import Session
from sampler.run.suite import Suite, ignore_event, suite_of
from sampler.runtime import blas
from sampler.runtime.text import LONG, visible


def add_options(group: pytest.OptionGroup) -> None:
    """Add `--seed`, `--engine`, `--weights`, `--timeout` and `--memory`, as in `sampler run`."""
    group.addoption("--seed", type=int, default=0, help="seed of the cells (default 0)")
    group.addoption("--engine", default=None, help="core, package.module:factory or file.py:factory")
    group.addoption("--weights", type=Path, default=None, help="folder with upstream's own files")
    group.addoption("--timeout", type=float, default=None, help="seconds of one call of an engine of your own")
    group.addoption("--memory", type=float, default=None, help="GiB of an engine of your own and its children")


def header(config: pytest.Config) -> str:
    """Seed and BLAS, for the header of the report."""
    return f"sampler: seed {config.getoption('--seed')}, BLAS {blas.prepare().name}"


def collect(parent: pytest.Collector, path: Path) -> pytest.File | None:
    """Collect a shipped matrix, or a TOML file named on the command line; ignore other TOML files."""
    named = {Path(argument.split("::")[0]).resolve() for argument in parent.config.args}
    if path.suffix != ".toml" or (path.parent != shipped_folder() and path not in named):
        return None
    file: pytest.File = MatrixFile.from_parent(parent, path=path)
    return file


class MatrixFile(pytest.File):
    """A matrix file; collects one item per group of cells, which share one suite, so the model is loaded once."""

    def collect(self) -> Iterator[pytest.Item]:
        config = self.config
        try:
            matrix = load_matrix(self.path)
            limits = Limits(config.getoption("--timeout"), config.getoption("--memory"))
        except SamplerError as error:
            raise self.CollectError(visible(str(error), LONG)) from error
        seed, engine, weights = (config.getoption(f"--{name}") for name in ("seed", "engine", "weights"))
        session = Session(matrix, seed, engine, weights, limits)
        config.add_cleanup(session.close)
        suite = suite_of(session)
        for group in suite.groups:
            yield GroupItem.from_parent(self, name=group.name, suite=suite, group=group)


class GroupFailure(Exception):
    """At least one check of a group failed or errored."""


class GroupItem(pytest.Item):
    """One cell, or cells that are judged together: the checks and the verdicts of `sampler run`."""

    def __init__(self, *, suite: Suite, group: Group, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.suite, self.group = suite, group
        self.case_id = f"{suite.session.matrix.name}/{group.name}"

    def runtest(self) -> None:
        """Fail if a check failed or errored, skip if one has no answer."""
        self.suite.session.validate(self.group.cases)
        self.suite.generate(self._together(), ignore_event)
        result = self.suite.result(self.group, ignore_event)
        self.user_properties.extend(("verdict", asdict(verdict)) for verdict in result.verdicts)
        self.user_properties.append(("generated", (result.tokens, result.seconds)))
        notes = "\n".join(note.plain for note in terminal.verdict_notes(result.verdicts))
        if result.outcome in ("failed", "errored"):
            raise GroupFailure(notes)
        if result.outcome in ("inconclusive", "skipped"):
            pytest.skip(notes)

    def _together(self) -> list[Group]:
        """The groups generated at once that run in this process; with xdist that is unknown."""
        if hasattr(self.config, "workerinput"):
            return [self.group]
        items = [item for item in self.session.items if isinstance(item, GroupItem) and item.parent is self.parent]
        return [group for group in self.suite.together(self.group) if any(item.group is group for item in items)]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: object) -> str:
        """Show a finding, or a user's mistake, as text without a traceback."""
        if isinstance(excinfo.value, GroupFailure):
            return str(excinfo.value)
        if isinstance(excinfo.value, SamplerError):
            return visible(str(excinfo.value), LONG)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.case_id


def finish(session: pytest.Session) -> None:
    """Give the run the exit code 3 where its verdicts tell too little, as `sampler run` does; a skip alone gives 0."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    verdicts = _verdicts(_properties(reporter)) if reporter else []
    if session.exitstatus == pytest.ExitCode.OK and verdicts:
        session.exitstatus = exit_code(overall(verdicts))


def _properties(reporter: Any) -> dict[tuple[str, str, str], Any]:
    """What tests and cells reported, once each: a report occurs for each phase of a test."""
    reports = [report for kind in ("passed", "failed", "skipped") for report in reporter.getreports(kind)]
    reports = [report for report in reports if isinstance(report, pytest.TestReport)]  # a module may be skipped whole
    return {(report.nodeid, name, str(value)): value for report in reports for name, value in report.user_properties}


def _verdicts(properties: Mapping[tuple[str, str, str], Any]) -> list[Verdict]:
    return [Verdict(**value) for (_, name, _), value in properties.items() if name == "verdict"]


def summarize(reporter: Any) -> None:
    """Print values measured by tests and, after the last cell, the table of verdicts."""
    properties = _properties(reporter)
    verdicts = _verdicts(properties)
    generated = [value for (_, name, _), value in properties.items() if name == "generated"]
    measured = [item for item in properties if item[1] not in ("verdict", "generated")]
    if measured:
        reporter.section("measured")
        for node, name, value in measured:
            reporter.write_line(f"{node}: {name} {value}")
    if verdicts:
        reporter.section("verdicts")
        console = plain_console(reporter._tw._file, max(reporter._tw.fullwidth, 100))  # noqa: SLF001
        console.print(terminal.verdict_table(verdicts))
        open_ones = [verdict for verdict in verdicts if not verdict.bad]
        for line in (*terminal.limit_lines(verdicts), *terminal.verdict_notes(open_ones)):
            console.print(line)
        tokens, seconds = (sum(column) for column in zip(*generated, strict=True))
        console.print(terminal.summary_line(verdicts, tokens, seconds))
