"""A matrix: a hand-written TOML file that asks one question, and its cells."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from sampler.config import SamplingConfig
from sampler.errors import ConfigError, MatrixError, nearest
from sampler.matrix.schema import AbsoluteLimits, Detect, Known, LongForm, MatrixFile, Scope, Workload, read_matrix_file
from sampler.runtime.reading.document import Document, Place, named
from sampler.runtime.reading.source import short
from sampler.variants import load_variants

__all__ = ["Case", "Detect", "Group", "Known", "LongForm", "Matrix", "Scope", "Workload", "find_matrix", "load_matrix"]

KNOBS = tuple(field.name for field in fields(SamplingConfig))
FEATURES = ("multilingual", "variant")
"""Axes that are no sampling parameter. multilingual: generation follows the variant MULTILINGUAL, with its alignment
analyzer, or none. variant: a name of `variants.toml`, with its rules, and its parameters where the cell has none."""

MULTILINGUAL = "mtl-0.1.6"

BASE = "base"
"""The cell without any change, of a matrix that varies one axis at a time."""


@dataclass(frozen=True)
class Case:
    """One cell. cell: a readable id, `temperature:0.8+cfg_weight:0.5`. axes: those that it varies."""

    matrix: str
    cell: str
    config: SamplingConfig
    workload: Workload
    variant: str = ""
    axes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """matrix/cell, unique over the shipped matrices: used for seeds, pytest ids and reports."""
        return f"{self.matrix}/{self.cell}"


ALL = "all"
"""The group of all cells."""


@dataclass(frozen=True)
class Group:
    """Cells that are judged together. scope: one cell, those that vary an axis, or all; each has its alpha."""

    name: str
    scope: Scope
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Matrix:
    """A matrix and all its cells, in the order of the axes. checksum: SHA-256 of the file. groups: cells by axis."""

    name: str
    why: str
    workload: Workload
    cases: tuple[Case, ...]
    path: Path
    checksum: str
    longform: LongForm | None = None
    known: tuple[Known, ...] = ()
    limits: AbsoluteLimits = field(default_factory=AbsoluteLimits)

    @property
    def base_variant(self) -> str:
        return self.cases[0].variant

    @property
    def groups(self) -> dict[str, tuple[Case, ...]]:
        names = dict.fromkeys(axis for case in self.cases for axis in case.axes) if self.longform else {}
        return {name: tuple(case for case in self.cases if name in case.axes) for name in names}


def shipped_folder() -> Path:
    """The folder of the shipped matrices: in an installed package, or next to it in a checkout."""
    inside = Path(str(resources.files("sampler"))) / "matrices"
    return inside if inside.is_dir() else inside.parent.parent / "matrices"


def shipped_matrices() -> list[Path]:
    """All shipped matrix files, by name."""
    return sorted(shipped_folder().glob("*.toml"))


def find_matrix(name: str) -> Path:
    """A path unchanged, or a shipped matrix by its name. Raises MatrixError with the nearest name."""
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    names = [file.stem for file in shipped_matrices()]
    if name not in names:
        raise MatrixError(f"there is no matrix {name!r}", hint=nearest(name, names))
    return shipped_folder() / f"{name}.toml"


def is_shipped(matrix: Matrix) -> bool:
    """Whether a matrix is the shipped one of its name."""
    try:
        return find_matrix(matrix.name).resolve() == matrix.path.resolve()
    except MatrixError:
        return False


def load_matrix(path: Path) -> Matrix:
    """Read a matrix file. Raises MatrixError naming file, line, key, value and the nearest valid key."""
    file, document = read_matrix_file(path)
    _check_size(document, file)
    _check_names(document, file)
    cells = _without_excluded(document, _cells(file), file)
    cases = tuple(_case(document, file, cell) for cell in cells)
    if not cases:
        raise document.refuse("no cell is left", "[[exclude]] removes them all")
    cell, count = Counter(case.cell for case in cases).most_common(1)[0]
    if count > 1:
        raise document.refuse(f"the cell {cell!r} occurs {count} times", "an axis has a value twice")
    _check_known(document, file, [case.cell for case in cases])
    checksum = hashlib.sha256(document.source.content()).hexdigest()
    known = tuple(file.known)
    return Matrix(path.stem, file.why, file.generation, cases, path, checksum, file.longform, known, file.limits)


def _check_size(document: Document, file: MatrixFile) -> None:
    """Count cells and requests before any is made."""
    cells, each = file.cell_count, file.generation.count * file.generation.runs
    sizes = " x ".join(str(len(values)) for values in file.axes.values())
    made = f"axes of {sizes} values" if file.design == "all" else "its axes and [[cells]]"
    counts = (
        (cells, "cells", file.most_cells, made),
        (cells * each, "requests", file.most_requests, f"{cells:,} cells of {each:,} requests"),
    )
    for count, noun, most, parts in counts:
        if count > most:
            hint = f"expected at most {most:,}; shorten it, or write most_{noun} = {count} at the top of the file"
            raise document.source.refuse(f"has {count:,} {noun}: {parts}", hint, join=" ")


def _check_names(document: Document, file: MatrixFile) -> None:
    """Check every key and value of knobs, axes and cells."""
    for name, value in file.knobs.items():
        _check_key(document, ("knobs", name), KNOBS)
        _check_value(document, ("knobs", name), value)
    for name, values in file.axes.items():
        _check_key(document, ("axes", name), (*KNOBS, *FEATURES))
        if name in file.knobs:
            raise document.refuse(f"{name!r} is in both [knobs] and [axes]", "give it once", ("axes", name))
        for value in values:
            _check_value(document, ("axes", name), value)
    for index, cell in enumerate(file.cells):
        for name, value in cell.items():
            _check_key(document, ("cells", index, name), (*KNOBS, *FEATURES))
            _check_value(document, ("cells", index, name), value)


def _cells(file: MatrixFile) -> list[dict[str, Any]]:
    """The parameters that each cell varies: every combination, or each value with the first ones of the other axes."""
    if file.design == "all":
        varied = [dict(zip(file.axes, values, strict=True)) for values in itertools.product(*file.axes.values())]
    else:
        varied = [{}, *({name: value} for name, values in file.axes.items() for value in values[1:])]
    return [*varied, *file.cells]


def _check_known(document: Document, file: MatrixFile, cells: Sequence[str]) -> None:
    if file.known and file.longform is None:
        raise document.refuse("[[known]] without [longform]", "only a long-form matrix knows bad cells", ("known", 0))
    twice = Counter((known.cell, known.check) for known in file.known).most_common(1)
    if twice and twice[0][1] > 1:
        raise document.refuse(f"known {short(' '.join(twice[0][0]))} occurs twice", "leave one of them out")
    for index, known in enumerate(file.known):
        if known.cell not in cells:
            hint = nearest(known.cell, cells)
            raise document.refuse(f"known.cell = {short(known.cell)}", hint, ("known", index, "cell"))


def _check_key(document: Document, place: Place, known: Sequence[str]) -> None:
    if place[-1] not in known:
        raise document.refuse(f"unknown key {_key(place)!r}", nearest(str(place[-1]), known), place)


def _check_value(document: Document, place: Place, value: object) -> None:
    key, name = _key(place), str(place[-1])
    if name == "multilingual":
        if not isinstance(value, bool):
            raise document.refuse(f"{key} = {short(value)}", "expected true or false", place)
        return
    if name == "variant":
        names = [key for key, found in load_variants().items() if found.backbone == "llama"]
        if value not in names:
            raise document.refuse(f"{key} = {short(value)}", nearest(short(value)[1:-1], names), place)
        return
    try:
        knob: dict[str, Any] = {name: value}
        SamplingConfig(**knob)
    except ConfigError as error:
        raise document.refuse(f"{key}: {error.message}", error.hint, place) from error


def _key(place: Place) -> str:
    """A place as messages name it, without its number in a list."""
    return named([part for part in place if isinstance(part, str)])


def _without_excluded(document: Document, cells: list[dict[str, Any]], file: MatrixFile) -> list[dict[str, Any]]:
    for index, rule in enumerate(file.exclude):
        place = ("exclude", index)
        conditions = {name: value for name, value in rule.items() if name != "why"}
        if not conditions or not rule.get("why"):
            raise document.refuse(f"exclude = {short(rule)}", "expected values of axes and a why", place)
        for name in conditions:
            _check_key(document, (*place, name), list(file.axes))
        kept = [cell for cell in cells if any(cell.get(name) != value for name, value in conditions.items())]
        if len(kept) == len(cells):
            complaint = f"exclude = {short(conditions)} excludes no cell"
            raise document.refuse(complaint, "remove it or correct it", place)
        cells = kept
    return cells


def _case(document: Document, file: MatrixFile, cell: Mapping[str, Any]) -> Case:
    """A cell: its own values, then those of the whole matrix, then those of its variant."""
    path = document.source.path
    base = {} if file.design == "all" else {name: values[0] for name, values in file.axes.items()}
    chosen = base | dict(cell)
    named_variant = str(chosen.get("variant", ""))
    config = load_variants()[named_variant].config if named_variant else SamplingConfig()
    # A cell with another variant has that variant's own parameters, not the first values of the other axes.
    values = file.knobs | ({} if "variant" in cell else base) | dict(cell)
    try:
        config = replace(config, **{name: value for name, value in values.items() if name in KNOBS})
    except ConfigError as error:
        raise document.refuse(f"{short(dict(cell))}: {error.message}", error.hint) from error
    name = "+".join(f"{key}:{_readable(getattr(config, key, value))}" for key, value in cell.items()) or BASE
    variant = named_variant or (MULTILINGUAL if chosen.get("multilingual") else "")
    return Case(path.stem, name, config, file.generation, variant, tuple(cell))


def _readable(value: object) -> str:
    """A value for a cell id, only with characters that a shell and `pytest -k` accept."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "_".join(f"{token}:{bias}" for token, bias in value.items()) or "none"
    return ".".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
