"""What README and docs show is tried: commands print what stands there, Python runs, links lead somewhere."""

import doctest
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sampler.cli.app import app
from sampler.matrix.matrix import load_matrix, shipped_matrices
from sampler.run.replay import LEVELS, find_case

ROOT = Path(__file__).parents[2]
GUIDES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
EXECUTED_ELSEWHERE = ("findings.md", "tokens.md")
"""Their Python stands in tests of its own."""


def blocks(name: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    text = GUIDES[name].read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def sessions() -> Iterator[tuple[str, str, str]]:
    """Each command of a console block: its file, the line behind the prompt, what it prints."""
    for name in GUIDES:
        for part in "".join(blocks(name, "console")).split("$ ")[1:]:
            command, _, output = part.partition("\n")
            yield name, command, output


WRONG = pytest.mark.nightly("the page of the same run is tested by day")
SESSIONS = [pytest.param(*each, id=each[1], marks=WRONG if "ignores_min_p" in each[1] else ()) for each in sessions()]


@pytest.mark.parametrize(("name", "command", "expected"), SESSIONS)
def test_a_command_prints_what_stands_under_it(tmp_path, monkeypatch, name, command, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "mine.py").write_text(blocks("README.md", "python")[0], encoding="utf-8")
    program, *arguments = shlex.split(command)
    assert program == "sampler"
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    printed = "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())
    assert doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS), printed


def test_a_wrong_figure_would_fail():
    output = next(expected for _, command, expected in sessions() if command == "sampler run smoke")
    assert not doctest.OutputChecker().check_output(output, output.replace("307", "308", 1), doctest.ELLIPSIS)


@pytest.mark.parametrize("name", [name for name in GUIDES if name not in EXECUTED_ELSEWHERE and blocks(name, "python")])
def test_the_python_runs_and_prints_its_comments(capsys, name):
    for text in blocks(name, "python"):
        exec(text, {"stream": [*range(50), *[9] * 30]})
        assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", text)


@pytest.mark.parametrize("name", [name for name in GUIDES if blocks(name, "toml")])
def test_a_matrix_loads(tmp_path, name):
    for text in blocks(name, "toml"):
        (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
        assert len(load_matrix(tmp_path / "shown.toml").cases) > 1


def commands(program: str) -> list[list[str]]:
    """Lines of the blocks without a language that call a program."""
    lines = [line for name in GUIDES for block in blocks(name, "") for line in block.splitlines()]
    return [shlex.split(re.sub(r" {3,}.*", "", line)) for line in lines if line.startswith(f"{program} ")]


def test_every_command_matrix_and_case_exists():
    matrices = {path.stem for path in shipped_matrices()}
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    for _, command, *arguments in commands("sampler"):
        assert command in known
        if command in ("run", "list", "plan") and arguments and not arguments[0].startswith("-"):
            assert arguments[0] in matrices
        if command == "replay" and arguments[0].split("/")[0] not in LEVELS:
            find_case(arguments[0], None)


def test_ci_types_the_line_of_the_readme():
    lines = [line for block in blocks("README.md", "") for line in block.splitlines() if "tox -e" in line]
    assert lines == [
        f"python -m pip install -c constraints.txt tox && tox -e {name}" for name in ("stochastic", "tests")
    ]
    assert lines[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


LINKS = [
    (name, link)
    for name, path in GUIDES.items()
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("name", "link"), sorted(set(LINKS)))
def test_links_lead_somewhere(name, link):
    assert (GUIDES[name].parent / link).exists()


def test_extras_and_environments_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = "".join(path.read_text(encoding="utf-8") for path in GUIDES.values())
    assert set(re.findall(r"(?:sampler-suite|'\.)\[(\w+)\]", text)) <= set(extras)
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert set(re.findall(r"tox -e ([\w-]+)", text)) <= set(re.findall(r"^\[testenv:([\w-]+)\]", tox, re.MULTILINE))


WORDS = r"would (have )?seen?\b|must see|\bput to\b|whose a run|to be read in|\bliars?\b|\bcoins?\b|nobody says"
"""Riddles for a reader who is new; what stands in their place: docs/glossary.md."""


def test_prose_uses_plain_words():
    pages = [path for name, path in GUIDES.items() if name not in ("decisions.md", "findings.md")]
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in (*pages, *sorted((ROOT / "sampler").rglob("*.py")))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(WORDS, line)
    ]
    assert found == []
