"""Tests that wait for the night, each with its reason: `@pytest.mark.nightly("reason")`."""

from collections.abc import Iterable

import pytest


def require_reasons(items: Iterable[pytest.Item]) -> None:
    """Refuse a test that waits for the night without a reason. Raises pytest.UsageError with its name."""
    for item in items:
        for mark in item.iter_markers("nightly"):
            if len(mark.args) != 1 or not isinstance(mark.args[0], str) or not mark.args[0].strip():
                raise pytest.UsageError(f"{item.nodeid}: write the reason, @pytest.mark.nightly('why it takes long')")
