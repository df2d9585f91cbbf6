"""What ships: the wheel has all that a run needs, Finch stays small, and README, CI and code agree."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sampler import finch
from sampler.matrix.matrix import shipped_matrices

ROOT = Path(__file__).parents[2]
LARGEST_FINCH = 12 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_has_everything(wheel):
    names = set(wheel.namelist())
    files = [
        "weights.safetensors",
        "codebook.safetensors",
        "config.json",
        "tokenizer.json",
        "conds.safetensors",
        "prompts.json",
        "MODEL_CARD.md",
    ]
    assert {f"sampler/finch/{name}" for name in files} <= names
    assert {f"sampler/matrices/{path.name}" for path in shipped_matrices()} <= names
    assert "sampler/variants.toml" in names
    assert {
        "sampler/results/report/templates/report.html.jinja",
        "sampler/results/report/templates/report.css",
    } <= names
    assert {"sampler/py.typed", "sampler/finch/held_out.safetensors"} <= names
    assert {f"sampler/finch/languages/{name}.toml" for name in finch.load().config.languages} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_a_run_works_from_the_wheel_alone(wheel, tmp_path):
    """Unpacked, away from the checkout: matrices and Finch are found inside the package."""
    wheel.extractall(tmp_path)
    command = [sys.executable, "-m", "sampler", "list"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "stochastic (24 cells)" in result.stdout
    program = (
        "from sampler import finch; from sampler.matrix.matrix import shipped_folder as folder; "
        "print(folder(), finch.load().config.name)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(tmp_path / "sampler" / "matrices"), "finch"]


def test_finch_is_small():
    files = [path for path in finch.folder().iterdir() if path.suffix in (".safetensors", ".json")]
    assert sum(path.stat().st_size for path in files) <= LARGEST_FINCH


def test_every_command_of_the_readme_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"^sampler (\w+)", readme, flags=re.MULTILINE))
    assert {"run", "replay", "doctor"} <= commands
    for command in commands:
        result = subprocess.run([sys.executable, "-m", "sampler", command, "--help"], capture_output=True, check=False)
        assert result.returncode == 0, command
