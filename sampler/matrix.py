"""A matrix: a hand-written TOML file that asks one question, and the cells that it spans."""

import difflib
import hashlib
import itertools
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.config import SamplingConfig
from sampler.errors import ConfigError, MatrixError

KNOBS = tuple(field.name for field in fields(SamplingConfig))
FEATURES = ("multilingual",)
"""Axes that are no knob. multilingual: the model is a multilingual one, whose alignment analyzer is on."""

NEEDS_ANALYZER = "needs the alignment analyzer, which a matrix cannot ask for yet"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Plan(_Strict):
    """What a cell generates: `requests` prompts, up to `max_new_tokens` each, in a block of `width`.

    prompts: the name of a set that comes with Finch, or a list of texts. requests: as many as there are texts, or 4.
    """

    prompts: Literal["sentences", "paragraphs", "long"] | Annotated[list[str], Field(min_length=1)] = "sentences"
    requests: Annotated[int, Field(ge=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 500
    width: Annotated[int, Field(ge=1, le=1024)] = 8
    language: str = "en"

    @property
    def count(self) -> int:
        """How many requests a cell has."""
        return self.requests or (4 if isinstance(self.prompts, str) else len(self.prompts))


class _File(_Strict):
    why: Annotated[str, Field(min_length=1)]
    generation: Plan = Plan()
    knobs: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    exclude: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Case:
    """One cell. cell: readable and stable, as `temperature:0.8+cfg_weight:0.5`. unavailable: why it cannot run."""

    matrix: str
    cell: str
    config: SamplingConfig
    plan: Plan
    unavailable: str = ""

    @property
    def id(self) -> str:
        """matrix/cell, unique over the shipped matrices: seed input, pytest id and report key."""
        return f"{self.matrix}/{self.cell}"


@dataclass(frozen=True)
class Matrix:
    """A matrix and all its cells, in the order of the axes. checksum: SHA-256 of the file, hexadecimal."""

    name: str
    why: str
    plan: Plan
    cases: tuple[Case, ...]
    path: Path
    checksum: str


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
    base = dict(file.knobs)
    for name in base:
        _check_key(path, "knobs", name, KNOBS)
    for name, values in file.axes.items():
        _check_key(path, "axes", name, (*KNOBS, *FEATURES))
        if name in base:
            raise MatrixError(f"{path}: {name!r} stands in both [knobs] and [axes]", hint="give it once")
        for value in values:
            _check_value(path, f"axes.{name}", name, value)
    for name, value in base.items():
        _check_value(path, f"knobs.{name}", name, value)
    cells = [dict(zip(file.axes, values, strict=True)) for values in itertools.product(*file.axes.values())]
    kept = _without_excluded(path, cells, file)
    cases = tuple(_case(path, file, cell) for cell in kept)
    if not cases:
        raise MatrixError(f"{path}: no cell is left", hint="[[exclude]] removes them all")
    cell, count = Counter(case.cell for case in cases).most_common(1)[0]
    if count > 1:
        raise MatrixError(f"{path}: the cell {cell!r} comes {count} times", hint="an axis names a value twice")
    return Matrix(path.stem, file.why, file.generation, cases, path, hashlib.sha256(path.read_bytes()).hexdigest())


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
    if name in FEATURES:
        if not isinstance(value, bool):
            raise MatrixError(f"{path}: {key} = {value!r}", hint="expected true or false")
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
    knobs = {name: value for name, value in (file.knobs | dict(cell)).items() if name in KNOBS}
    config = SamplingConfig(**knobs)
    name = "+".join(f"{key}:{_readable(getattr(config, key, value))}" for key, value in cell.items()) or "base"
    return Case(path.stem, name, config, file.generation, NEEDS_ANALYZER if cell.get("multilingual") else "")


def _readable(value: object) -> str:
    """A value as a cell id shows it: characters that a shell and `pytest -k` take as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "_".join(f"{token}:{bias}" for token, bias in value.items()) or "none"
    return ".".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
