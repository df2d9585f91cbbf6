"""What ships: the wheel has all that a run needs, Finch stays small, and README, CI and code agree."""

import re
import subprocess
import sys
import zipfile

import pytest

from sampler import finch
from sampler.matrix.matrix import shipped_matrices
from tests.commands import ROOT, sampler

LARGEST_FINCH = 12 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_has_everything(wheel):
    names = set(wheel.namelist())
    tensors = [f"finch/{name}.safetensors" for name in ("weights", "codebook", "conds", "held_out")]
    texts = [f"finch/{name}" for name in ("config.json", "tokenizer.json", "prompts.json", "MODEL_CARD.md")]
    pages = [f"results/report/templates/report.{end}" for end in ("html.jinja", "css")]
    languages = [f"finch/languages/{name}.toml" for name in finch.load().config.languages]
    matrices = [f"matrices/{path.name}" for path in shipped_matrices()]
    expected = [*tensors, *texts, *pages, *languages, *matrices, "variants.toml", "py.typed"]
    assert {f"sampler/{name}" for name in expected} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_a_run_works_from_the_wheel_alone(wheel, tmp_path):
    """Unpacked, away from the checkout: matrices and Finch are found inside the package."""
    wheel.extractall(tmp_path)
    program = (
        "from sampler import finch; from sampler.matrix.matrix import shipped_folder as folder; "
        "print(folder(), finch.load().config.name); from sampler.cli.app import app; app(['list'])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split()[:2] == [str(tmp_path / "sampler" / "matrices"), "finch"]
    assert "stochastic (24 cells)" in result.stdout


def test_finch_is_small():
    files = [path for path in finch.folder().iterdir() if path.suffix in (".safetensors", ".json")]
    assert sum(path.stat().st_size for path in files) <= LARGEST_FINCH


def test_every_command_of_the_readme_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"^(?:\$ )?sampler (\w+)", readme, flags=re.MULTILINE))
    assert "run" in commands
    assert len(commands) >= 3
    for command in commands:
        assert sampler(command, "--help").returncode == 0, command
