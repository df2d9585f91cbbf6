"""A matrix under pytest: one item a cell, the options people know, the verdicts of `sampler run`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sampler.results.store.run_file import read_run
from tests.commands import ROOT, sampler

FAULT = f"{ROOT / 'tests' / 'miniatures.py'}:never_stops"
SMALL = """
why = "Two cells, two short texts."
[generation]
prompts = ["Yes.", "Come in."]
width = 2
max_new_tokens = 60
[axes]
temperature = [0.0, 0.8]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of one's own with a matrix and a wrong one."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    (tmp_path / "wrong.toml").write_text("why = 'x'\n[axes]\ntemprature = [1]\n", encoding="utf-8")
    return tmp_path


def pytest_run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"COLUMNS": "150"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, timeout=500, env=environment
    )


def rows_of(output: str) -> list[str]:
    """The rows of the table of verdicts, without the white space that a terminal's width decides."""
    return sorted(" ".join(line.split()) for line in output.splitlines() if re.match(r"^\d\.\d .*passed", line))


@pytest.mark.parametrize("jobs", ["0", pytest.param("2", marks=pytest.mark.nightly("starts three processes"))])
def test_every_cell_is_an_item_with_the_verdicts_of_a_run(folder, jobs):
    items = pytest_run("small.toml", "-v", "-n", jobs, folder=folder)
    assert items.returncode == 0, items.stdout
    assert items.stdout.count("PASSED") == 2
    run = sampler("run", "small.toml", "--out", "out", folder=folder)
    assert run.returncode == 0, run.stderr
    cells = {verdict.case.rsplit("/", 1)[0] for verdict in read_run(folder / "out" / "run.jsonl").verdicts}
    assert cells == {"small/temperature:0.0", "small/temperature:0.8", "small/all"}
    assert all(f"small.toml::{cell.split('/')[1]}" in items.stdout for cell in cells)
    assert rows_of(items.stdout) == rows_of(run.stdout) != []


@pytest.mark.nightly("pytest itself chooses; one file of cells is run by day")
def test_cells_are_chosen_by_their_values():
    words = "temperature:0.8 and cfg_weight:0.5 and not multilingual:true"
    chosen = pytest_run("matrices/", "-q", "--collect-only", "-k", words)
    cells = [line for line in chosen.stdout.splitlines() if "::" in line]
    assert "matrices/smoke.toml::temperature:0.8+cfg_weight:0.5" in cells
    assert all("temperature:0.8" in cell and "cfg_weight:0.5" in cell for cell in cells)
    assert {Path(cell.split("::")[0]).stem for cell in cells} == {"audit", "smoke", "stochastic"}


def test_a_failing_cell_stops_the_run_with_x_and_ends_in_its_line(folder):
    result = pytest_run("small.toml", "-x", "--seed=4", f"--engine={FAULT}", folder=folder)
    assert result.returncode == 1
    assert "1 failed" in result.stdout
    assert "stopping after 1 failures" in result.stdout
    assert "request 0 hit its cap of 60 tokens" in result.stdout
    line = f"Reproduce with: sampler replay small/temperature:0.0/stops --seed 4 --engine {FAULT}"
    assert line in result.stdout.replace("\n", " ")
    assert "Traceback" not in result.stdout
    assert "runtest" not in result.stdout


def test_a_cell_whose_checks_cannot_be_answered_is_skipped_with_its_reason():
    result = pytest_run("matrices/audit.toml", "-k", "multilingual:true and temperature:0.5", "--engine=reference")
    assert result.returncode == 3, "nothing was tested, as `sampler run` says"
    assert "9 skipped" in result.stdout
    assert "reference cannot follow the variant mtl-0.1.6" in result.stdout
    assert "passed" not in result.stdout.splitlines()[-1]
    assert "9 tests were skipped, which is not a pass:" in result.stdout


LEAVES = """
import os
from sampler.engines.base import EngineInfo

class Leaves:
    info = EngineInfo("leaves", "1", vocab_size=9)

    def generate(self, requests):
        os._exit(0)
"""


def test_an_engine_that_leaves_is_the_verdict_of_its_cells_and_no_items_are_no_success(folder):
    (folder / "leaves.py").write_text(LEAVES, encoding="utf-8")
    result = pytest_run("small.toml", "--engine=leaves.py:Leaves", "--timeout=20", "--memory=2", folder=folder)
    assert result.returncode == 1, result.stdout
    assert "2 failed" in result.stdout
    assert "its process ended with exit code 0" in result.stdout
    assert "--engine leaves.py:Leaves --timeout 20 --memory 2" in result.stdout.replace("\n", " ")
    assert pytest_run("small.toml", "-k", "no_such_cell", folder=folder).returncode == 5
    assert pytest_run("small.toml", "--timeout=-1", folder=folder).returncode != 0


def test_a_module_may_be_skipped_whole(folder):
    (folder / "test_later.py").write_text("import pytest\n\npytest.skip('later', allow_module_level=True)\n")
    result = pytest_run("test_later.py", folder=folder)
    assert "1 x later" in result.stdout
    assert "Error" not in result.stdout + result.stderr


def test_a_mistake_in_a_matrix_is_one_line(folder):
    result = pytest_run("wrong.toml", folder=folder)
    assert result.returncode == 2
    assert "unknown key 'axes.temprature' (did you mean 'temperature'?)" in result.stdout
    assert "Traceback" not in result.stdout
