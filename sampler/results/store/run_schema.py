"""The schema of a run file: what header, verdicts and footer may hold. Runs of older versions have fewer keys."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sampler.checks.verdict import Outcome, Verdict, Whole

FORMAT: Final = "sampler-run/2"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Crash = Annotated[str, Field(pattern=r"^crashes/[0-9a-f]{16}\.json$")]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Text = str | None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Matrix(_Part):
    name: str = ""
    sha256: Text = None
    cells: Count = 0


class _Engine(_Part):
    name: str
    version: Text = None
    device: Text = None
    dtype: Text = None


class _Weights(_Part):
    path: Text = None
    sha256: Text = None
    layout: Text = None


class _Header(_Part):
    """checks: what each check tests, as a sentence."""

    format: Literal["sampler-run/2"]
    sampler: Text = None
    matrix: _Matrix
    why: str = ""
    checks: dict[str, str] = {}
    seed: int = 0
    width: Count | None = None
    engine: _Engine
    engine_name: Text = None
    weights: _Weights | None = None
    oracle: Text = None
    false_alarm_rate: Share | None = None
    mlx: Text = None
    blas: Text = None
    python: Text = None
    platform: Text = None


class _Footer(_Part):
    """files: SHA-256 of the files beside it; crashes: the crash file of a case."""

    verdicts: dict[Outcome, Count]
    tokens: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    outcome: Whole | None = None
    exit_code: Literal[0, 1, 3] | None = None
    finished: Text = None
    files: dict[Literal["tokens.jsonl", "attention.safetensors", "scoring.json"], Digest] = {}
    crashes: dict[str, Crash] = {}


HEADER: Final = TypeAdapter(_Header)
FOOTER: Final = TypeAdapter(_Footer)
VERDICT: Final = TypeAdapter(Verdict)
