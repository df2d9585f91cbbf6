"""Spoiled files of every format: one short line and exit code 2, or a verdict; no traceback, no hang."""

import pytest

from tests.tools.fuzzing.formats import FORMATS
from tests.tools.fuzzing.fuzzing import read_all

NAMES = [form.name for form in FORMATS]
MANY = 250


def read(each: int, seed: int) -> int:
    files = 0
    for outcome in read_all(NAMES, each, seed):
        assert outcome.findings == [], "`python -m tests.tools.fuzzing` shows them"
        assert outcome.memory < 2 << 30
        files += outcome.files
    return files


def test_a_sample_of_spoiled_files():
    assert read(7, 3) == 7 * len(NAMES)


@pytest.mark.nightly("4,500 files of eighteen formats are read one by one")
def test_thousands_of_spoiled_files():
    assert len(NAMES) >= 9
    assert read(MANY, 0) == MANY * len(NAMES) > 4_000
