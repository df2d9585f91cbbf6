"""Options that several commands have, and the ranges of their numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampler.errors import ConfigError

if TYPE_CHECKING:
    from sampler.checks.longform.absolute import RunLimits

RunSeed = Annotated[int, typer.Option("--seed", help="Seed of the run; a nightly run takes its run number.")]
CheckSeed = Annotated[int, typer.Option("--seed", help="Seed of the inputs and of the draws.")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Engine: core, `package.module:factory` or `file.py:factory`.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Folder with upstream's own files, or the weights file in it.")
]
Rate = Annotated[
    float, typer.Option("--false-alarm-rate", help="How often all checks together may accuse a right engine.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Differences at exact ties, or at an exact mass, fail too.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        help="Seconds that one call of an engine of your own may take [default: to generate, 30 and 0.25 for each "
        "token that may come; for other calls 3 to 30; to load it, 120].",
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        help="GiB that an engine of your own and its child processes may use [default: 0.75 of this machine's].",
    ),
]

LimitLooping = Annotated[
    float, typer.Option("--limit-looping", help="Share of runs that may loop, whatever a reference does.")
]
LimitMissing = Annotated[
    float, typer.Option("--limit-missing", help="Share of runs that may reach their maximum length.")
]
Detect = Annotated[
    float, typer.Option("--detect", help="Share of looping or endless runs that must be detectable to agree.")
]


Fixes = Annotated[
    str | None,
    typer.Option("--fix", help="What to put right in a log: offset, padding, bos, prefix, eos, names; commas between."),
]


def check_limits(looping: float, missing: float, detect: float) -> "RunLimits":
    """The absolute limits of runs. Raises SamplerError for a share outside (0, 1)."""
    from sampler.checks.longform.absolute import RunLimits

    return RunLimits(looping, missing, detect)


def check_numbers(rate: float, tolerance: float, seed: int) -> None:
    """Raise ConfigError for an option of `sampler check` that is out of range."""
    from sampler.statistics.judgement import checked_rate

    try:
        checked_rate("--false-alarm-rate", rate)
    except ValueError as error:
        raise ConfigError(str(error), hint="1e-6 is the default") from error
    if not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance {tolerance} is no total variation", hint="expected a number from 0 to 1")
    if seed < 0:
        raise ConfigError(f"--seed {seed} is negative", hint="expected 0 or more")
