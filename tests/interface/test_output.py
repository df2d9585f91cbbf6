"""What a command shows: it outlasts a closed stdout, and text from outside can do nothing but be read."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from sampler.checks.verdict import Verdict
from sampler.results.report import terminal
from sampler.results.report.console import plain_console
from sampler.results.store.run_file import read_run
from sampler.runtime.text import visible
from tests.commands import ROOT, sampler
from tests.pages import attention_run, token_run, verdict, write_made

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07\r\n::error file=x::no\n\u202etrohs\u2066\u200b\u2028\x85\x9b2J\ufeff\U000e0041"
    "[bold]b[/bold] :smile: <b>"
)
"""Escape sequences, a title, another line, an annotation of a CI system, marks of direction, markup."""

UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
TINY = "why = 'tiny'\n[generation]\nprompts = ['Come and see.']\nwidth = 1\nmax_new_tokens = 400\n"


def assert_harmless(text: str) -> None:
    assert not UNSEEN.search(text), repr(UNSEEN.search(text))
    assert not re.search(r"^\s*(::|##\[)", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, é 中 😀 ␣", "plain text, é 中 😀 ␣"),
        ("a\x1b[0m\x07\x7f", r"a\x1b[0m\x07\x7f"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\u202e\u2069\u200b\u00ad\u2028\ufeff\U000e0041", r"\u202e\u2069\u200b\xad\u2028\ufeff\U000e0041"),
        ("\ud800\uffff\ue000\u3164\ufe0f", r"\ud800\uffff\ue000\u3164\ufe0f"),
        ("::error::x", r"\x3a:error::x"),
        ("  ##[error]x", r"  \x23#[error]x"),
        ("std::bad_alloc # 1", "std::bad_alloc # 1"),
    ],
)
def test_what_does_not_show_itself_is_escaped(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_long_text_is_cut_and_says_so():
    assert visible("x" * 5_000, 10) == "xxxxxxxxxx... (5,000 characters)"
    assert visible("x" * 10, 10) == "x" * 10


def test_a_console_shows_hostile_text_in_every_kind_of_content(capsys):
    console, table = plain_console(), Table(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE, style="red"))
    for content in (HOSTILE, Text(HOSTILE, style="bold"), table):
        console.print(content)
    console.print(HOSTILE, style="yellow")
    shown = capsys.readouterr().out
    assert_harmless(shown)
    assert shown.count("[bold]b[/bold] :smile: <b>") >= 3


def test_notes_of_verdicts_are_cut_and_harmless_as_pytest_prints_them():
    failed = Verdict(f"made/{HOSTILE}/allowed", "draw", "allowed", HOSTILE, "failed", 1, message=HOSTILE * 1_000)
    skipped = Verdict("made/b/allowed", "draw", "allowed", "draw", "skipped", 0, message=HOSTILE * 1_000)
    notes = [note.plain for note in terminal.verdict_notes([failed, skipped])]
    assert len(notes) == 2
    for note in notes:
        assert_harmless(note)
        assert len(note) < 20_000


ENGINE = """
import numpy as np
from sampler.engines.base import EngineInfo, Generation

TEXT = {text!r}

class Engine:
    info = EngineInfo(name=TEXT, version=TEXT, device=TEXT, dtype="float32", vocab_size=9, eos_ids=(1,))

    def process(self, logits, history, config, uncond_logits=None):
        raise ValueError(TEXT * 500)

    def generate(self, requests):
        raise ValueError(TEXT * 500)
"""


@pytest.fixture
def engine(tmp_path) -> str:
    path = tmp_path / "engine.py"
    path.write_text(ENGINE.format(text=HOSTILE), encoding="utf-8")
    return f"{path}:Engine"


def test_a_hostile_engine_and_matrix_in_a_run(engine, tmp_path):
    matrix, out = tmp_path / "tiny.toml", tmp_path / "out"
    quoted = '"' + "".join(f"\\U{ord(letter):08x}" for letter in HOSTILE) + '"'
    matrix.write_text(TINY.replace("'tiny'", quoted).replace("'Come and see.'", quoted), encoding="utf-8")
    result = sampler("run", matrix, "--out", out, "--engine", engine)
    assert result.returncode == 1, result.stderr
    assert "errored" in result.stdout
    assert_harmless(result.stdout + result.stderr)
    assert len(result.stdout) < 30_000
    for name in ("run.jsonl", "report.html"):
        assert_harmless((out / name).read_text(encoding="utf-8"))
    assert len((out / "report.html").read_text(encoding="utf-8")) < 100_000
    assert HOSTILE in read_run(out / "run.jsonl").header["why"], "files keep the text itself, escaped"
    assert_harmless(sampler("list", matrix).stdout)
    assert_harmless(sampler("plan", matrix).stdout)


def test_a_hostile_engine_under_check(engine, tmp_path):
    result = sampler("check", engine, "--level", "process", "--json", tmp_path / "report.json")
    assert result.returncode == 1, result.stderr
    assert_harmless(result.stdout + result.stderr)
    assert_harmless((tmp_path / "report.json").read_text(encoding="utf-8"))


def test_hostile_run_files_crash_files_and_token_files(tmp_path):
    bad = verdict("base", "failed", message=HOSTILE, stage=HOSTILE, reproduce=HOSTILE)
    run = token_run("base").model_copy(update={"prompt": HOSTILE})
    header = {"why": HOSTILE, "engine": {"name": HOSTILE, "version": HOSTILE}, "checks": {"allowed": HOSTILE}}
    folder = write_made(
        tmp_path / "made", [bad, verdict("other", "skipped", message=HOSTILE)], [run],
        [attention_run("base", pieces=[HOSTILE, "b", "c"])], **header,
    )  # fmt: skip
    assert sampler("report", folder).returncode == 0
    assert_harmless((folder / "report.html").read_text(encoding="utf-8"))
    crash = {"format": HOSTILE}
    (tmp_path / "x.json").write_text(json.dumps(crash), encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(json.dumps({HOSTILE: 1}), encoding="utf-8")
    (tmp_path / "y.jsonl").write_text(json.dumps({"prompt": HOSTILE, "tokens": HOSTILE}), encoding="utf-8")
    (tmp_path / "x.toml").write_text(f"why = 'x'\n[axes]\n{json.dumps(HOSTILE)} = [1]", encoding="utf-8")
    for arguments in (["replay", "x.json"], ["check", "x.jsonl"], ["check", "y.jsonl"], ["run", "x.toml"]):
        result = sampler(*arguments, folder=tmp_path)
        assert result.returncode == 2, arguments
        assert_harmless(result.stdout + result.stderr)
        assert result.stderr.count("\n") == 1


def process(arguments: list[object], **streams: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sampler", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, check=False, stderr=subprocess.PIPE, cwd=ROOT, timeout=300, env=environment, **streams
    )


@pytest.fixture
def tiny(tmp_path) -> list[object]:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return ["run", tmp_path / "tiny.toml", "--out", tmp_path / "out"]


def test_a_run_outlasts_a_reader_that_stops_reading(tiny, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        result = process(tiny, stdout=pipe)
    assert result.returncode == 0, result.stderr
    assert result.stderr.decode() == "the rest of the output is not shown: stdout: Broken pipe\n"
    assert read_run(tmp_path / "out" / "run.jsonl").footer["outcome"] == "agrees"
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.nightly("a run in a process of its own, as the one above")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_run_outlasts_a_full_disk_under_its_output(tiny, tmp_path):
    with Path("/dev/full").open("wb") as full:
        result = process(tiny, stdout=full)
    assert result.returncode == 0, result.stderr
    assert result.stderr.decode().endswith("stdout: No space left on device\n")
    assert read_run(tmp_path / "out" / "run.jsonl").footer["outcome"] == "agrees"


@pytest.mark.nightly("a run in a process of its own, as the one above")
def test_a_closed_stdout_is_not_taken_for_a_file_of_the_run(tiny, tmp_path):
    result = process(tiny, preexec_fn=lambda: os.close(1))
    assert result.returncode == 0, result.stderr
    assert result.stderr.decode() == "the rest of the output is not shown: stdout: it is closed\n"
    assert read_run(tmp_path / "out" / "run.jsonl").footer["outcome"] == "agrees"


def test_letters_that_stdout_lacks_are_escaped(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("max_new_tokens", "'中_tokens'"), encoding="utf-8")
    command = [sys.executable, "-m", "sampler", "list", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 2
    assert r"unknown key 'generation.\u4e2d_tokens'" in result.stderr
    assert "Traceback" not in result.stderr
