"""The guard against loops beside vLLM's definition in Python, as pytest-benchmark measures them; for information."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.rows import Figure, Row
from tests.benchmarks.runner import ROOT, Comparison

FILE = "tests/benchmarks/test_loops.py"
STREAMS, PLACES = ("speech", "cycle of 7", "one token"), (400, 4_000)
TOKENS_OF_A_ROUND = 100


def both(*, quick: bool) -> Iterator[tuple[str, float]]:
    """Microseconds a token, of either, by stream and place."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loops.json"
        options = ["--benchmark-enable", f"--benchmark-json={path}", "-q", "-p", "no:cacheprovider"]
        if quick:
            options += ["-k", "not all"]
        result = subprocess.run(
            [sys.executable, "-m", "pytest", FILE, *options], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise RuntimeError(f"pytest {FILE} failed\n{result.stdout[-2_000:]}")
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    for each in found:
        yield each["name"], 1e6 * each["stats"]["median"] / TOKENS_OF_A_ROUND


SIDES = {"both": both}

COMPARISON = Comparison(
    name="loops",
    module=__name__,
    turns=("both",),
    quick_turns=("both",),
    rows=tuple(
        Row(
            f"loop guard, {stream}, token {place:,}",
            Figure("both", f"test_guard[exact-{stream}-{place}]"),
            "us",
            Figure("both", f"test_definition[{stream}-{place}]"),
            "vLLM's definition",
        )
        for stream in STREAMS
        for place in PLACES
    ),
)
