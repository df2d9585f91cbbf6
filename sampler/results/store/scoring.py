"""scoring.json: what pictures show of the tokens of each cell under the model, one line a cell."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from sampler.checks.scoring.summary import ScoreSummary
from sampler.results.store.run_file import ReportError
from sampler.runtime.files import write_whole
from sampler.runtime.reading.json_text import read_json
from sampler.runtime.reading.source import Source

SCORING: Final = "scoring.json"
MOST_BYTES: Final = 64 << 20
CELLS: Final = TypeAdapter(dict[str, ScoreSummary])


def write_scoring(
    folder: Path, cells: Mapping[str, ScoreSummary], write: Callable[[Path, bytes], None] = write_whole
) -> dict[str, str]:
    """Write scoring.json, if there are cells, and return its checksum by its name.

    write: `write_partial` leaves it without its name.
    """
    if not cells:
        return {}
    lines = [f"{json.dumps(cell)}: {json.dumps(asdict(cells[cell]), allow_nan=False)}" for cell in cells]
    content = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
    write(folder / SCORING, content)
    return {SCORING: hashlib.sha256(content).hexdigest()}


def read_scoring(path: Path) -> dict[str, ScoreSummary]:
    """The cells of a file, by their ids. Raises ReportError."""
    return read_json(Source(path, ReportError, "remove it: the report does without it", MOST_BYTES)).check(CELLS)
