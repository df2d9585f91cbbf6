"""Named behaviours of upstream, and of other known analyzers, as data: the validated contents of `variants.toml`."""

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.alignment import AnalyzerConfig
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, VariantError, nearest

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
    """Read a variants file, the shipped one without a path. Raises VariantError naming file, key and value."""
    path = path or shipped_file()
    file = _read(path)
    analyzers = {name: _analyzer(path, name, entry) for name, entry in file.analyzers.items()}
    return {name: _variant(path, name, entry, analyzers) for name, entry in file.variants.items()}


@functools.cache
def load_analyzers(path: Path | None = None) -> Mapping[str, AnalyzerConfig]:
    """The analyzers of a variants file, upstream's and others. Raises VariantError as `load_variants` does."""
    path = path or shipped_file()
    return {name: _analyzer(path, name, entry) for name, entry in _read(path).analyzers.items()}


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


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise VariantError(f"{path} cannot be read: {error.strerror}", hint="give a .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VariantError(f"{path} is no TOML: {error}", hint="see sampler/variants.toml") from error
    except ValidationError as error:
        fields = {1: _File.model_fields, 3: _Analyzer.model_fields}
        raise _schema_error(f"{path}: ", error, fields.get(len(error.errors()[0]["loc"]), {})) from error


def _schema_error(place: str, error: ValidationError, known: Iterable[str]) -> VariantError:
    """The first error of the schema. known: the allowed keys."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    unknown = first["type"] == "extra_forbidden"
    return VariantError(f"{place}{key}", hint=nearest(str(first["loc"][-1]), known) if unknown else first["msg"])


def _analyzer(path: Path, name: str, entry: _Analyzer) -> AnalyzerConfig:
    built: AnalyzerConfig = _build(AnalyzerConfig, entry.constants, f"{path}: analyzers.{name}.constants")
    return built


def _variant(path: Path, name: str, entry: dict[str, Any], analyzers: Mapping[str, AnalyzerConfig]) -> Variant:
    place = f"{path}: variants.{name}."
    rest = {key: value for key, value in entry.items() if key != "knobs"}
    for key, kind in (("knobs", dict), ("analyzer", str)):
        if not isinstance(entry.get(key), kind):
            problem = f"expected a {'table' if kind is dict else 'name'}" if key in entry else "Field required"
            raise VariantError(f"{place}{key}", hint=problem)
    if entry["analyzer"] not in ("none", *analyzers):
        hint = nearest(entry["analyzer"], ["none", *analyzers])
        raise VariantError(f"{place}analyzer = {entry['analyzer']!r} is unknown", hint=hint)
    config = _build(SamplingConfig, entry["knobs"], f"{place}knobs")
    built = {"name": name, "config": config, "analyzer": analyzers.get(entry["analyzer"])}
    try:
        return Variant.model_validate(rest | built)
    except ValidationError as error:
        known = [key for key in (*Variant.model_fields, "knobs") if key not in ("name", "config")]
        raise _schema_error(place, error, known) from error


def _build(kind: type[Any], values: Mapping[str, Any], place: str) -> Any:
    """Build a frozen dataclass; its errors are raised with the place in the file."""
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            raise VariantError(f"{place}: unknown key {name!r}", hint=nearest(name, known))
    try:
        return kind(**values)
    except ConfigError as error:
        raise VariantError(f"{place}: {error.message}", hint=error.hint) from error
