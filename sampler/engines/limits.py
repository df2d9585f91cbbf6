"""How long an engine may take, and how much memory: of one in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampler.errors import ConfigError
from sampler.requests import Request

START_SECONDS = 30.0
SECONDS_PER_TOKEN = 0.25
"""A call of `generate` may take the first, and the second for each token that its requests allow."""

SHARE_OF_MEMORY = 0.75
"""Of the machine's memory, for the engine's process and its children."""

GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """timeout: seconds of one call, None: by the method and by what it is asked for. memory: GiB, None: by the machine.

    Raises ConfigError for a number that is not above zero.
    """

    timeout: float | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        for name, value, unit in (("timeout", self.timeout, "seconds"), ("memory", self.memory, "GiB")):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"--{name} {value:g}", hint=f"expected a number of {unit} above 0")

    @property
    def bytes(self) -> int:
        """Memory of the engine's process and its children."""
        return int(SHARE_OF_MEMORY * _memory_here() if self.memory is None else self.memory * GIB)

    @property
    def options(self) -> list[str]:
        """The options of the command line for these limits."""
        given = (("--timeout", self.timeout), ("--memory", self.memory))
        return [part for name, value in given if value is not None for part in (name, f"{value:g}")]

    def to_generate(self, requests: Sequence[Request]) -> float:
        """Seconds of a call of `generate`."""
        tokens = sum(request.max_new_tokens for request in requests)
        return START_SECONDS + SECONDS_PER_TOKEN * tokens if self.timeout is None else self.timeout


DEFAULT_LIMITS = Limits()


def _memory_here() -> int:
    """Bytes of memory of this machine, or of the container that this process runs in."""
    import psutil

    total = int(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # not on Linux, or no limit
            continue
    return total
