"""Named behaviours of upstream, and of other known analyzers, as data: the validated contents of `variants.toml`."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sampler.alignment import AnalyzerConfig
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, VariantError, nearest
from sampler.runtime.reading.document import Document, Fault, Place, named
from sampler.runtime.reading.source import Source, short
from sampler.runtime.reading.toml_text import read_toml

PenaltyHistory = Literal["bos_and_generated", "bos_at_first", "generated"]
"""The ids for the repetition penalty: BOS and every drawn token; BOS at the first step and then only drawn tokens, as
in `inference_turbo`; only drawn tokens."""

Guidance = Literal["always", "positive_weight", "never"]
"""Whether there is an unconditional row: at any `cfg_weight`, for weights above 0, or not at all."""

Post = Literal["between_bos_and_eos", "codes_only", "clamp_codes", "append_silence", "cut_last_code"]
"""Processing of the tokens after T3: everything up to a BOS and from EOS on is dropped (`drop_invalid_tokens`); ids of
6561 and more are dropped; they become 6560; three tokens 4299 are added; the last 40 ms of sound are cut."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Variant(_Strict):
    """One behaviour of T3's generation loop: its entry in the file, with parsed `config` and `analyzer`."""

    name: str
    describes: Annotated[str, Field(min_length=1)]
    """Class and releases."""
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]
    """The commit of upstream's git with this code."""
    wheels: Annotated[tuple[Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")], ...], Field(strict=False)]
    """Releases of chatterbox-tts that the tests compare it with; empty: only in git, nothing to compare with."""
    backbone: Literal["llama", "gpt2"]
    bos_count: Annotated[int, Field(ge=1, le=2)]
    """BOS rows at the end of the prefix."""
    guidance: Guidance
    weight_zero: Literal["works", "raises"]
    """Upstream's behaviour at `cfg_weight` 0; this core generates in both cases."""
    config: SamplingConfig
    """Default parameters and the order of the stages; `knobs` in the file."""
    penalty_history: PenaltyHistory
    analyzer: AnalyzerConfig | None
    cap: Annotated[int, Field(ge=1)]
    """`max_new_tokens` in upstream's `generate`."""
    beyond_cap: Annotated[int, Field(ge=0)]
    """How many tokens a run may have beyond that."""
    first_token_ends: bool
    """Whether EOS as the first token ends a run."""
    post: Annotated[tuple[Post, ...], Field(strict=False)]

    def rules(self) -> dict[str, Any]:
        names = ("bos_count", "analyzer", "penalty_history", "first_token_ends", "beyond_cap")
        return {name: getattr(self, name) for name in names}


class _Analyzer(_Strict):
    source: Annotated[str, Field(min_length=1)]
    constants: dict[str, Any] = {}


class _File(_Strict):
    analyzers: dict[str, _Analyzer]
    variants: dict[str, dict[str, Any]]


def shipped_file() -> Path:
    """The file that ships with the package."""
    return Path(str(resources.files("sampler") / "variants.toml"))


@functools.cache
def load_variants(path: Path | None = None) -> Mapping[str, Variant]:
    """Read a variants file, the shipped one without a path. Raises VariantError naming file, line, key and value."""
    file, document = _read(path or shipped_file())
    analyzers = {name: _analyzer(document, name, entry) for name, entry in file.analyzers.items()}
    return {name: _variant(document, name, entry, analyzers) for name, entry in file.variants.items()}


@functools.cache
def load_analyzers(path: Path | None = None) -> Mapping[str, AnalyzerConfig]:
    """The analyzers of a variants file, upstream's and others. Raises VariantError as `load_variants` does."""
    file, document = _read(path or shipped_file())
    return {name: _analyzer(document, name, entry) for name, entry in file.analyzers.items()}


def variant(name: str) -> Variant:
    """One shipped variant. Raises VariantError with the nearest name."""
    known = load_variants()
    if name not in known:
        raise VariantError(f"there is no variant {name!r}", hint=nearest(name, known))
    return known[name]


def analyzer(name: str) -> AnalyzerConfig | None:
    """One shipped analyzer, None for `none`. Raises VariantError with the nearest name."""
    known = load_analyzers()
    if name != "none" and name not in known:
        raise VariantError(f"there is no analyzer {name!r}", hint=nearest(name, [*known, "none"]))
    return known.get(name)


def _read(path: Path) -> tuple[_File, Document]:
    document = read_toml(Source(path, VariantError, "see sampler/variants.toml"))

    def explained(fault: Fault) -> tuple[str, str]:
        known = {1: _File.model_fields, 3: _Analyzer.model_fields}.get(len(fault.place), {})
        return _explained(fault, fault.key, known)

    return document.check(TypeAdapter(_File), explained), document


def _explained(fault: Fault, key: str, known: Iterable[str]) -> tuple[str, str]:
    """The key at fault and what is expected. known: the allowed keys."""
    return key, nearest(str(fault.place[-1]), known) if fault.kind == "extra_forbidden" else fault.says


def _analyzer(document: Document, name: str, entry: _Analyzer) -> AnalyzerConfig:
    built: AnalyzerConfig = _build(AnalyzerConfig, entry.constants, document, ("analyzers", name, "constants"))
    return built


def _variant(document: Document, name: str, entry: dict[str, Any], analyzers: Mapping[str, AnalyzerConfig]) -> Variant:
    place: Place = ("variants", name)
    rest = {key: value for key, value in entry.items() if key != "knobs"}
    for key, kind in (("knobs", dict), ("analyzer", str)):
        if not isinstance(entry.get(key), kind):
            problem = f"expected a {'table' if kind is dict else 'name'}" if key in entry else "Field required"
            raise document.refuse(named((*place, key)), problem, (*place, key))
    if entry["analyzer"] not in ("none", *analyzers):
        hint = nearest(entry["analyzer"], ["none", *analyzers])
        where = (*place, "analyzer")
        raise document.refuse(f"{named(where)} = {short(entry['analyzer'])} is unknown", hint, where)
    config = _build(SamplingConfig, entry["knobs"], document, (*place, "knobs"))
    built = {"name": name, "config": config, "analyzer": analyzers.get(entry["analyzer"])}
    try:
        return Variant.model_validate(rest | built)
    except ValidationError as error:
        known = [key for key in (*Variant.model_fields, "knobs") if key not in ("name", "config")]
        fault = Fault.of(error)
        where = (*place, *fault.place)
        raise document.refuse(*_explained(fault, named(where), known), where) from error


def _build(kind: type[Any], values: Mapping[str, Any], document: Document, place: Place) -> Any:
    """Build a frozen dataclass; its errors are raised with the place in the file."""
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            complaint = f"{named(place)}: unknown key {short(name)}"
            raise document.refuse(complaint, nearest(name, known), (*place, name))
    try:
        return kind(**values)
    except ConfigError as error:
        raise document.refuse(f"{named(place)}: {error.message}", error.hint, place) from error
