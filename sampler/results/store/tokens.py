"""TOKENS.jsonl: runs of tokens in a form that any port can write, one JSON object per line (docs/tokens.md)."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from sampler.checks.longform.runs import SCALARS, STEPS, TokenRun
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, TokensError, nearest
from sampler.requests import StopReason
from sampler.runtime.files import write_whole
from sampler.runtime.reading.document import Fault
from sampler.runtime.reading.json_text import parse
from sampler.runtime.reading.source import Source, short

Array = NDArray[np.float64]
HINT = "docs/tokens.md has an example"
ROUNDING = 1e-3
"""Rounding may put a logarithm this far above 0, or an entropy this far below."""

LARGEST = 3.5e38
"""No float32 is larger."""

MOST_BYTES = 256 << 20
"""Of a file: 5 million steps with all their columns, for which Python takes 1.5 GB."""

FIELDS = tuple(SamplingConfig.__dataclass_fields__)

Id = Annotated[int, Field(ge=0, lt=2**31)]
Place = Annotated[int, Field(ge=0)]


def _numbered(tokens: Any, validate: ValidatorFunctionWrapHandler) -> tuple[int, ...]:
    """Ids, and -1, -2 ... for each null in their place: tokens that the log leaves out, of which no two are equal."""
    if not isinstance(tokens, list) or None not in tokens:
        return tuple(validate(tokens))
    left_out = count(-1, -1)
    ids = validate([0 if token is None else token for token in tokens])
    return tuple(next(left_out) if token is None else known for token, known in zip(tokens, ids, strict=True))


class TokenLine(BaseModel):
    """One run. prompt: id of the text. tokens: below 0 where the file has null (`_numbered`).

    margin: null where only one token was left. position: places from 0.
    cell (matrix/cell), request, slot, width: of `sampler run`, None if unknown; runs of one text in two cells count as
    runs of two texts. text or text_ids, language, config, variant: what the run was asked for, to score it under a
    model; config has the fields of SamplingConfig that differ from its defaults.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    cell: str = ""
    request: Place | None = None
    prompt: str | int
    tokens: Annotated[tuple[Id, ...], Field(strict=False), WrapValidator(_numbered)]
    stop_reason: StopReason
    slot: Place | None = None
    width: Place | None = None
    logprobs: list[Annotated[float, Field(ge=-LARGEST, le=ROUNDING)]] | None = None
    entropy: list[Annotated[float, Field(ge=-ROUNDING, le=LARGEST)]] | None = None
    rank: list[Id] | None = None
    margin: list[Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | None] | None = None
    position: list[Id] | None = None
    text_length: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    expected_length: Annotated[float, Field(gt=0, lt=2**31)] | None = None
    seed: int | None = None
    text: Annotated[str, Field(min_length=1)] | None = None
    text_ids: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None
    language: Annotated[str, Field(min_length=1)] | None = None
    config: dict[str, Any] | None = None
    variant: Annotated[str, Field(min_length=1)] | None = None

    @property
    def sampling(self) -> SamplingConfig:
        """What the run was drawn with. Raises ConfigError for an unknown field or a value out of range."""
        given = dict(self.config or {})
        unknown = [name for name in given if name not in FIELDS]
        if unknown:
            raise ConfigError(f"{short(unknown[0])} is no field of a config", hint=nearest(unknown[0], FIELDS))
        tuples = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return SamplingConfig(**{**given, **tuples})

    @property
    def group(self) -> str:
        """Name of the text within which runs are compared."""
        return f"{self.cell} {self.prompt}" if self.cell else str(self.prompt)

    def __str__(self) -> str:
        """The line itself, without unset values."""
        data = self.model_dump(exclude_unset=True)
        if min(self.tokens, default=0) < 0:
            data["tokens"] = [None if token < 0 else token for token in self.tokens]
        return json.dumps(data, separators=(",", ":")) + "\n"


def read_token_runs(path: Path) -> list[TokenRun]:
    """Read a file of token runs. Raises TokensError as `read_lines` does."""
    return [run_of(line) for line in read_lines(path)]


def read_lines(path: Path, *, gaps: bool = False) -> list[TokenLine]:
    """Read the lines of a file of token runs. gaps: whether tokens may be left out.

    Raises TokensError naming file, line, key and value for an invalid run, for optional keys that only some lines have,
    for two lengths of one prompt, and for a prompt and seed that occur twice.
    """
    source = Source(path, TokensError, HINT, MOST_BYTES)
    lines = [(number, line) for number, line in enumerate(source.text().split("\n"), 1) if line.strip()]
    if not lines:
        raise source.refuse("has no lines", f"one run a line; {HINT}", join=" ")
    return checked_lines(source, ((number, parse(source, line, number)) for number, line in lines), gaps=gaps)


def checked_lines(source: Source, lines: Iterable[tuple[int, Any]], *, gaps: bool = False) -> list[TokenLine]:
    """Runs with their numbers, checked. Raises TokensError as `read_lines` does."""
    parsed = [(number, _checked(source, number, data)) for number, data in lines]
    _check_together(source, parsed)
    for number, line in parsed:
        if not gaps and min(line.tokens, default=0) < 0:
            place = next(place for place, token in enumerate(line.tokens) if token < 0)
            hint = "what was left out can be scored under a model (--against core), and not compared with runs"
            raise source.refuse(f"tokens[{place}] = null", hint, number)
    return [line for _, line in parsed]


def _checked(source: Source, number: int, data: Any) -> TokenLine:
    if not isinstance(data, dict):
        raise source.refuse(f"is no object: {short(data)}", f"one run a line; {HINT}", number, join=" ")
    try:
        run = TokenLine.model_validate(data)
    except ValidationError as error:
        raise source.refuse(*_explained(Fault.of(error)), number) from error
    for name in STEPS:
        values = getattr(run, name)
        if values is not None and len(values) != len(run.tokens):
            complaint = f"{name} has {len(values)} values for {len(run.tokens)} tokens"
            raise source.refuse(complaint, "one value a token", number)
    if run.stop_reason in ("eos", "forced_eos") and not run.tokens:
        raise source.refuse(f"tokens = [] with stop_reason {run.stop_reason!r}", "tokens include EOS", number)
    if run.text is not None and run.text_ids is not None:
        raise source.refuse("text and text_ids", "expected one of them", number, join=": ")
    try:
        _ = run.sampling
    except (ConfigError, TypeError) as error:
        raise source.refuse(f"config: {error}", "docs/processors.md has the fields", number) from error
    _check_positions(source, number, run)
    return run


def _check_positions(source: Source, number: int, line: TokenLine) -> None:
    if not line.position:
        return
    if line.text_length is None:
        raise source.refuse("key 'text_length' is missing", "position needs the length of the text", number)
    last = max(line.position)
    if last >= line.text_length:
        place = line.position.index(last)
        hint = f"expected less than text_length = {line.text_length}"
        raise source.refuse(f"position[{place}] = {last}", hint, number)


def _explained(fault: Fault) -> tuple[str, str]:
    """What is wrong in a line, and what is expected."""
    name, *places = (str(part) for part in fault.place)
    if fault.kind == "extra_forbidden":
        return f"unknown key {short(name)}", nearest(name, TokenLine.model_fields)
    if fault.kind == "missing":
        return f"key {name!r} is missing", HINT
    expected = {
        "prompt": "expected the id of a prompt, a text or a whole number",
        "tokens": "expected a list of whole numbers from 0, null where the log leaves a token out",
        "stop_reason": "expected eos, forced_eos, length or error",
        "logprobs": "expected natural logarithms of probabilities, at most 0, none of them NaN",
        "entropy": "expected a list of numbers from 0, in nats",
        "rank": "expected a list of whole numbers from 0",
        "margin": "expected a list of numbers, null where only one token was left",
        "position": "expected a list of whole numbers from 0, places in the text",
        "text_length": "expected a whole number above 0, as many as the text has places",
        "expected_length": "expected a number of tokens above 0",
        "seed": "expected a whole number",
        "cell": "expected the id of a cell, a text",
        "request": "expected a whole number from 0",
        "slot": "expected a whole number from 0",
        "width": "expected a whole number from 0",
        "text": "expected the text that was spoken",
        "text_ids": "expected a list of whole numbers from 0, ids of the text",
        "language": "expected the code of a language",
        "config": "expected an object with fields of SamplingConfig",
        "variant": "expected the name of a variant (sampler list)",
    }
    digits = [place for place in places if place.isdigit()]
    place = f"[{digits[0]}]" if digits else ""
    return f"{name}{place} = {short(fault.value)}", expected.get(name, fault.says)


def _check_together(source: Source, lines: Sequence[tuple[int, TokenLine]]) -> None:
    """Check what no single line can show."""
    first_number, first = lines[0]
    lengths: dict[tuple[str, str], tuple[int, float | None]] = {}
    seeds: dict[tuple[str, int], int] = {}
    for number, line in lines:
        for name in STEPS:
            if (getattr(line, name) is None) != (getattr(first, name) is None):
                has, lacks = (number, first_number) if getattr(first, name) is None else (first_number, number)
                complaint = f"line {has} has {name!r}, line {lacks} has not"
                raise source.refuse(complaint, "give it in all lines or in none")
        prompt = line.group
        for name in ("expected_length", "text_length") if line.tokens else ("expected_length",):
            value = getattr(line, name)
            before, known = lengths.setdefault((prompt, name), (number, value))
            if value != known:
                complaint = f"{name} = {value} of prompt {short(prompt)}, line {before} has {known}"
                raise source.refuse(complaint, f"a prompt has one {name.replace('_', ' ')}", number)
        if line.seed is not None and seeds.setdefault((prompt, line.seed), number) != number:
            complaint = f"prompt {short(prompt)} with seed {line.seed} is in line {seeds[prompt, line.seed]} too"
            raise source.refuse(complaint, "were two files joined?", number)


def run_of(line: TokenLine) -> TokenRun:
    """The run of a line, for the questions about whole runs."""
    columns: dict[str, Any] = {
        name: np.array([math.inf if value is None else value for value in values], dtype=np.float64)
        for name in SCALARS
        if (values := getattr(line, name)) is not None
    }
    if line.position is not None:
        columns["position"] = np.array(line.position, dtype=np.int64)
    columns |= {"expected": line.expected_length, "text_length": line.text_length}
    return TokenRun(line.group, line.tokens, line.stop_reason, **columns)


def write_token_runs(path: Path, runs: Sequence[TokenRun]) -> None:
    """Write runs to a file that appears whole or not at all.

    Raises OutputError if it cannot be written, TokensError for a run that could not be read again.
    """
    write_whole(path, "".join([f"{line}\n" for line in _lines(path, runs)]))


def _lines(path: Path, runs: Sequence[TokenRun]) -> Iterator[str]:
    source = Source(path, TokensError, HINT, unit="run")
    written, positions = [], any(run.position is not None for run in runs)
    for number, run in enumerate(runs, 1):
        data: dict[str, Any] = {"prompt": run.text, "tokens": list(run.tokens), "stop_reason": run.stop_reason}
        for name in ("logprobs", "entropy"):
            if (values := getattr(run, name)) is not None:
                data[name] = [_float(value) for value in values]
        if run.rank is not None:
            data["rank"] = [int(value) for value in run.rank]
        if run.margin is not None:
            data["margin"] = [_float(value) if value < math.inf else None for value in run.margin]
        if run.position is not None:
            data["position"] = [int(place) for place in run.position]
        elif positions and not run.tokens:
            data["position"] = []  # a run that stopped at once has nothing to record
        if run.text_length is not None:
            data["text_length"] = run.text_length
        if run.expected is not None:
            data["expected_length"] = run.expected
        line = json.dumps(data)
        written.append((number, _checked(source, number, parse(source, line, number))))
        yield line
    if not written:
        raise source.refuse("would have no lines", "give at least one run", join=" ")
    _check_together(source, written)


def _float(value: float) -> float:
    """Rounded to seven digits, which is float32's precision."""
    return float(f"{value:.7g}")
