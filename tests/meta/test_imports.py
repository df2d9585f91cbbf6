"""Who may import whom, and what stays optional; each check is shown to be able to fail.

The rules hold for every import: at the top of a file, inside a function, under TYPE_CHECKING, relative, and by a string
that names a module.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sampler

PACKAGE = Path(__file__).parents[2] / "sampler"

FOUNDATION = ("errors", "version", "statistics", "stages", "loops", "runtime")
GROUND = (*FOUNDATION, "config", "alignment", "variants", "requests")
MODELS = (*GROUND, "chain", "t3", "s3gen")
CONTRACT = ("errors", "stages", "config", "requests")
OF_ENGINES = tuple(f"engines.{name}" for name in ("arrays", "base", "calls", "capabilities", "rules"))
CHECKED = (*CONTRACT, "statistics", "loops", *OF_ENGINES, "checks.verdict")
BELOW_PAGES = (*MODELS, "generation", "finch", "engines", "matrix", "checks", "results.store")

RULES: Mapping[str, tuple[str, ...]] = {
    "errors": (),
    "version": (),
    "statistics": (),
    "stages": ("errors", "version"),
    "loops": ("errors", "version"),
    "runtime": ("errors", "version"),
    "config": ("stages", "errors"),
    "alignment": (*FOUNDATION, "config"),
    "variants": (*FOUNDATION, "config", "alignment"),
    "requests": (*FOUNDATION, "config"),
    "chain": GROUND,
    "t3": GROUND,
    "s3gen": GROUND,
    "generation": MODELS,
    "finch": (*MODELS, "generation"),
    "engines": (*GROUND, "engines"),
    "engines.base": (*CONTRACT, "engines.rules", "engines.arrays"),
    "engines.rules": ("errors", "stages"),
    "engines.arrays": (),
    "engines.core": (*MODELS, "generation", "finch", "engines"),
    "engines.registry": (*MODELS, "generation", "finch", "engines"),
    "matrix": GROUND,
    "checks.verdict": CHECKED,
    "checks.sentences": (),
    "checks.steps": (*CHECKED, "checks.scoring"),
    "checks.conformance": CHECKED,
    "checks.longform": CHECKED,
    "checks.scoring": CHECKED,
    "checks.scoring.summary": (),
    "results.store": (*GROUND, "checks.verdict", "checks.longform.runs", "checks.scoring.summary"),
    "results.report": (*GROUND, "matrix", "checks", "results.store"),
    "run": (*BELOW_PAGES, "trace"),
    "trace": BELOW_PAGES,
    "weights": (*BELOW_PAGES, "run"),
    "cli": (*BELOW_PAGES, "results.report", "run", "trace", "weights", "conformance"),
    "pytest_plugin": (*BELOW_PAGES, "results.report", "run", "trace", "weights", "conformance"),
    "conformance": (*BELOW_PAGES, "results.report", "run", "trace", "weights"),
    "__main__": ("cli",),
    "__init__": (*GROUND, "chain", "conformance"),
}
"""What a module or folder may import besides itself. A file falls under the longest entry that fits."""


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name, as `engines.base`; packages by their own."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(path: Path, package: Path) -> Iterator[str]:
    """Dotted names, below the package, of what a file imports; of `from a import b` both a and a.b."""
    inside = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if re.fullmatch(rf"{package.name}(\.\w+)+", node.value) else []
        yield from (name.removeprefix(f"{package.name}.") for name in names if name.startswith(f"{package.name}."))


def graph(package: Path) -> dict[str, set[str]]:
    known = modules(package)
    return {name: {each for each in imports(path, package) if each in known} - {name} for name, path in known.items()}


def fits(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}.")


def rule_of(name: str) -> str | None:
    """The entry of RULES that a module falls under; a package without rules of its own may import nothing."""
    return max((entry for entry in RULES if fits(name, entry)), key=len, default=None)


def violations(package: Path) -> list[str]:
    found = []
    for name, imported in graph(package).items():
        entry = rule_of(name)
        allowed = () if entry is None else (entry, *RULES[entry])
        found += [f"{name} imports {each}" for each in sorted(imported) if not any(fits(each, one) for one in allowed)]
    return found


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    try:
        TopologicalSorter(graph(package)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_package_imports_only_what_lies_below_and_none_imports_itself_in_a_circle():
    assert violations(PACKAGE) == []
    assert circle(PACKAGE) == []


def test_every_module_has_a_rule():
    """Except `checks` and `results`, whose `__init__` imports nothing; few files lie beside the packages."""
    assert {name for name in modules(PACKAGE) if rule_of(name) is None} == {"checks", "results"}
    assert len(list(PACKAGE.glob("*.py"))) <= 14


TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
FORBIDDEN = {
    "a module above": ("chain.draw", "generation.generator", "from sampler.generation.generator import X"),
    "inside a function": ("config", "run.session", "def f():\n    import sampler.run.session"),
    "for types alone": ("results.report.html", "run.session", f"{TYPES}from sampler.run.session import Session"),
    "by a string": ("engines.base", "conformance", "X = 'sampler.conformance'"),
    "of a package": ("statistics.distance", "errors", "from sampler import errors"),
    "relative": ("chain.draw", "run.session", "from ..run import session"),
    "a package beside": ("checks.longform.drift", "checks.steps.chain", "from sampler.checks.steps import chain"),
    "a model in an engine": ("engines.pipe", "t3.model", "from sampler.t3 import model"),
    "pages below a run": ("run.suite", "results.report.html", "from sampler.results.report import html"),
    "a package without rules": ("extra.new", "errors", "from sampler import errors"),
}
"""Module, what it imports, and how."""


def a_package(folder: Path, **files: str) -> Path:
    package = folder / "sampler"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_a_forbidden_import_is_detected(tmp_path, kind):
    name, imported, text = FORBIDDEN[kind]
    file, other = (f"{each.replace('.', '/')}.py" for each in (name, imported))
    package = a_package(tmp_path, **{file: text, other: "", f"{Path(other).parent}/__init__.py": ""})
    assert f"{name} imports {imported}" in violations(package)


def test_a_circle_is_detected(tmp_path):
    files = {
        "a.py": "from sampler import b",
        "b.py": "def f():\n    from sampler.c import x",
        "c.py": "X = 'sampler.a'",
    }
    assert set(circle(a_package(tmp_path, **files))) == {"a", "b", "c"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after a statement."""
    program = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


OPTIONAL = {
    *("torch", "transformers", "mlx_lm", "mlx_audio", "einops", "sklearn", "wonderwords", "espeakng_loader"),
    *("pytest", "hypothesis"),
}
LATE = {"jinja2", "matplotlib"}
"""Installed with the package, and imported when the first page or picture is made."""

NOT_LOADED = {
    "import sampler": OPTIONAL | {"mlx"},
    "import sampler.cli.app": OPTIONAL | LATE,
    "import sampler.engines.registry": OPTIONAL,
    "from sampler import finch; finch.load()": OPTIONAL,
    "import sampler.engines.base": OPTIONAL | {"mlx", "scipy", "psutil"},
    "from sampler import LoopGuard; LoopGuard().add(3)": {"mlx", "numpy", "scipy"},
    "import sampler.run.recorder, sampler.results.report.html": LATE,
}


@pytest.mark.parametrize("statement", NOT_LOADED)
def test_packages_are_loaded_where_they_are_needed(statement):
    assert not loaded_by(statement) & NOT_LOADED[statement]


@pytest.mark.parametrize(
    ("statement", "package"),
    [
        ("import torch", "torch"),
        ("from sampler import process", "mlx"),
        ("from sampler.results.report import html; html._template()", "jinja2"),
    ],
)
def test_a_package_that_is_loaded_is_detected(statement, package):
    assert package in loaded_by(statement)


def test_unknown_names_of_the_package_are_refused():
    with pytest.raises(AttributeError, match="module 'sampler' has no attribute 'processes'"):
        sampler.processes  # noqa: B018
