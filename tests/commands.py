"""The command `sampler`, in this process or in one of its own."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from sampler.cli.app import app
from sampler.runtime import blas

BLOCKING = """
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == {0!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Blocked())
"""
"""A package is as if not installed. An entry None in sys.modules would be taken for the package by SciPy."""

ROOT = Path(__file__).parents[1]
Finished = subprocess.CompletedProcess[str]


def sampler(*arguments: object, folder: Path = ROOT) -> Finished:
    """Run the command in this process, in a folder. What it does not turn into an exit code is raised."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return Finished(arguments, result.exit_code, result.stdout, result.stderr)


def sampler_process(*arguments: object, blocked: str = "", folder: Path = ROOT, **environment: str) -> Finished:
    """Run the command in a process of its own; `blocked` names a package that cannot be imported there."""
    program = BLOCKING.format(blocked) + "from sampler.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def threads() -> list[str]:
    """The part of a line to reproduce that gives the number of threads, in this environment."""
    count = blas.threads_by_setting()
    return [] if count is None else ["--threads", str(count)]


def assert_one_clear_line(result: Finished, expected: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
