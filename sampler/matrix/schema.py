"""The sections and keys of a matrix file, with their schema."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sampler.errors import MatrixError, nearest
from sampler.runtime.reading.document import Document, Fault
from sampler.runtime.reading.source import Source, short
from sampler.runtime.reading.toml_text import read_toml

Scope = Literal["all", "axes", "cells"]

MOST = 1_000_000
"""Of requests, of runs, or of tokens of a run: more would take years, so it is a slip of the pen."""

MOST_BYTES = 16 << 20
"""Of a file."""

Count = Annotated[int, Field(ge=1, le=MOST)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Workload(_Strict):
    """What a cell generates: `requests` prompts, `runs` of each, up to `max_new_tokens`, in a block of `width`.

    prompts: the name of one of Finch's sets, or a list of texts. requests: by default the number of texts, or 4.
    language: of the prompts; `all`: each language in turn. expected: smallest and largest number of tokens of the true
    speech of a prompt of Finch.
    """

    prompts: Literal["sentences", "paragraphs", "long"] | Annotated[list[str], Field(min_length=1)] = "sentences"
    requests: Count | None = None
    runs: Count = 1
    max_new_tokens: Count = 500
    width: Annotated[int, Field(ge=1, le=1024)] = 8
    language: str = "en"
    expected: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None

    @property
    def count(self) -> int:
        return self.requests or (4 if isinstance(self.prompts, str) else len(self.prompts))


class Detect(_Strict):
    """What `passed` must be able to detect. share: of runs, over the reference's; superiority: over pairs of runs.

    temperature: its relative change, by the tokens of a cell; null: nothing in particular.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.999
    superiority: Annotated[float, Field(gt=0.5, lt=1)] = 0.999
    temperature: Annotated[float, Field(gt=0, lt=1)] | None = None


class AbsoluteLimits(_Strict):
    """Shares of runs that may loop, and that may reach their cap, whatever a reference does.

    detect: the share of such runs that must be detectable for `passed`, for all cells together, an axis, a cell;
    without it nothing in particular.
    """

    looping: Annotated[float, Field(gt=0, lt=1)] = 0.02
    missing: Annotated[float, Field(gt=0, lt=1)] = 0.02
    detect: dict[Scope, Annotated[float, Field(gt=0, lt=1)]] = {}


class LongForm(_Strict):
    """A matrix that is compared with reference runs: on all cells pooled, then per axis, then per cell.

    reference: the name of runs that come with Finch, or a TOKENS.jsonl. false_alarms: rate of the whole matrix;
    weights: its shares for the whole matrix, for all axes and for all cells. most_incomplete: share of a cell's runs
    that may end at another length than their text's. detect: what must be detectable for
    `passed`, for each of the three scopes. left_out: questions that a scope has too few runs for.
    """

    reference: str = ""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    most_incomplete: Annotated[float, Field(gt=0, lt=1)] = 0.2
    weights: dict[Scope, Annotated[float, Field(gt=0, lt=1e6)]] = {}
    detect: dict[Scope, Detect] = {}
    left_out: dict[Scope, list[str]] = {}


class Known(_Strict):
    """A cell that is known to be bad, and must stay so: the check, the least share of runs, and why."""

    cell: str
    check: Literal["complete", "looping"]
    share: Annotated[float, Field(gt=0, lt=1)]
    finding: Annotated[str, Field(min_length=1)]


class MatrixFile(_Strict):
    """A whole file. most_cells, most_requests: limits of its size, before [[exclude]]; it may raise them."""

    why: Annotated[str, Field(min_length=1)]
    design: Literal["all", "one at a time"] = "all"
    generation: Workload = Workload()
    knobs: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    cells: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    limits: AbsoluteLimits = AbsoluteLimits()
    longform: LongForm | None = None
    known: list[Known] = []
    most_cells: Annotated[int, Field(ge=1)] = 10_000
    most_requests: Annotated[int, Field(ge=1)] = 100_000

    @property
    def cell_count(self) -> int:
        """Cells that the axes make and those of [[cells]], without making them."""
        sizes = [len(values) for values in self.axes.values()]
        made = math.prod(sizes) if self.design == "all" else 1 + sum(size - 1 for size in sizes)
        return made + len(self.cells)


SECTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "generation": Workload,
    "longform": LongForm,
    "limits": AbsoluteLimits,
    "known": Known,
}


def read_matrix_file(path: Path) -> tuple[MatrixFile, Document]:
    """Read a file. Raises MatrixError naming file, line, key, value and the nearest valid key."""
    document = read_toml(Source(path, MatrixError, "see matrices/smoke.toml for an example", MOST_BYTES))
    return document.check(TypeAdapter(MatrixFile), _explained), document


def _explained(fault: Fault) -> tuple[str, str] | None:
    """What is wrong, and what is expected, in the words of a matrix."""
    place = [str(part) for part in fault.place]
    if fault.kind == "extra_forbidden":
        section: type[BaseModel] = SECTIONS.get(place[0], MatrixFile) if len(place) > 1 else MatrixFile
        return f"unknown key {fault.key!r}", nearest(place[-1], section.model_fields)
    if fault.kind == "missing":
        why = "every matrix states why it exists" if place == ["why"] else "see matrices/longform.toml"
        return f"key {fault.key!r} is missing", why
    if place[:2] == ["generation", "prompts"]:  # a union, for which the schema reports two errors
        hint = "expected 'sentences', 'paragraphs', 'long' or a list of texts"
        return f"generation.prompts = {short(fault.value)}", hint
    if place[:1] == ["axes"] and fault.kind == "list_type":
        hint = "an axis is a list of values; a single one belongs under [knobs]"
        return f"{fault.key} = {short(fault.value)}", hint
    return None
