"""The five recipes of docs/architecture.md: each patch fits the tree, touches the files that it says, and works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = Path(__file__).parent / "recipes"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ONE_CELL = """
why = "One short sentence."
[generation]
prompts = ["Come and see."]
max_new_tokens = 200
[axes]
temperature = [0.8]
"""
RUN = ("run", "one.toml", "--out", "one")


def files(name: str) -> list[str]:
    """Files of the product that a patch touches."""
    text = (RECIPES / f"{name}.diff").read_text(encoding="utf-8")
    return re.findall(r"^\+\+\+ b/(sampler/\S+)$", text, re.MULTILINE)


MOST = {"engine": 2, "check": 2, "stage": 6, "command": 2, "page": 3}


@pytest.mark.parametrize("name", MOST)
def test_a_recipe_fits_the_tree_and_touches_few_files(name):
    subprocess.run(["git", "apply", "--check", "--recount", RECIPES / f"{name}.diff"], cwd=ROOT, check=True)
    touched = files(name)
    assert 0 < len(touched) <= MOST[name]
    row = next(line for line in PAGE.splitlines() if f"recipes/{name}.diff" in line)
    for path in touched:
        assert path in row or str(Path(path).parent) in row, path


COMPILES = pytest.mark.nightly("a copy of the package compiles its loops anew")


@pytest.mark.parametrize(
    ("name", "commands", "expected"),
    [
        ("engine", [("check", "plain", "--level", "process")], "plain agrees"),
        pytest.param("check", [RUN], "pauses", marks=COMPILES),
        pytest.param(
            "stage",
            [("replay", "process/top_a/scores", "--engine", "core")],
            "scores: passed (stage top_a)",
            marks=COMPILES,
        ),
        ("command", [("variants",)], "mtl-0.1.6: temperature=0.8"),
        pytest.param("page", [RUN, ("report", "one")], "one/summary.md", marks=COMPILES),
    ],
)
def test_a_recipe_works(tmp_path, name, commands, expected):
    for folder in ("sampler", "matrices"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "one.toml").write_text(ONE_CELL, encoding="utf-8")
    subprocess.run(["git", "apply", "--recount", RECIPES / f"{name}.diff"], cwd=tmp_path, check=True)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "80"}
    for arguments in commands:
        command = [sys.executable, "-m", "sampler", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr + result.stdout
    assert expected in result.stdout
