"""What stands in a matrix file: its sections and keys, read and checked against their schema."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.errors import MatrixError, nearest

Scope = Literal["all", "axes", "cells"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Workload(_Strict):
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
        return self.requests or (4 if isinstance(self.prompts, str) else len(self.prompts))


class Detect(_Strict):
    """What has to be seen for `passed`.

    share: of runs, over the reference's; superiority: probability that an engine's run is the larger of a pair.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.999
    superiority: Annotated[float, Field(gt=0.5, lt=1)] = 0.999


class LongForm(_Strict):
    """A matrix whose cells are asked together first, then by axis, then alone, beside reference runs.

    reference: the name of runs that come with Finch, or a TOKENS.jsonl. false_alarms: rate of the whole matrix;
    weights: its parts for the whole matrix, for all axes and for all cells. most_incomplete, most_looping: share of a
    cell's runs that may end at another length than their text's, and that may loop. detect: for each of the three
    levels what `passed` must be able to see. left_out: questions that so few runs as a level has cannot answer.
    """

    reference: str = ""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    most_incomplete: Annotated[float, Field(gt=0, lt=1)] = 0.2
    most_looping: Annotated[float, Field(gt=0, lt=1)] = 0.2
    weights: dict[Scope, Annotated[float, Field(gt=0, lt=1e6)]] = {}
    detect: dict[Scope, Detect] = {}
    left_out: dict[Scope, list[str]] = {}


class Known(_Strict):
    """A cell that is bad by itself, and must stay so: a check of it, the share of runs at least, and why."""

    cell: str
    check: Literal["complete", "looping"]
    share: Annotated[float, Field(gt=0, lt=1)]
    finding: Annotated[str, Field(min_length=1)]


class MatrixFile(_Strict):
    """A whole file."""

    why: Annotated[str, Field(min_length=1)]
    design: Literal["all", "one at a time"] = "all"
    generation: Workload = Workload()
    knobs: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    cells: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    longform: LongForm | None = None
    known: list[Known] = []


def read_matrix_file(path: Path) -> MatrixFile:
    """Read a file. Raises MatrixError naming file, key, value and the nearest valid key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MatrixError(
            f"{path} cannot be read: {error.strerror}", hint="give a .toml file or a shipped name"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MatrixError(f"{path} is no TOML: {error}", hint="see matrices/smoke.toml for an example") from error
    try:
        return MatrixFile.model_validate(data)
    except ValidationError as error:
        raise _schema_error(path, error) from error


def _schema_error(path: Path, error: ValidationError) -> MatrixError:
    """Say the first complaint of the schema with file, key, value and the nearest key."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"generation": Workload, "longform": LongForm, "known": Known}
        section: type[BaseModel] = sections.get(place[0], MatrixFile) if len(place) > 1 else MatrixFile
        return MatrixError(f"{path}: unknown key {key!r}", hint=nearest(place[-1], section.model_fields))
    if first["type"] == "missing":
        why = "every matrix says why it exists" if place == ["why"] else "see matrices/longform.toml"
        return MatrixError(f"{path}: key {key!r} is missing", hint=why)
    if place[:2] == ["generation", "prompts"]:  # a union, for which the schema has two complaints
        return MatrixError(
            f"{path}: generation.prompts = {first['input']!r}",
            hint="expected 'sentences', 'paragraphs', 'long' or a list of texts",
        )
    hint = first["msg"]
    if place[0] == "axes" and first["type"] == "list_type":
        hint = "an axis is a list of values; a single one belongs under [knobs]"
    return MatrixError(f"{path}: {key} = {first['input']!r}", hint=hint)
