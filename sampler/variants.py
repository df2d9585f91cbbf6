"""Named behaviours of upstream, and of analyzers in the wild, as data: what `variants.toml` says, checked."""

import difflib
import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampler.alignment import AnalyzerConfig
from sampler.config import SamplingConfig
from sampler.errors import ConfigError, VariantError

PenaltyHistory = Literal["bos_and_generated", "bos_at_first", "generated"]
"""What the repetition penalty sees: BOS and every drawn token; BOS at the first step and then drawn tokens alone, as
`inference_turbo` has it; drawn tokens alone."""

Guidance = Literal["always", "positive_weight", "never"]
"""Whether there is an unconditional row: at any `cfg_weight`, for weights above 0, or not at all."""

Post = Literal["between_bos_and_eos", "codes_only", "clamp_codes", "append_silence", "cut_last_code"]
"""What happens to the tokens behind T3: everything up to a BOS and from EOS on is dropped (`drop_invalid_tokens`); ids
of 6561 and more are dropped; they become 6560; three tokens 4299 are added; the last 40 ms of sound are cut."""


@dataclass(frozen=True)
class Variant:
    """One behaviour of T3's generation loop."""

    name: str
    describes: str
    """Class and releases."""
    commit: str
    """Of upstream's git, whose code it is."""
    wheels: tuple[str, ...]
    """Releases of chatterbox-tts whose own code the tests compare it with; empty: only in git, no oracle."""
    backbone: Literal["llama", "gpt2"]
    bos_count: int
    """BOS rows at the end of the prefix."""
    guidance: Guidance
    weight_zero: Literal["works", "raises"]
    """What upstream does at `cfg_weight` 0; this core generates in either case."""
    config: SamplingConfig
    """Default knobs and the order of the stages."""
    penalty_history: PenaltyHistory
    analyzer: AnalyzerConfig | None
    cap: int
    """`max_new_tokens` that upstream's `generate` asks for."""
    beyond_cap: int
    """How many tokens more than that a run may have."""
    first_token_ends: bool
    """Whether EOS ends a run that has no other token."""
    post: tuple[Post, ...]

    @property
    def has_oracle(self) -> bool:
        """Whether its code can be installed and run."""
        return bool(self.wheels)

    def rules(self) -> dict[str, Any]:
        """What `Generator` takes of it."""
        names = ("bos_count", "analyzer", "penalty_history", "first_token_ends", "beyond_cap")
        return {name: getattr(self, name) for name in names}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Analyzer(_Strict):
    source: Annotated[str, Field(min_length=1)]
    constants: dict[str, Any] = {}


class _Entry(_Strict):
    describes: Annotated[str, Field(min_length=1)]
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]
    wheels: list[Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]]
    backbone: Literal["llama", "gpt2"]
    bos_count: Annotated[int, Field(ge=1, le=2)]
    guidance: Guidance
    weight_zero: Literal["works", "raises"]
    penalty_history: PenaltyHistory
    analyzer: str
    cap: Annotated[int, Field(ge=1)]
    beyond_cap: Annotated[int, Field(ge=0)]
    first_token_ends: bool
    post: list[Post]
    knobs: dict[str, Any]


class _File(_Strict):
    analyzers: dict[str, _Analyzer]
    variants: dict[str, _Entry]


def shipped_file() -> Path:
    """The file that comes with the package."""
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
    """The analyzers of a variants file, of upstream and in the wild. Raises VariantError as `load_variants` does."""
    path = path or shipped_file()
    return {name: _analyzer(path, name, entry) for name, entry in _read(path).analyzers.items()}


def variant(name: str) -> Variant:
    """One shipped variant. Raises VariantError with the nearest name."""
    known = load_variants()
    if name not in known:
        raise VariantError(f"there is no variant {name!r}", hint=_nearest(name, known))
    return known[name]


def analyzer(name: str) -> AnalyzerConfig | None:
    """One shipped analyzer, None for `none`. Raises VariantError with the nearest name."""
    known = load_analyzers()
    if name != "none" and name not in known:
        raise VariantError(f"there is no analyzer {name!r}", hint=_nearest(name, [*known, "none"]))
    return known.get(name)


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise VariantError(f"{path} cannot be read: {error.strerror}", hint="give a .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VariantError(f"{path} is no TOML: {error}", hint="see sampler/variants.toml") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = first["msg"]
        if first["type"] == "extra_forbidden":
            schema = {1: _File, 3: _Entry if first["loc"][0] == "variants" else _Analyzer}[len(first["loc"])]
            hint = _nearest(str(first["loc"][-1]), schema.model_fields)
        raise VariantError(f"{path}: {key}", hint=hint) from error


def _analyzer(path: Path, name: str, entry: _Analyzer) -> AnalyzerConfig:
    built: AnalyzerConfig = _build(AnalyzerConfig, entry.constants, f"{path}: analyzers.{name}.constants")
    return built


def _variant(path: Path, name: str, entry: _Entry, analyzers: Mapping[str, AnalyzerConfig]) -> Variant:
    place = f"{path}: variants.{name}"
    if entry.analyzer not in ("none", *analyzers):
        hint = _nearest(entry.analyzer, ["none", *analyzers])
        raise VariantError(f"{place}.analyzer = {entry.analyzer!r} is unknown", hint=hint)
    data = entry.model_dump(exclude={"knobs"})
    return Variant(
        **data
        | {
            "name": name,
            "wheels": tuple(entry.wheels),
            "post": tuple(entry.post),
            "analyzer": analyzers.get(entry.analyzer),
            "config": _build(SamplingConfig, entry.knobs, f"{place}.knobs"),
        }
    )


def _build(kind: type[Any], values: Mapping[str, Any], place: str) -> Any:
    """A frozen dataclass that checks itself; what it refuses is said with the place in the file."""
    known = [each.name for each in fields(kind)]
    for name in values:
        if name not in known:
            raise VariantError(f"{place}: unknown key {name!r}", hint=_nearest(name, known))
    try:
        return kind(**values)
    except ConfigError as error:
        raise VariantError(f"{place}: {error.message}", hint=error.hint) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
