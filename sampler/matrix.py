"""A matrix: a hand-written TOML file that asks one question, and the cells that it spans."""

import difflib
import hashlib
import itertools
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.config import SamplingConfig
from sampler.errors import ConfigError, MatrixError
from sampler.variants import load_variants

KNOBS = tuple(field.name for field in fields(SamplingConfig))
FEATURES = ("multilingual", "variant")
"""Axes that are no knob. multilingual: generation follows MULTILINGUAL, whose alignment analyzer is on, or no variant.
variant: a name of `variants.toml`, whose rules are followed and whose knobs hold where the cell has none of its own."""

MULTILINGUAL = "mtl-0.1.6"

BASE = "base"
"""The cell of a matrix that varies one axis at a time in which nothing is varied."""

Level = Literal["all", "axes", "cells"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Plan(_Strict):
    """What a cell generates: `requests` prompts, `runs` of each, up to `max_new_tokens`, in a block of `width`.

    prompts: the name of a set that comes with Finch, or a list of texts. requests: as many as there are texts, or 4.
    language: of the prompts; `all`: those of each language in turn. expected: least and most tokens that the true
    speech of a prompt of Finch's may have.
    """

    prompts: Literal["sentences", "paragraphs", "long"] | Annotated[list[str], Field(min_length=1)] = "sentences"
    requests: Annotated[int, Field(ge=1)] | None = None
    runs: Annotated[int, Field(ge=1)] = 1
    max_new_tokens: Annotated[int, Field(ge=1)] = 500
    width: Annotated[int, Field(ge=1, le=1024)] = 8
    language: str = "en"
    expected: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None = None

    @property
    def count(self) -> int:
        """How many prompts a cell has."""
        return self.requests or (4 if isinstance(self.prompts, str) else len(self.prompts))


class Detect(_Strict):
    """What has to be seen for `passed`. share: of runs; superiority: probability that the one run is the larger."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    superiority: Annotated[float, Field(gt=0.5, le=1)] = 1.0


class LongForm(_Strict):
    """A matrix whose cells are asked together first, then by axis, then alone, beside reference runs.

    reference: the name of runs that come with Finch, or a TOKENS.jsonl. false_alarms: rate of the whole matrix;
    weights: its parts for the whole matrix, for all axes and for all cells. most_incomplete: share of runs that may end
    at another length than their text's. detect: for each of the three what `passed` must be able to see.
    """

    reference: str = ""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    most_incomplete: Annotated[float, Field(gt=0, lt=1)] = 0.2
    weights: dict[Level, Annotated[float, Field(gt=0)]] = {"all": 2.0, "axes": 1.0, "cells": 1.0}
    detect: dict[Level, Detect] = {}


class Known(_Strict):
    """A cell that is bad by itself, and must stay so: a check of it, the share of runs at least, and why."""

    cell: str
    check: Literal["complete", "looping"]
    share: Annotated[float, Field(gt=0, lt=1)]
    finding: Annotated[str, Field(min_length=1)]


class _File(_Strict):
    why: Annotated[str, Field(min_length=1)]
    design: Literal["all", "one at a time"] = "all"
    generation: Plan = Plan()
    knobs: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    cells: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    longform: LongForm | None = None
    known: list[Known] = []


@dataclass(frozen=True)
class Case:
    """One cell. cell: readable and stable, as `temperature:0.8+cfg_weight:0.5`. variant: whose rules, empty for none.

    axes: names of the axes that it varies.
    """

    matrix: str
    cell: str
    config: SamplingConfig
    plan: Plan
    variant: str = ""
    axes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """matrix/cell, unique over the shipped matrices: seed input, pytest id and report key."""
        return f"{self.matrix}/{self.cell}"


@dataclass(frozen=True)
class Matrix:
    """A matrix and all its cells, in the order of the axes. checksum: SHA-256 of the file, hexadecimal.

    groups: cells that are asked together, by the name of the axis that they vary; empty without `longform`.
    """

    name: str
    why: str
    plan: Plan
    cases: tuple[Case, ...]
    path: Path
    checksum: str
    longform: LongForm | None = None
    known: tuple[Known, ...] = ()

    @property
    def groups(self) -> dict[str, tuple[Case, ...]]:
        """Cells by the axis that they vary."""
        names = dict.fromkeys(axis for case in self.cases for axis in case.axes) if self.longform else {}
        return {name: tuple(case for case in self.cases if name in case.axes) for name in names}


def shipped_folder() -> Path:
    """Where the matrices are: inside an installed package, beside it in a checkout."""
    inside = Path(str(resources.files("sampler"))) / "matrices"
    return inside if inside.is_dir() else inside.parent.parent / "matrices"


def shipped_matrices() -> list[Path]:
    """All shipped matrix files, by name."""
    return sorted(shipped_folder().glob("*.toml"))


def find_matrix(name: str) -> Path:
    """A path as it is, or a shipped matrix by its name. Raises MatrixError with the nearest name."""
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    names = [file.stem for file in shipped_matrices()]
    if name not in names:
        raise MatrixError(f"there is no matrix {name!r}", hint=_nearest(name, names))
    return shipped_folder() / f"{name}.toml"


def load_matrix(path: Path) -> Matrix:
    """Read a matrix file. Raises MatrixError naming file, key, value and the nearest valid key."""
    file = _read(path)
    _check_names(path, file)
    cells = _without_excluded(path, _cells(file), file)
    cases = tuple(_case(path, file, cell) for cell in cells)
    if not cases:
        raise MatrixError(f"{path}: no cell is left", hint="[[exclude]] removes them all")
    cell, count = Counter(case.cell for case in cases).most_common(1)[0]
    if count > 1:
        raise MatrixError(f"{path}: the cell {cell!r} comes {count} times", hint="an axis names a value twice")
    _check_known(path, file, [case.cell for case in cases])
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Matrix(path.stem, file.why, file.generation, cases, path, checksum, file.longform, tuple(file.known))


def _check_names(path: Path, file: _File) -> None:
    """Every key and value of knobs, axes and cells."""
    for name, value in file.knobs.items():
        _check_key(path, "knobs", name, KNOBS)
        _check_value(path, f"knobs.{name}", name, value)
    for name, values in file.axes.items():
        _check_key(path, "axes", name, (*KNOBS, *FEATURES))
        if name in file.knobs:
            raise MatrixError(f"{path}: {name!r} stands in both [knobs] and [axes]", hint="give it once")
        for value in values:
            _check_value(path, f"axes.{name}", name, value)
    for cell in file.cells:
        for name, value in cell.items():
            _check_key(path, "cells", name, (*KNOBS, *FEATURES))
            _check_value(path, f"cells.{name}", name, value)


def _cells(file: _File) -> list[dict[str, Any]]:
    """What each cell varies: every combination, or each value beside the first ones of the other axes."""
    if file.design == "all":
        varied = [dict(zip(file.axes, values, strict=True)) for values in itertools.product(*file.axes.values())]
    else:
        varied = [{}, *({name: value} for name, values in file.axes.items() for value in values[1:])]
    return [*varied, *file.cells]


def _check_known(path: Path, file: _File, cells: Sequence[str]) -> None:
    for known in file.known:
        if known.cell not in cells:
            raise MatrixError(f"{path}: known.cell = {known.cell!r}", hint=_nearest(known.cell, cells))


def _read(path: Path) -> _File:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MatrixError(
            f"{path} cannot be read: {error.strerror}", hint="give a .toml file or a shipped name"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MatrixError(f"{path} is no TOML: {error}", hint="see matrices/smoke.toml for an example") from error
    try:
        return _File.model_validate(data)
    except ValidationError as error:
        raise _schema_error(path, error) from error


def _schema_error(path: Path, error: ValidationError) -> MatrixError:
    """Say the first complaint of the schema with file, key, value and the nearest key."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        section = Plan if place[0] == "generation" else _File
        return MatrixError(f"{path}: unknown key {key!r}", hint=_nearest(place[-1], section.model_fields))
    if first["type"] == "missing":
        return MatrixError(f"{path}: key {key!r} is missing", hint="every matrix says why it exists")
    if place[:2] == ["generation", "prompts"]:  # a union, for which the schema has two complaints
        return MatrixError(
            f"{path}: generation.prompts = {first['input']!r}",
            hint="expected 'sentences', 'paragraphs', 'long' or a list of texts",
        )
    hint = first["msg"]
    if place[0] == "axes" and first["type"] == "list_type":
        hint = "an axis is a list of values; a single one belongs under [knobs]"
    return MatrixError(f"{path}: {key} = {first['input']!r}", hint=hint)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _check_key(path: Path, section: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise MatrixError(f"{path}: unknown key {f'{section}.{name}'!r}", hint=_nearest(name, known))


def _check_value(path: Path, key: str, name: str, value: object) -> None:
    if name == "multilingual":
        if not isinstance(value, bool):
            raise MatrixError(f"{path}: {key} = {value!r}", hint="expected true or false")
        return
    if name == "variant":
        names = [each for each, found in load_variants().items() if found.backbone == "llama"]
        if value not in names:
            raise MatrixError(f"{path}: {key} = {value!r}", hint=_nearest(str(value), names))
        return
    try:
        knob: dict[str, Any] = {name: value}
        SamplingConfig(**knob)
    except ConfigError as error:
        raise MatrixError(f"{path}: {key}: {error.message}", hint=error.hint) from error


def _without_excluded(path: Path, cells: list[dict[str, Any]], file: _File) -> list[dict[str, Any]]:
    for rule in file.exclude:
        conditions = {name: value for name, value in rule.items() if name != "why"}
        if not conditions or not rule.get("why"):
            raise MatrixError(f"{path}: exclude = {rule!r}", hint="expected values of axes and a why")
        for name in conditions:
            _check_key(path, "exclude", name, list(file.axes))
        kept = [cell for cell in cells if any(cell[name] != value for name, value in conditions.items())]
        if len(kept) == len(cells):
            raise MatrixError(f"{path}: exclude = {conditions!r} excludes no cell", hint="remove it or mend its values")
        cells = kept
    return cells


def _case(path: Path, file: _File, cell: Mapping[str, Any]) -> Case:
    """A cell: its own values, then those that hold for all, then those of its variant."""
    base = {} if file.design == "all" else {name: values[0] for name, values in file.axes.items()}
    chosen = base | dict(cell)
    named = str(chosen.get("variant", ""))
    config = load_variants()[named].config if named else SamplingConfig()
    # A cell with another variant has that one's own knobs, not the first values of the other axes.
    values = file.knobs | ({} if "variant" in cell else base) | dict(cell)
    config = replace(config, **{name: value for name, value in values.items() if name in KNOBS})
    name = "+".join(f"{key}:{_readable(getattr(config, key, value))}" for key, value in cell.items()) or BASE
    variant = named or (MULTILINGUAL if chosen.get("multilingual") else "")
    return Case(path.stem, name, config, file.generation, variant, tuple(cell))


def _readable(value: object) -> str:
    """A value as a cell id shows it: characters that a shell and `pytest -k` take as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "_".join(f"{token}:{bias}" for token, bias in value.items()) or "none"
    return ".".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
