"""The command line: every mistake is one line with exit code 2, and nothing is left half-written."""

import ctypes.util
import os
import re
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from sampler import finch
from sampler.checks.verdict import ABSOLUTE, SCORED
from sampler.results.store.run_file import ReportError, read_run
from sampler.runtime import blas
from sampler.t3.checkpoint import OWN_FILES
from tests.commands import ROOT, assert_one_clear_line, sampler, sampler_process, threads

MINIATURES = ROOT / "tests" / "miniatures.py"
QUICK = "why = 'own texts'\n[generation]\nprompts = ['Come and see.', 'Why not?']\nwidth = 2\nmax_new_tokens = 400\n"
CASE = "smoke/temperature:0.8+cfg_weight:0.5"


@pytest.fixture
def quick(tmp_path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK, encoding="utf-8")
    return path


@pytest.fixture
def weights(tmp_path) -> Path:
    folder = tmp_path / "two words" / "own"
    folder.mkdir(parents=True)
    for name in OWN_FILES:
        shutil.copy(finch.folder() / name, folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "quick.toml").write_text(QUICK, encoding="utf-8")
    out = folder / "o[b]"
    return out, sampler("run", folder / "quick.toml", "--out", out, "--seed", 5)


def test_a_run_from_start_to_footer(finished):
    out, result = finished
    assert result.returncode == 0, result.stderr
    run = read_run(out / "run.jsonl")
    assert run.header["seed"] == 5
    assert run.header["matrix"]["name"] == "quick"
    assert len(run.header["weights"]["sha256"]) == 64
    assert {"mlx", "blas", "oracle", "width", "engine"} <= run.header.keys()
    checks = ["allowed", "draws", "chain", "repeats", "records", "seeds", "stops", *SCORED]
    assert [verdict.check for verdict in run.verdicts] == [*checks, *ABSOLUTE]
    assert {verdict.outcome for verdict in run.verdicts if verdict.check in checks} == {"passed"}
    assert [(one.outcome, one.reason) for one in run.verdicts if one.check in ABSOLUTE] == TOO_FEW
    counts = {verdict.n for verdict in run.verdicts if verdict.check in ("stops", *ABSOLUTE)}
    assert counts == {2}, "one run for each text"
    assert run.footer["verdicts"] == {"passed": len(checks), "inconclusive": len(ABSOLUTE)}
    assert run.footer["exit_code"] == 0
    assert {path.name for path in out.iterdir()} == {"run.jsonl", "tokens.jsonl", "scoring.json", "report.html"}
    assert "1 cells: 1 passed" in result.stdout
    assert "o[b]/run.jsonl" in result.stdout, "what looks like markup is printed as it is"


def test_another_process_writes_the_same_run(finished, quick, tmp_path):
    again = sampler_process("run", quick, "--out", tmp_path / "out", "--seed", 5)
    assert again.returncode == 0, again.stderr
    one, two = (read_run(folder / "run.jsonl") for folder in (finished[0], tmp_path / "out"))
    assert (one.verdicts, one.header) == (two.verdicts, two.header)


def test_without_torch_the_comparison_is_skipped_and_never_passed(quick, tmp_path):
    result = sampler_process("run", quick, "--out", tmp_path / "out", blocked="torch")
    assert result.returncode == 0, result.stderr
    outcomes = {verdict.check: verdict.outcome for verdict in read_run(tmp_path / "out" / "run.jsonl").verdicts}
    others = ("allowed", "draws", "repeats", "records", "seeds", "stops", *SCORED)
    assert outcomes == dict.fromkeys(others, "passed") | {"chain": "skipped"} | dict.fromkeys(ABSOLUTE, "inconclusive")
    assert "torch is not installed (pip install 'sampler-suite[reference]')" in result.stdout
    assert "1 cells: 1 skipped" in result.stdout


def test_what_can_only_be_skipped_exits_with_3(tmp_path):
    result = sampler("run", "smoke", "--engine", "reference", "--out", tmp_path / "out")
    assert result.returncode == 3
    assert "reference does not generate" in result.stdout
    assert sampler("replay", CASE, "--engine", "reference").returncode == 3


TOO_FEW = [("inconclusive", "too_few")] * 2
"""Of two runs, about the absolute limits: not essential, as the matrix requires nothing."""

OWN = "why = 'x'\n[generation]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (QUICK + "[axes]\ntemperature = [-1]\n", "temperature = -1 is out of range (expected a finite number >= 0 (0"),
        (QUICK + "[axes]\ntemprature = [1]\n", "unknown key 'axes.temprature' (did you mean 'temperature'?)"),
        (OWN + 'prompts = [""]', "the text '' is empty (give at least one word)"),
        (OWN + f'prompts = ["{"so long " * 200}"]', "the text has 1601 tokens (finch takes 1024; split the text)"),
        (OWN + 'language = "sv"\nrequests = 2', "generation.requests = 2 (there are 0 prompts)"),
        (OWN + 'prompts = ["Hej."]\nlanguage = "sv"', "finch does not speak 'sv' (languages: en, de, fr, es, it)"),
        (QUICK.replace("400", "5000"), "max_new_tokens = 5000 (expected 1 to 4100, as many as finch has speech"),
    ],
)
def test_a_matrix_that_cannot_run_is_refused_before_anything_is_written(tmp_path, text, expected):
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    assert_one_clear_line(sampler("run", path, "--out", tmp_path / "out"), expected)
    assert not (tmp_path / "out").exists()


SMOKE, PICTURE, LONG = ["run", "smoke"], ["trace", "attention", "Hi.", "--out"], "x" * 300


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "stochastik"], "there is no matrix 'stochastik' (did you mean 'stochastic'?)"),
        (["run", LONG], "there is no matrix 'xxx"),
        (["run", f"{LONG}.toml"], "cannot be read: File name too long"),
        ([*SMOKE, "--engine", "corre"], "'corre' is no engine (known: core, core-float16, core-bfloat16, ref"),
        ([*SMOKE, "--engine", "none.py:make"], "none.py cannot be imported: FileNotFoundError"),
        ([*SMOKE, "--engine", "json:loadz"], "json has no factory 'loadz' (expected a callable without arg"),
        ([*SMOKE, "--engine", f"{MINIATURES}:make_generator"], "gave a Generator (expected an object"),
        ([*SMOKE, "--engine", "tests.nothing:make"], "there is no module 'tests.nothing' (give module:factory"),
        ([*SMOKE, "--engine", "reference", "--weights", "x"], "--weights goes with the core, not with 'refer"),
        ([*SMOKE, "--weights", "nowhere"], "nowhere does not exist (give a folder with t3_cfg.safetensors"),
        ([*SMOKE, "--weights", LONG], "does not exist (give a folder with t3_cfg.safetensors"),
        (["replay", "smoke"], "'smoke' is no case (expected matrix/cell or matrix/cell/check)"),
        (["replay", "smoke/temperature:0.9"], "has no cell 'temperature:0.9' (the first one is 'temperature:0.0+cfg"),
        (["replay", f"{CASE}/alowed"], "there is no check 'alowed' (did you mean 'allowed'?)"),
        (["replay", "none.json"], "none.json cannot be read: No such file or directory"),
        (["replay", "process/top_q/scores", "--engine", "reference"], "there is no case 'process/top_q/scores'"),
        (["plan", "--texts", "3"], "a plan of token runs needs both numbers, and no matrix"),
        (["plan", "--runs", "3"], "a plan of token runs needs both numbers, and no matrix"),
        (["plan", "smoke", "--texts", "3", "--runs", "3"], "a plan of token runs needs both numbers, and no matrix"),
        (["check", "reference", "--level", "scores"], "--level 'scores' is no level"),
        (["check", "refrence"], "'refrence' is no engine"),
        (["check", "reference", "--false-alarm-rate", "2"], "--false-alarm-rate"),
        (["check", "reference", "--tolerance", "-1"], "--tolerance -1.0 is no total variation"),
        (["check", "reference", "--against", "ref.jsonl"], "--against ref.jsonl is a file of token runs"),
        (["check", "no/such/file.py:engine"], "no/such/file.py cannot be imported"),
        (["check", f"{MINIATURES}:no_such_factory"], "no_such_factory"),
        (["check", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["check", "file.jsonl", "--against", "kore"], "there are no reference runs 'kore'"),
        (["check", "file.jsonl", "--against", "reference"], "reference has no predict()"),
        (["check", "file.jsonl", "--runs", "3"], "--runs 3 without a model"),
        (["check", "core", "--minutes", "3"], "--minutes 3 without a model"),
        (["check", "file.jsonl", "--against", "core", "--minutes", "nan"], "--minutes nan"),
        (["check", "file.jsonl", "--level", "draw"], "--level draw is not for token runs"),
        (["check", "file.jsonl", "--tolerance", "0.1"], "--tolerance 0.1 is not for token runs"),
        (["check", "file.jsonl", "--false-alarm-rate", "2"], "--false-alarm-rate = 2"),
        (["trace", "attention", "", "--out", "map.png"], "the text '' is empty (give at least one word)"),
        ([*PICTURE, "map.jpg"], "map.jpg is no picture that can be drawn (expected a .png or .svg file)"),
        ([*PICTURE, "map"], "map is no picture that can be drawn"),
        ([*PICTURE, "file.jsonl/map.png"], "map.png cannot be written: Not a directory"),
        ([*PICTURE, "map.png", "--language", "xx"], "finch does not speak 'xx'"),
        ([*PICTURE, "map.png", "--temperature", "-1"], "temperature = -1.0 is out of range"),
        ([*PICTURE, "map.png", "--max-new-tokens", "0"], "max_new_tokens = 0 (expected 1 to 4100"),
        ([*PICTURE, "map.png", "--engine", "mlx-lm"], "does not generate (it has no generate())"),
        ([*PICTURE, "map.png", "--engine", "none"], "'none' is no engine"),
        ([*PICTURE, "map.png", "--engine", "reference", "--weights", "x"], "--weights goes with the core"),
        (["say", "", "-o", "x.wav"], "the text '' is empty (give at least one word)"),
        (["say", "Hej.", "--language", "sv", "-o", "x.wav"], "finch does not speak 'sv' (languages: en, de, fr"),
        (["say", "Hello.", "--temperature", "-1", "-o", "x.wav"], "temperature = -1"),
        (["say", "so long " * 200, "-o", "x.wav"], "the text has 1601 tokens (finch takes 1024; split the text)"),
        (["say", "Hi.", "-o", "file.jsonl/x.wav"], "x.wav cannot be written: Not a directory (choose"),
        (["say", "Hi.", "-o", ROOT], " cannot be written: Is a directory"),
        (["say", "Hi.", "-o", "."], ". cannot be written: Is a directory"),
    ],
)
def test_misuse_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path, arguments, expected):
    (tmp_path / "file.jsonl").write_text('{"prompt": "a", "tokens": [5, 40], "stop_reason": "eos"}', encoding="utf-8")
    out = {"run": ["--out", "out"], "check": ["--json", "report.json"]}.get(arguments[0], [])
    assert_one_clear_line(sampler(*arguments, *out, folder=tmp_path), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["file.jsonl"]


def test_damaged_weights(quick, weights, tmp_path):
    command, file = ("run", quick, "--weights", weights, "--out", tmp_path / "out"), weights / "weights.safetensors"
    tensors = load_file(file)
    tensors["speech_head.weight"][3, 4] = float("nan")
    save_file(tensors, file)
    expected = "weights.safetensors: 'speech_head.weight' has 1 of 393600 values that are NaN or infinite"
    assert_one_clear_line(sampler(*command), expected)
    file.write_bytes(file.read_bytes()[:1_000_000])
    assert_one_clear_line(sampler(*command), "weights.safetensors cannot be read")
    assert not (tmp_path / "out").exists()


def test_the_line_to_reproduce_names_other_weights_and_is_quoted_for_the_shell(weights, tmp_path):
    path, file = weights.parent / "short one.toml", weights / OWN_FILES[0]
    path.write_text(QUICK.replace("400", "5"), encoding="utf-8")
    save_file({f"t3.{name}": value for name, value in load_file(file).items()}, file)
    result = sampler("run", path, "--weights", weights, "--out", tmp_path / "out")
    assert result.returncode == 1
    run = read_run(tmp_path / "out" / "run.jsonl")
    assert run.header["weights"]["layout"] == "finch in weights.safetensors: 't3.' removed"
    assert "weights finch in weights.safetensors: 't3.' removed\n" in result.stdout
    (failed,) = (each for each in run.verdicts if each.outcome == "failed")
    assert failed.check == "stops"
    assert "request 0 hit its cap of 5 tokens" in failed.message
    case = ["sampler", "replay", "short one/base/stops", "--seed", "0"]
    assert failed.reproduce == shlex.join([*case, "--weights", str(weights), "--matrix", str(path), *threads()])
    assert f"Reproduce with: {failed.reproduce}" in result.stdout
    again = sampler(*shlex.split(failed.reproduce)[1:])
    assert again.returncode == 1
    assert failed.message in again.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(quick, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.jsonl.partial").symlink_to("/dev/full")
    assert_one_clear_line(sampler("run", quick, "--out", out), "run.jsonl cannot be written: No space left on device")
    assert list(out.iterdir()) == []


def test_an_output_folder_that_cannot_be(quick, tmp_path):
    (tmp_path / "file").touch()
    assert_one_clear_line(sampler("run", quick, "--out", tmp_path / "file" / "out"), "written: Not a directory")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert_one_clear_line(sampler("run", quick, "--out", tmp_path / "locked" / "out"), "written: Permission denied")


def test_an_earlier_run_survives_one_that_fails(finished, quick, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "out")
    assert sampler("run", quick, "--out", out, "--engine", "nothing").returncode == 2
    assert (out / "run.jsonl").read_bytes() == (finished[0] / "run.jsonl").read_bytes()


def test_a_folder_named_like_a_matrix_is_no_matrix(tmp_path):
    (tmp_path / "smoke").mkdir()
    result = sampler("list", "smoke", folder=tmp_path)
    assert result.stdout.startswith("smoke/temperature:0.0+cfg_weight:0.0  temperature=0.0 ")


@pytest.mark.skipif(ctypes.util.find_library("openblas") is None, reason="there is no OpenBLAS on this system")
def test_replay_takes_the_threads_of_the_run():
    """Whatever the environment says now; a BLAS with one thread says so."""
    case = f"{CASE}/allowed"
    assert ", 2 threads (" in sampler_process("replay", case, "--threads", "2").stdout
    assert ", 1 thread (" in sampler_process("replay", case, "--threads", "1").stdout
    result = sampler_process("replay", case, "--threads", "2", SAMPLER_BLAS="none")
    assert_one_clear_line(result, "2 threads (bundled with MLX runs on 1; leave --threads out)")


def test_the_version_is_that_of_the_package():
    result = sampler("--version")
    assert (result.returncode, result.stdout) == (0, f"sampler {version('sampler-suite')}\n")


def test_doctor_says_what_matters(monkeypatch):
    monkeypatch.setattr(blas, "_current", None)
    monkeypatch.setenv(blas.VARIABLE, "none")
    result = sampler("doctor")
    assert result.returncode == 0, "it never fails for want of a BLAS"
    for name in ("sampler", "python", "mlx", "torch", "BLAS of MLX", "device"):
        assert re.search(rf"^{name}\s+\S", result.stdout, flags=re.MULTILINE), name
    assert re.search(r"^speed +\d+ billion float32 operations a second$", result.stdout, flags=re.MULTILINE)
    if sys.platform == "linux":  # elsewhere MLX does not use a BLAS that could be chosen
        assert re.search(r"^BLAS of MLX +bundled with MLX$", result.stdout, flags=re.MULTILINE)
        assert "hint: SAMPLER_BLAS=none" in result.stdout


@pytest.mark.parametrize(
    "command", ["run", "replay", "list", "report", "trace attention", "doctor", 'say "Come and see." -o see.wav']
)
def test_every_command_has_help_with_an_example(command):
    result = sampler(*re.split(r' (?=")', command)[0].split(), "--help")
    assert result.returncode == 0
    assert f"Example: sampler {command}" in result.stdout


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:-1], "has no footer (the run was interrupted; run it again)"),
        (
            lambda lines: lines[:1] + lines[2:],
            "'inconclusive': 2}, its footer says {'passed': 10, ",
        ),
        (lambda lines: ["[1]\n", *lines[1:]], "line 1 is no object: [1]"),
        (lambda lines: lines[1:], "has no header of the format sampler-run/2"),
        (lambda lines: [*lines[:2], *lines[1:]], "has 2 verdicts of 'quick/base/allowed' (were two runs joined?)"),
        (lambda lines: [*lines[:-1], lines[-1][:10]], "is no JSON: "),
        (
            lambda lines: [lines[0], lines[1].replace('"passed"', '"fine"'), lines[-1]],
            "line 2: verdict.outcome = 'fine'",
        ),
        (lambda lines: [lines[0], '{"kind": "note"}\n', lines[-1]], "line 2 is of kind 'note' (expected verdicts)"),
        (lambda lines: [], "has no header"),
    ],
)
def test_a_run_file_that_was_cut_or_edited_is_refused(finished, tmp_path, change, expected):
    lines = (finished[0] / "run.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "cut.jsonl"
    path.write_text("".join(change(lines)), encoding="utf-8")
    with pytest.raises(ReportError, match=re.escape(expected)):
        read_run(path)
