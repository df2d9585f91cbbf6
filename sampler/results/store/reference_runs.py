"""Reference runs that come with the package: made by upstream's torch code, with where they come from.

One safetensors file holds the runs of all cells of a matrix: for each cell the columns of COLUMNS, all steps of all
runs one after the other, and in its metadata for each run prompt, stop reason, length expected, length of the text and
number of steps. `python -m tests.reference_runs` writes it.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sampler.checks.longform.runs import TokenRun
from sampler.errors import TokensError

FORMAT = "sampler-reference-runs/1"

COLUMNS: Mapping[str, type[np.generic]] = {
    "tokens": np.uint16,
    "logprobs": np.float16,
    "entropy": np.float16,
    "rank": np.uint16,
    "margin": np.float16,
    "position": np.uint16,
}
"""What is kept of each step. Scalars are rounded to half precision on either side before they are compared."""


@dataclass(frozen=True)
class ReferenceCell:
    """Runs of one cell. source: whose code made them. runs: what is known of each. columns: of all steps, by name."""

    cell: str
    source: str
    config: str
    runs: Sequence[Mapping[str, Any]]
    columns: Mapping[str, NDArray[Any]]

    def token_runs(self) -> tuple[TokenRun, ...]:
        """The runs as the checks take them."""
        ends = np.cumsum([run["steps"] for run in self.runs])
        parts = {name: np.split(values, ends[:-1]) for name, values in self.columns.items()}
        return tuple(
            TokenRun(
                text=run["prompt"],
                tokens=tuple(parts["tokens"][place].tolist()),
                stop_reason=run["stop_reason"],
                **{name: parts[name][place].astype(np.float64) for name in ("logprobs", "entropy", "rank", "margin")},
                expected=run["expected"],
                position=parts["position"][place].astype(np.int64),
                text_length=run["text_length"],
            )
            for place, run in enumerate(self.runs)
        )


@dataclass(frozen=True)
class ReferenceRuns:
    """All cells of a file. provenance: command, checksum of the weights, versions. checksum: SHA-256 of the file."""

    cells: Mapping[str, ReferenceCell]
    provenance: Mapping[str, Any]
    checksum: str

    def runs(self, cell: str) -> tuple[TokenRun, ...]:
        """The runs of a cell, none where it has none."""
        return self.cells[cell].token_runs() if cell in self.cells else ()


def shipped_reference(name: str) -> Path:
    """Where the runs of a matrix are."""
    return Path(str(resources.files("sampler"))) / "finch" / "reference" / f"{name}.safetensors"


@functools.lru_cache(maxsize=8)
def read_reference(path: Path) -> ReferenceRuns:
    """Read a file. Raises TokensError for one that is none."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise TokensError(f"{path} holds no reference runs of the format {FORMAT}", hint="make them anew")
            cells = [
                ReferenceCell(**about, columns={name: file.get_tensor(f"{place}.{name}") for name in COLUMNS})
                for place, about in enumerate(json.loads(metadata["cells"]))
            ]
            provenance = json.loads(metadata["provenance"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise TokensError(f"{path} cannot be read: {error}", hint="expected a file of reference runs") from error
    return ReferenceRuns({cell.cell: cell for cell in cells}, provenance, hashlib.sha256(path.read_bytes()).hexdigest())


def shipped_runs(name: str) -> list[TokenRun]:
    """Runs that ship: `matrix/cell`, named by prompt, or `matrix`, named by matrix, cell and prompt.

    Raises TokensError with what there is.
    """
    matrix, _, cell = name.partition("/")
    known = sorted(path.stem for path in shipped_reference(matrix).parent.glob("*.safetensors"))
    if matrix not in known:
        hint = f"expected FILE.jsonl, or runs that ship: {', '.join(known)}"
        raise TokensError(f"there are no reference runs {name!r}", hint=hint)
    found = read_reference(shipped_reference(matrix))
    if not cell:
        return [replace(run, text=f"{matrix}/{each} {run.text}") for each in found.cells for run in found.runs(each)]
    if cell not in found.cells:
        raise TokensError(f"there are no reference runs {name!r}", hint=f"cells: {', '.join(found.cells)}")
    return list(found.runs(cell))


def check_reference(folder: Path, name: str) -> None:
    """Raise what is wrong with the reference runs that a matrix in `folder` names, before anything is generated."""
    path = folder / name if name.endswith(".jsonl") else shipped_reference(name)
    if name and not path.exists():
        raise TokensError(f"longform.reference = {name!r}", hint=f"there is no {path.name}")


def as_kept(run: TokenRun) -> TokenRun:
    """A run with its scalars rounded as those of the file are, so that nothing but the engine differs."""
    rounded = {
        name: values.astype(COLUMNS[name]).astype(np.float64)
        for name in ("logprobs", "entropy", "margin")
        if (values := getattr(run, name)) is not None
    }
    return replace(run, **rounded)
