"""Every reproduction of `docs/findings.md` is run, and prints what stands under it.

What MLX prints is bound to its version and backend, so the blocks that use it are skipped on others than the recorded.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TEXT = (Path(__file__).parents[2] / "docs/findings.md").read_text(encoding="utf-8")
RECORDED = {"mlx": "0.32.4", "mlx-lm": "0.32.2", "mlx-audio": "0.6.2", "chatterbox-tts": "0.1.7"}
RUN = """
import contextlib, io, json, sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
results = []
for block in json.load(sys.stdin):
    mx.random.seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block, {})
    results.append(printed.getvalue())
print(json.dumps(results))
"""
"""Blocks in one process, each with names of its own: importing mlx-lm takes seconds."""


class Block(NamedTuple):
    """A program of the document and what it prints."""

    heading: str
    program: str
    printed: str

    def missing(self) -> str | None:
        modules = re.findall(r"^(?:from|import) (mlx\w*)", self.program, flags=re.MULTILINE)
        if modules and sys.platform != "linux":
            return "printed by MLX's CPU backend on Linux"
        names = ["chatterbox-tts"] if "chatterbox-tts" in self.program else [each.replace("_", "-") for each in modules]
        for name in names:
            try:
                found = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found = "none"
            if found != RECORDED[name]:
                return f"printed by {name} {RECORDED[name]}, here is {found}"
        return None


def sections() -> dict[str, str]:
    _, *parts = re.split(r"^### (.*)\n", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks() -> list[Block]:
    pairs = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.MULTILINE | re.DOTALL)
    return [Block(heading, *pair) for heading, text in sections().items() for pair in pairs.findall(text)]


def copies() -> list[Block]:
    """The reproductions that a table's row ascribes to both packages, with the names of the second one."""
    both = {heading for packages, _, heading, _ in rows() if packages == "mlx-lm 0.32.2, mlx-audio 0.6.2"}
    found = []
    for heading, program, printed in blocks():
        copied = re.sub(r"from mlx_lm\.(sample_utils|generate) import", r"from mlx_audio.lm.\1 import", program)
        if heading in both and copied != program:
            found.append(Block(heading, copied, printed.replace("in the (0, 3) interval", "in the (0, 3] interval")))
    return found


def rows() -> list[tuple[str, str, str, str]]:
    return re.findall(
        r"^\| ((?:mlx|chatterbox|Finch).*) \| (bug|dialect|measured) \| \[(.*)\]\(#(.*)\) \|$", TEXT, flags=re.MULTILINE
    )


@pytest.fixture(scope="module")
def printed():
    programs = [block.program for block in [*blocks(), *copies()] if not block.missing()]
    command = [sys.executable, "-c", RUN]
    result = subprocess.run(command, input=json.dumps(programs), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(zip(programs, json.loads(result.stdout), strict=True))


@pytest.mark.nightly("all programs of the document, with mlx-lm and mlx-audio, take a minute")
@pytest.mark.parametrize("block", blocks() + copies(), ids=lambda block: block.heading.replace(" ", "_"))
def test_a_reproduction_prints_what_stands_under_it(block, printed):
    if reason := block.missing():
        pytest.skip(reason)
    assert printed[block.program] == block.printed


def test_a_quick_reproduction_prints_what_stands_under_it():
    block = next(block for block in blocks() if block.heading == "Filters before temperature")
    if reason := block.missing():
        pytest.skip(reason)
    with contextlib.redirect_stdout(io.StringIO()) as found:
        exec(block.program, {})
    assert found.getvalue() == block.printed


def test_every_finding_is_in_the_table_with_its_kind():
    kinds = {heading: re.search(r"\*\*(bug|dialect|measured)\*\*", text)[1] for heading, text in sections().items()}
    assert {heading: kind for _, kind, heading, _ in rows()} == kinds
    assert all(re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") == link for *_, heading, link in rows())


def test_every_finding_has_a_reproduction():
    programs = {block.heading for block in blocks() if "mlx_" in block.program or "chatterbox-tts" in block.program}
    command = re.compile(r"^python -m (\S+)", flags=re.MULTILINE)
    commands = {heading: command.findall(text) for heading, text in sections().items()}
    assert programs | {heading for heading, modules in commands.items() if modules} == sections().keys()
    assert all(importlib.util.find_spec(module) for modules in commands.values() for module in modules)
    assert all(block.printed for block in blocks())
