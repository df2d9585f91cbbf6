"""A matrix under pytest: one item a cell, the options people know, the verdicts of `sampler run`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from sampler.results.store.run_file import read_run

ROOT = Path(__file__).parents[2]
LIAR = f"--engine={ROOT / 'tests' / 'miniatures.py'}:never_stops"


def pytest_run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=500,
        env=environment | {"COLUMNS": "150"},
    )


def test_every_cell_is_an_item_with_the_verdicts_of_a_run(tmp_path):
    items = pytest_run("matrices/smoke.toml", "-v", "-n", "2")
    assert items.returncode == 0, items.stdout
    assert items.stdout.count("PASSED") == 4
    command = [sys.executable, "-m", "sampler", "run", "smoke", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert run.returncode == 0, run.stderr
    cells = {verdict.case.rsplit("/", 1)[0] for verdict in read_run(tmp_path / "run.jsonl").verdicts}
    assert len(cells) == 4
    for cell in cells:
        assert f"matrices/smoke.toml::{cell.split('/')[1]}" in items.stdout
    assert rows_of(items.stdout) == rows_of(run.stdout) != []


def rows_of(output: str) -> list[str]:
    """The rows of the table of verdicts, without the white space that a terminal's width decides."""
    return sorted(" ".join(line.split()) for line in output.splitlines() if re.match(r"^\d\.\d .*passed", line))


def test_cells_are_chosen_by_their_values():
    chosen = pytest_run(
        "matrices/", "-q", "--collect-only", "-k", "temperature:0.8 and cfg_weight:0.5 and not multilingual:true"
    )
    cells = [line for line in chosen.stdout.splitlines() if "::" in line]
    assert "matrices/smoke.toml::temperature:0.8+cfg_weight:0.5" in cells
    assert all("temperature:0.8" in cell and "cfg_weight:0.5" in cell for cell in cells)
    assert {cell.split("::")[0] for cell in cells} == {
        f"matrices/{name}.toml" for name in ("audit", "smoke", "stochastic")
    }


def test_a_failing_cell_stops_the_run_with_x_and_ends_in_its_line():
    result = pytest_run("matrices/smoke.toml", "-x", "-k", "temperature:0.8", "--seed=4", LIAR)
    assert result.returncode == 1
    assert "1 failed" in result.stdout
    assert "stopping after 1 failures" in result.stdout
    assert "request 0 hit its cap of 500 tokens" in result.stdout
    case = "smoke/temperature:0.8+cfg_weight:0.0/stops"
    assert f"Reproduce with: sampler replay {case} --seed 4 --engine {LIAR.split('=')[1]}" in result.stdout
    assert "Traceback" not in result.stdout
    assert "runtest" not in result.stdout


def test_a_cell_that_could_not_look_is_skipped_with_its_reason():
    result = pytest_run("matrices/audit.toml", "-k", "multilingual:true and temperature:0.5", "--engine=reference")
    assert result.returncode == 0
    assert "9 skipped" in result.stdout
    assert "reference cannot be told to follow the variant mtl-0.1.6" in result.stdout
    assert "passed" not in result.stdout.splitlines()[-1]


def test_a_mistake_in_a_matrix_is_one_line(tmp_path):
    """A matrix of one's own is named on the command line; what is wrong in it is said without a traceback."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "wrong.toml").write_text("why = 'x'\n[axes]\ntemprature = [1]\n", encoding="utf-8")
    result = pytest_run("wrong.toml", folder=tmp_path)
    assert result.returncode == 2
    assert "unknown key 'axes.temprature' (did you mean 'temperature'?)" in result.stdout
    assert "Traceback" not in result.stdout
