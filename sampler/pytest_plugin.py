"""A matrix under pytest: one item a cell, so that -k, -x and -n work as people expect."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sampler.checks.verdict import Verdict
from sampler.errors import SamplerError
from sampler.matrix.matrix import Case, load_matrix, shipped_folder
from sampler.results.report import terminal
from sampler.run.blocks import block_of
from sampler.run.events import CaseResult
from sampler.run.groups import Group, groups_of
from sampler.run.longform import LongFormRun
from sampler.run.session import Session
from sampler.runtime import blas


def add_options(group: pytest.OptionGroup) -> None:
    """`--seed`, `--engine` and `--weights`, as `sampler run` has them."""
    group.addoption("--seed", type=int, default=0, help="seed of the cells (default 0)")
    group.addoption("--engine", default=None, help="core, package.module:factory or file.py:factory")
    group.addoption("--weights", type=Path, default=None, help="folder with upstream's own files")


def header(config: pytest.Config) -> str:
    """Seed and BLAS, for the head of the report."""
    return f"sampler: seed {config.getoption('--seed')}, BLAS {blas.prepare().name}"


def collect(parent: pytest.Collector, path: Path) -> pytest.File | None:
    """Collect a shipped matrix, or a TOML file that the command line names; other TOML files are none of ours."""
    named = {Path(argument.split("::")[0]).resolve() for argument in parent.config.args}
    if path.suffix != ".toml" or (path.parent != shipped_folder() and path not in named):
        return None
    file: pytest.File = MatrixFile.from_parent(parent, path=path)
    return file


class MatrixFile(pytest.File):
    """A matrix file."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each cell; all of them share one session, so that the model is loaded once."""
        config = self.config
        try:
            matrix = load_matrix(self.path)
        except SamplerError as error:
            raise self.CollectError(str(error)) from error
        session = Session(
            matrix, config.getoption("--seed"), config.getoption("--engine"), config.getoption("--weights")
        )
        if matrix.longform:
            made = LongFormRun(session)  # one for all items, so that every cell is generated once
            for group in groups_of(matrix):
                yield GroupItem.from_parent(self, name=group.name, made=made, group=group)
            return
        for case in matrix.cases:
            yield Cell.from_parent(self, name=case.cell, session_of_run=session, case=case)


class CellFailure(Exception):
    """At least one check of a cell failed or errored."""


class Asked(pytest.Item):
    """What has verdicts."""

    case_id: str

    def ask(self) -> CaseResult:
        """Put all checks."""
        raise NotImplementedError

    def runtest(self) -> None:
        """Fail where a check failed or errored, skip where one could not look."""
        result = self.ask()
        self.user_properties.extend(("verdict", asdict(verdict)) for verdict in result.verdicts)
        self.user_properties.append(("generated", (result.tokens, result.seconds)))
        notes = "\n".join(note.plain for note in terminal.verdict_notes(result.verdicts))
        if result.outcome in ("failed", "errored"):
            raise CellFailure(notes)
        if result.outcome == "unavailable":
            pytest.skip(notes)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: object) -> str:
        """Show a finding, or a user's mistake, as text, never as a traceback."""
        if isinstance(excinfo.value, CellFailure | SamplerError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the cell comes from and what it is called."""
        return self.path, None, self.case_id


class Cell(Asked):
    """One cell: all checks of `sampler run`, with the same verdicts."""

    def __init__(self, *, session_of_run: Session, case: Case, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.session_of_run, self.case, self.case_id = session_of_run, case, case.id

    def ask(self) -> CaseResult:
        """Generate the cell and look at it."""
        self.session_of_run.validate(self.case)
        self.session_of_run.generate_together(self._block())
        return self.session_of_run.run(self.case)

    def _block(self) -> list[Case]:
        """The cells that run in this process of the block that this one is in; with xdist, nobody knows which."""
        if hasattr(self.config, "workerinput"):
            return [self.case]
        selected = [item.case for item in self.session.items if isinstance(item, Cell) and item.parent is self.parent]
        return [case for case in block_of(self.session_of_run.matrix.cases, self.case) if case in selected]


class GroupItem(Asked):
    """All cells of a long-form matrix, those of an axis, or one: the same verdicts as of `sampler run`."""

    def __init__(self, *, made: LongFormRun, group: Group, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.made, self.group, self.case_id = made, group, f"{made.matrix.name}/{group.name}"

    def ask(self) -> CaseResult:
        """Generate the cells that were not yet, and compare them with the reference runs."""
        for case in self.group.cases:
            self.made.session.validate(case)
        return self.made.result(self.group)


def summarize(reporter: Any) -> None:
    """Print what tests measured and, after the last cell, the table of verdicts."""
    reports = [report for kind in ("passed", "failed", "skipped") for report in reporter.getreports(kind)]
    properties = {
        (report.nodeid, name, str(value)): value for report in reports for name, value in report.user_properties
    }  # a report comes once for each phase of a test
    verdicts = [Verdict(**value) for (_, name, _), value in properties.items() if name == "verdict"]
    generated = [value for (_, name, _), value in properties.items() if name == "generated"]
    measured = [each for each in properties if each[1] not in ("verdict", "generated")]
    if measured:
        reporter.section("measured")
        for node, name, value in measured:
            reporter.write_line(f"{node}: {name} {value}")
    if verdicts:
        reporter.section("verdicts")
        console = Console(file=reporter._tw._file, width=max(reporter._tw.fullwidth, 100), highlight=False)  # noqa: SLF001
        console.print(terminal.verdict_table(verdicts))
        for note in terminal.verdict_notes([verdict for verdict in verdicts if verdict.outcome == "unavailable"]):
            console.print(note)
        tokens, seconds = (sum(column) for column in zip(*generated, strict=True))
        console.print(terminal.summary_line(verdicts, tokens, seconds))
