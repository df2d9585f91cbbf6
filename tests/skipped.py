"""Skipped tests, counted by their reason."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest


def lines(reports: Sequence[pytest.TestReport]) -> Iterator[str]:
    """A line with their number, then one for each reason; nothing where no test was skipped."""
    if reports:
        yield f"{len(reports)} test{'s were' if len(reports) > 1 else ' was'} skipped, which is not a pass:"
    for reason, count in Counter(_reason(report) for report in reports).most_common():
        yield f"  {count} x {reason}"


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
