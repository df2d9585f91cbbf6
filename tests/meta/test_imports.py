"""Who may import whom, and what stays optional; each check is shown to be able to fail."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sampler"
GROUND = {"config", "errors", "statistics", "version", "blas"}
EVERYTHING = None

ALLOWED: dict[str, set[str] | None] = {
    "blas": set(),
    "version": set(),
    "errors": set(),
    "statistics": set(),
    "config": {"errors"},
    "chain": GROUND,
    "t3": GROUND,
    "generation": GROUND | {"chain", "t3"},
    "finch": GROUND | {"chain", "t3", "generation"},
    "engines.base": GROUND | {"generation"},
    "engines": GROUND | {"chain", "t3", "generation", "finch", "engines"},
    "checks": GROUND | {"engines.base", "engines.calls", "engines.offer"},
    "matrix": GROUND,
    "results": GROUND | {"checks", "matrix"},
    "doctor": GROUND,
    "run": EVERYTHING,
    "check": EVERYTHING,
    "conformance": EVERYTHING,
    "cli_check": EVERYTHING,
    "cli_errors": {"errors"},
    "cli_say": EVERYTHING,
    "replay": EVERYTHING,
    "cli": EVERYTHING,
    "pytest_items": EVERYTHING,
    "__main__": {"cli"},
    "__init__": {"blas", "chain", "config", "version"},
}
"""What a module or folder may import besides itself. `blas` and `version` are ground: they import nothing of ours."""


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, as `engines.base`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sampler":
            inside = node.module.split(".")[1:]
            yield from [".".join(inside)] if inside else [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"relative ({node.lineno})"
        if isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("sampler.") for alias in node.names if alias.name.startswith("sampler.")
            )


def rule_of(path: Path, package: Path) -> str:
    """The entry of ALLOWED that a file falls under: the longest that fits."""
    parts = path.relative_to(package).with_suffix("").parts
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next(name for name in names if name in ALLOWED)


def violations(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        rule = rule_of(path, package)
        allowed = ALLOWED[rule]
        if allowed is EVERYTHING:
            continue
        for name in imported(path):
            prefixes = [".".join(name.split(".")[:count]) for count in range(1, len(name.split(".")) + 1)]
            if rule not in prefixes and not allowed & set(prefixes):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def test_every_layer_imports_only_what_lies_below():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("chain/draw.py", "from sampler.generation import Generator", "chain/draw.py imports generation"),
        ("checks/loops.py", "from sampler.engines.huggingface import X", "checks/loops.py imports engines.huggingface"),
        ("config.py", "import sampler.run", "config.py imports run"),
        ("engines/base.py", "from sampler.engines.core import X", "engines/base.py imports engines.core"),
        ("statistics/distance.py", "from sampler import errors", "statistics/distance.py imports errors"),
        ("chain/draw.py", "from ..run import Session", "chain/draw.py imports relative (1)"),
    ],
)
def test_a_forbidden_import_would_be_seen(tmp_path, file, line, expected):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line, encoding="utf-8")
    assert violations(tmp_path) == [expected]


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after a statement."""
    program = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


OPTIONAL = {
    "torch",
    "transformers",
    "mlx_lm",
    "mlx_audio",
    "einops",
    "sklearn",
    "wonderwords",
    "espeakng_loader",
    "pytest",
    "hypothesis",
}


@pytest.mark.parametrize(
    "statement",
    [
        "import sampler",
        "import sampler.cli",
        "import sampler.engines.registry",
        "from sampler import finch; finch.load()",
    ],
)
def test_optional_packages_stay_optional(statement):
    assert not loaded_by(statement) & OPTIONAL


def test_that_check_can_fail():
    assert loaded_by("import torch") & OPTIONAL == {"torch"}
