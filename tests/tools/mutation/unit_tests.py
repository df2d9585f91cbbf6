"""Unit tests of a mutated copy, run in this process, which must not have seen another copy: the first one that fails.

Level `tests` asks those of the day that run the mutated statement, as found by tracing each on an unharmed copy.
"""

import functools
import gc
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pytest
from coverage import Coverage

Lines = frozenset[tuple[str, int]]
IMPORTED = "imported"
LOOKED_AT = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")


class Chosen:
    """A pytest plugin that runs these tests in this order, or all of them, and keeps the first failure."""

    def __init__(self, order: Sequence[str] = ()) -> None:
        self.places = {name: place for place, name in enumerate(order)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.places:
            chosen = [item for item in items if item.nodeid in self.places]
            items[:] = sorted(chosen, key=lambda item: self.places[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


class Tracer:
    """A pytest plugin that measures which lines of some files each test runs.

    Lines that run when files are imported, or in a fixture, count for every test of their file, which share them.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        """names: of the files, by path."""
        self.names, self.coverage = names, Coverage(data_file=None, include=[*names], config_file=False)
        self.seconds: dict[str, float] = defaultdict(float)
        self.coverage.start()
        self.coverage.switch_context(IMPORTED)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        _forget_answers()
        self.coverage.switch_context(item.nodeid.partition("::")[0])
        yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        yield

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def lines(self) -> dict[str, Lines]:
        """By test, the quickest first."""
        self.coverage.stop()
        data, found = self.coverage.get_data(), defaultdict[str, set[tuple[str, int]]](set)
        for path, name in self.names.items():
            for line, contexts in data.contexts_by_lineno(path).items():
                for context in contexts:
                    found[context].add((name, line))
        tests = sorted(self.seconds, key=lambda test: self.seconds[test])
        return {test: frozenset(found[IMPORTED] | found[test.partition("::")[0]] | found[test]) for test in tests}


def _forget_answers() -> None:
    """Else a test that finds an answer kept by an earlier one would seem not to need the lines that give it."""
    for each in gc.get_objects():
        if type(each) is functools._lru_cache_wrapper and str(each.__module__).startswith("sampler"):
            each.cache_clear()


def first_failure(tree: str, files: Sequence[str], order: Sequence[str] = ()) -> str:
    """Run the tests of some files, those of `order` alone if it names any; the name of the first that fails, or "".

    Raises RuntimeError where pytest can neither pass nor fail them.
    """
    chosen = Chosen(order)
    _run(tree, files, chosen, marks="not nightly" if order else "")
    return chosen.failed


def lines_by_test(tree: str, files: Sequence[str], names: Mapping[str, str]) -> tuple[str, Mapping[str, Lines]]:
    """The first failure and, of each test of the day, the lines that it runs. names: of the files, by path."""
    tracer, chosen = Tracer(names), Chosen()
    _run(tree, files, chosen, tracer, marks="not nightly")
    return chosen.failed, tracer.lines()


def _run(tree: str, files: Sequence[str], *plugins: object, marks: str) -> None:
    ours = __name__.rpartition(".")[0]  # what answers are sent with
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests" and not name.startswith(ours)]:
        del sys.modules[name]  # the copy has tests of its own
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_PROFILE": "mutation"}
    code = pytest.main([*OPTIONS, "-m", marks, "--rootdir", tree, *files], plugins=list(plugins))
    if code not in LOOKED_AT:
        raise RuntimeError(f"pytest ended with {code} on {', '.join(files)}")
