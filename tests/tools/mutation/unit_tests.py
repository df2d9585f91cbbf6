"""Unit tests of a mutated copy, run in this process, which must not have seen another copy: the first one that fails.

Level `tests` asks those that run the mutated statement, as found by tracing each of them on an unharmed copy.
"""

import functools
import gc
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pytest

Lines = frozenset[tuple[str, int]]
LOOKED_AT = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "", "--rootdir")


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
    """A pytest plugin that notes which lines of `seen`, filled by a trace, each test runs, from the quickest on."""

    def __init__(self, seen: set[tuple[str, int]]) -> None:
        self.seen, self.imported = seen, frozenset[tuple[str, int]]()
        self.by_test: dict[str, set[tuple[str, int]]] = {}
        self.by_file: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_collection_finish(self) -> None:
        self.imported = frozenset(self.seen)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """What fixtures run counts for every test of the file, which may share them."""
        _forget_answers()
        self.seen.clear()
        yield
        self.by_file[item.nodeid.partition("::")[0]] |= self.seen

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.seen.clear()
        yield
        self.by_test[item.nodeid] = set(self.seen)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def lines(self) -> Mapping[str, Lines]:
        quick = sorted(self.by_test, key=lambda name: self.seconds[name])
        return {name: self.imported | self.by_test[name] | self.by_file[name.partition("::")[0]] for name in quick}


def _forget_answers() -> None:
    """Else a test that finds an answer kept by an earlier one would seem not to need the lines that give it."""
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and str(each.__module__).startswith("sampler"):
            each.cache_clear()


def first_failure(tree: str, files: Sequence[str], order: Sequence[str] = ()) -> str:
    """Run the tests of some files, those of `order` alone if it names any; the name of the first that fails, or "".

    Raises RuntimeError where pytest can neither pass nor fail them.
    """
    chosen = Chosen(order)
    _run(tree, files, chosen)
    return chosen.failed


def lines_by_test(tree: str, files: Sequence[str], seen: set[tuple[str, int]]) -> tuple[str, Mapping[str, Lines]]:
    """The first failure and, of each test that passes, the lines it runs; a trace adds to `seen` what is run."""
    tracer, chosen = Tracer(seen), Chosen()
    _run(tree, files, chosen, tracer)
    return chosen.failed, tracer.lines()


def _run(tree: str, files: Sequence[str], *plugins: object) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests" and name != __name__]:
        del sys.modules[name]  # the copy has tests of its own
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    code = pytest.main([*OPTIONS, tree, *files], plugins=list(plugins))
    if code not in LOOKED_AT:
        raise RuntimeError(f"pytest ended with {code} on {', '.join(files)}")
