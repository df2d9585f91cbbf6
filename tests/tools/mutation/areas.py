"""What is mutated: parts of the package, each with the levels that judge it, its arguments and its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["process", "draw", "longform", "tests"]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Area:
    """Some modules of the package. patterns: their paths in `sampler/`; no two modules of all areas share a name.

    levels: the cheap one first. tests: of level `tests`, the files of tests that judge. share: of all mutations, what
    is judged without an option, so that a run takes half an hour. arguments: the hand-written file about survivors;
    report: what a run writes.
    """

    name: str
    patterns: tuple[str, ...]
    levels: tuple[Level, ...]
    suffix: str = ""
    tests: tuple[str, ...] = ()
    share: float = 0.35

    @property
    def arguments(self) -> Path:
        return Path(__file__).with_name(f"survivors{self.suffix}.toml")

    @property
    def report(self) -> Path:
        return ROOT / "docs" / "evidence" / f"mutation{self.suffix}.md"

    def files(self, root: Path = ROOT) -> dict[str, Path]:
        found = (path for pattern in self.patterns for path in sorted((root / "sampler").glob(pattern)))
        return {path.name: path for path in found}


CHAIN = Area("chain", ("chain/*.py",), ("process", "draw"))
GENERATION = ("alignment.py", "generation/[!_]*.py", "t3/cache.py", "t3/slot_cache.py")
LONGFORM = Area("longform", GENERATION, ("longform",), "-longform")
VERDICTS = ("checks/verdict.py", "checks/longform/absolute.py", "checks/scoring/wagers.py", "run/pooled.py")
DISTRIBUTION = ("bets", "bounds", "draw", "own_noise", "power", "runs", "sets", "statistics", "stratified", "verdicts")
TESTS = (
    *(f"tests/distribution/test_{name}.py" for name in DISTRIBUTION),
    "tests/interface/test_absolute_limits.py",
    "tests/longform/test_token_runs.py",
)
JUDGES = Area("judges", ("statistics/[!_]*.py", *VERDICTS), ("tests",), "-judges", TESTS, share=0.1)
AREAS: Mapping[str, Area] = {area.name: area for area in (CHAIN, LONGFORM, JUDGES)}


def path_of(file: str, root: Path = ROOT) -> Path:
    return next(found[file] for found in (area.files(root) for area in AREAS.values()) if file in found)
