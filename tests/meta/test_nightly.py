"""Tests that wait for the night say why, and the nightly workflow runs them and the newest releases."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.nightly import require_reasons

WORKFLOW = (Path(__file__).parents[2] / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")


def marked(*arguments):
    return SimpleNamespace(
        nodeid="test_x.py::test_x", iter_markers=lambda name: [getattr(pytest.mark, name)(*arguments).mark]
    )


def test_a_reason_is_enough():
    require_reasons([marked("generates 500 sentences")])


@pytest.mark.parametrize("arguments", [(), ("",), (1,), ("a", "b")])
def test_a_test_without_a_reason_is_refused(arguments):
    with pytest.raises(pytest.UsageError, match=r"test_x\.py::test_x: write the reason"):
        require_reasons([marked(*arguments)])


def test_the_night_runs_long_tests_and_the_newest_releases():
    assert "environment: [tests, nightly-tests, newest]" in WORKFLOW
    assert "tox -e ${{ matrix.environment }}" in WORKFLOW
    assert 'python -m tests.pins >> "$GITHUB_STEP_SUMMARY"' in WORKFLOW


def test_the_night_installs_what_is_pinned():
    lines = [line for line in WORKFLOW.splitlines() if "pip install" in line]
    assert lines
    assert all("-c constraints.txt" in line for line in lines)
