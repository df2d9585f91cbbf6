"""pytest hooks: a matrix file is collected as one item a cell; hypothesis profiles; the header."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sampler import pytest_plugin
from tests import nightly, skipped

settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True, derandomize=True)
settings.register_profile(
    "nightly", max_examples=1_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "thorough", max_examples=10_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(  # the same examples for every mutation, at any speed
    "mutation", max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser):
    pytest_plugin.add_options(parser.getgroup("sampler", "cells of a matrix"))


def pytest_collection_modifyitems(items: list[pytest.Item]):
    nightly.require_reasons(items)


def pytest_report_header(config: pytest.Config):
    return pytest_plugin.header(config)


def pytest_collect_file(parent: pytest.Collector, file_path: Path):
    return pytest_plugin.collect(parent, file_path)


def pytest_sessionfinish(session: pytest.Session):
    pytest_plugin.finish(session)


def pytest_terminal_summary(terminalreporter):
    pytest_plugin.summarize(terminalreporter)
    for line in skipped.lines(terminalreporter.getreports("skipped")):
        terminalreporter.write_line(line, yellow=True)
