"""Who may import whom, and what stays optional; each check is shown to be able to fail."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sampler

PACKAGE = Path(__file__).parents[2] / "sampler"
GROUND = {"config", "errors", "statistics", "version", "blas", "compiled"}
EVERYTHING = None

ALLOWED: dict[str, set[str] | None] = {
    "blas": {"errors"},
    "compiled": set(),
    "version": set(),
    "errors": set(),
    "statistics": set(),
    "config": {"errors"},
    "chain": GROUND,
    "t3": GROUND,
    "alignment": GROUND,
    "variants": GROUND | {"alignment"},
    "requests": GROUND,
    "slots": GROUND | {"t3", "requests", "variants"},
    "prefixes": GROUND | {"t3"},
    # A block knows its generator by type only; the generator makes it.
    "batching": GROUND | {"chain", "t3", "alignment", "variants", "requests", "slots", "prefixes", "generation"},
    "generation": GROUND | {"batching", "prefixes"} | {"chain", "t3", "alignment", "variants", "requests", "slots"},
    "finch": GROUND | {"chain", "t3", "generation"},
    "engines.base": GROUND | {"generation"},
    "engines": GROUND | {"chain", "t3", "generation", "finch", "engines"},
    "checks.loops": {"errors"},  # a guard for any token loop, of whatever framework
    "checks": GROUND | {"engines.base", "engines.calls", "engines.offer"},
    "matrix_file": GROUND,
    "matrix": GROUND | {"matrix_file", "variants"},
    "blocks": GROUND | {"matrix"},
    "prompts": GROUND | {"finch", "matrix"},
    "results": GROUND | {"checks", "matrix", "engines.base"},
    "trace": GROUND | {"chain", "generation", "engines", "results"},
    "doctor": GROUND,
    "case_result": EVERYTHING,
    "cell_runs": EVERYTHING,
    "run": EVERYTHING,
    "run_file": EVERYTHING,
    "longform": EVERYTHING,
    "longform_plan": EVERYTHING,
    "matrix_run": EVERYTHING,
    "groups": EVERYTHING,
    "longform_workers": EVERYTHING,
    "cases": EVERYTHING,
    "recording": EVERYTHING,
    "check": EVERYTHING,
    "token_check": EVERYTHING,
    "token_plan": EVERYTHING,
    "conformance": EVERYTHING,
    "cli_check": EVERYTHING,
    "cli_report": EVERYTHING,
    "cli_trace": EVERYTHING,
    "cli_errors": {"errors"},
    "cli_say": EVERYTHING,
    "replay": EVERYTHING,
    "cli": EVERYTHING,
    "pytest_items": EVERYTHING,
    "__main__": {"cli"},
    "__init__": {"blas", "chain", "checks.loops", "config", "version"},
}
"""What a module or folder may import besides itself.

`blas`, `compiled` and `version` are ground: they import nothing of ours.
"""


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
        ("checks/drift.py", "from sampler.engines.huggingface import X", "checks/drift.py imports engines.huggingface"),
        ("checks/loops/guard.py", "from sampler.checks.base import X", "checks/loops/guard.py imports checks.base"),
        ("config.py", "import sampler.run", "config.py imports run"),
        ("engines/base.py", "from sampler.engines.core import X", "engines/base.py imports engines.core"),
        ("results/html.py", "from sampler.run import Session", "results/html.py imports run"),
        ("statistics/distance.py", "from sampler import errors", "statistics/distance.py imports errors"),
        ("chain/draw.py", "from ..run import Session", "chain/draw.py imports relative (1)"),
    ],
)
def test_a_forbidden_import_would_be_seen(tmp_path, file, line, expected):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
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


def test_a_guard_needs_no_array_framework():
    assert not loaded_by("from sampler import LoopGuard; LoopGuard().add(3)") & {"mlx", "numpy", "scipy"}
    assert "mlx" in loaded_by("from sampler import process")


def test_that_check_can_fail():
    assert loaded_by("import torch") & OPTIONAL == {"torch"}


def test_unknown_names_of_the_package_are_refused():
    with pytest.raises(AttributeError, match="module 'sampler' has no attribute 'processes'"):
        sampler.processes  # noqa: B018


LATE = {"jinja2", "matplotlib"}
"""Installed with the package, and imported when the first page or picture is made."""


@pytest.mark.parametrize("statement", ["import sampler.cli", "import sampler.recording, sampler.results.html"])
def test_a_command_without_a_picture_starts_without_the_packages_for_it(statement):
    assert not loaded_by(statement) & LATE


def test_that_a_page_needs_them_shows_that_this_check_can_fail():
    assert loaded_by("from sampler.results import html; html._template()") & LATE == {"jinja2"}
