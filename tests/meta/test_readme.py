"""What README shows is tried: its matrix loads, its Python runs, its cases exist, its two lines are those of CI."""

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

from sampler.checks.conformance.probes import all_cells
from sampler.engines.isolation import Local
from sampler.engines.load import load_engine
from sampler.matrix.matrix import load_matrix, shipped_matrices
from sampler.run.conformance import ConformanceRun
from sampler.run.replay import LEVELS, find_case

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """Lines of the blocks without a language that call a program."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(f"{program} ")]


def test_the_matrix_is_one(tmp_path):
    (text,) = blocks("toml")
    path = tmp_path / "readme.toml"
    path.write_text(text, encoding="utf-8")
    assert len(load_matrix(path).cases) == 4


def test_the_engine_is_judged_as_the_text_says(tmp_path):
    """Its two lies: at temperature 0 nothing is chosen, and top_k knows no min_tokens_to_keep, which is not asked."""
    text, _ = blocks("python")
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    report = ConformanceRun(Local(load_engine(f"{path}:Mine", {})), "mine.py:Mine", ("process",)).run()
    assert report.outcome == "disagrees"
    assert [cause.stage for cause in report.diagnosis] == ["temperature"]


def test_the_python_runs():
    _, text = blocks("python")
    rng = np.random.default_rng(0)
    names = {"logits": rng.normal(0, 3, (2, 50)).astype(np.float32), "history": [[1, 2], []]}
    exec(text, names)
    assert names["scores"].shape == (2, 50)
    assert names["tokens"].shape == (1_000,)


def test_every_case_and_matrix_exists():
    named = {path.stem for path in shipped_matrices()}
    for _, command, *arguments in commands("sampler"):
        if command == "run":
            assert arguments[0] in named
        if command == "replay" and arguments[0].split("/")[0] in LEVELS:
            assert arguments[0].split("/")[1] in {cell.name for cell in all_cells(0)}
        elif command == "replay" and not arguments[0].endswith(".json"):
            find_case(arguments[0], None)
    assert commands("sampler")


def test_ci_types_the_line_of_the_readme():
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("python -m pip")]
    assert lines == [
        "python -m pip install -c constraints.txt tox && tox -e stochastic",
        "python -m pip install -c constraints.txt tox && tox -e tests",
    ]
    assert lines[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in re.findall(r"sampler-suite\[(\w+)\]", README):
        assert name in extras
