"""What is mutated: parts of the package, each with the levels that judge it, its arguments and its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["process", "draw", "longform"]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Area:
    """Some modules of the package. patterns: their paths in `sampler/`; no two modules of all areas share a name.

    levels: the cheap one first. arguments: the hand-written file about survivors; report: what a run writes.
    """

    name: str
    patterns: tuple[str, ...]
    levels: tuple[Level, ...]
    arguments: Path
    report: Path

    def files(self, root: Path = ROOT) -> dict[str, Path]:
        """Modules by name, in the order of the patterns, then of their names."""
        found = (path for pattern in self.patterns for path in sorted((root / "sampler").glob(pattern)))
        return {path.name: path for path in found}


CHAIN = Area(
    "chain",
    ("chain/*.py",),
    ("process", "draw"),
    Path(__file__).with_name("survivors.toml"),
    ROOT / "docs" / "evidence" / "mutation.md",
)
LONGFORM = Area(
    "longform",
    ("alignment.py", "generation/[!_]*.py", "t3/cache.py", "t3/slot_cache.py"),
    ("longform",),
    Path(__file__).with_name("survivors-longform.toml"),
    ROOT / "docs" / "evidence" / "mutation-longform.md",
)
AREAS: Mapping[str, Area] = {area.name: area for area in (CHAIN, LONGFORM)}


def path_of(file: str, root: Path = ROOT) -> Path:
    """Where a module of that name stands."""
    return next(found[file] for found in (area.files(root) for area in AREAS.values()) if file in found)
