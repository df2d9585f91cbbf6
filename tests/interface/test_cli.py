"""The command line: every mistake is one line with exit code 2, and nothing is left half-written."""

import ctypes.util
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from sampler import finch
from sampler.results.store.run_file import ReportError, read_run
from sampler.runtime import blas

ROOT = Path(__file__).parents[2]


def sampler(*arguments: object, blocked: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `blocked` names a package that cannot be imported there."""
    start = f"import sys; sys.modules[{blocked!r}] = None; " if blocked else "import sys; "
    program = (
        f"{start}sys.argv[1:] = {[str(argument) for argument in arguments]!r}; from sampler.cli.app import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
        env=os.environ | environment,
    )


def threads() -> list[str]:
    """What a line to reproduce says of threads in this environment."""
    count = blas.threads_by_setting()
    return [] if count is None else ["--threads", str(count)]


QUICK = """
why = "One cell, two short sentences."
[generation]
requests = 2
width = 2
max_new_tokens = 400
"""


@pytest.fixture
def quick(tmp_path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK, encoding="utf-8")
    return path


def assert_one_clear_line(result: subprocess.CompletedProcess[str], expected: str):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert expected in lines[0]


def test_a_run_from_start_to_footer(quick, tmp_path):
    result = sampler("run", quick, "--out", tmp_path / "out", "--seed", 5)
    assert result.returncode == 0, result.stderr
    run = read_run(tmp_path / "out" / "run.jsonl")
    assert run.header["seed"] == 5
    assert run.header["matrix"]["name"] == "quick"
    assert len(run.header["weights"]["sha256"]) == 64
    assert {"mlx", "blas", "oracle", "width", "engine"} <= run.header.keys()
    assert [verdict.check for verdict in run.verdicts] == ["allowed", "draws", "chain", "repeats", "stops"]
    assert {verdict.outcome for verdict in run.verdicts} == {"passed"}
    assert run.footer["verdicts"] == {"passed": 5}
    assert run.footer["exit_code"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.jsonl", "tokens.jsonl", "report.html"}
    assert "1 cells: 1 passed" in result.stdout


def test_the_same_run_gives_the_same_verdicts(quick, tmp_path):
    runs = [sampler("run", quick, "--out", tmp_path / name) for name in ("one", "two")]
    assert [run.returncode for run in runs] == [0, 0]
    one, two = (read_run(tmp_path / name / "run.jsonl") for name in ("one", "two"))
    assert one.verdicts == two.verdicts
    assert one.header == two.header


def test_without_torch_the_comparison_is_skipped_and_never_passed(quick, tmp_path):
    result = sampler("run", quick, "--out", tmp_path / "out", blocked="torch")
    assert result.returncode == 0, result.stderr
    outcomes = {verdict.check: verdict.outcome for verdict in read_run(tmp_path / "out" / "run.jsonl").verdicts}
    assert outcomes == {
        "allowed": "passed",
        "draws": "passed",
        "chain": "skipped",
        "repeats": "passed",
        "stops": "passed",
    }
    assert "torch is not installed (pip install 'sampler-suite[reference]')" in result.stdout
    assert "1 cells: 1 skipped" in result.stdout


def test_a_matrix_with_nothing_but_skipped_cells_exits_with_3(tmp_path):
    result = sampler("run", "smoke", "--engine", "reference", "--out", tmp_path / "out")
    assert result.returncode == 3
    assert "reference does not generate" in result.stdout


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "[axes]\ntemperature = [-1]\n",
            "temperature = -1 is out of range (expected a finite number >= 0 (0 is greedy))",
        ),
        ("[axes]\ntemprature = [1]\n", "unknown key 'axes.temprature' (did you mean 'temperature'?)"),
    ],
)
def test_a_matrix_with_a_mistake(tmp_path, change, expected):
    path = tmp_path / "wrong.toml"
    path.write_text(QUICK + change, encoding="utf-8")
    assert_one_clear_line(sampler("run", path, "--out", tmp_path / "out"), expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "stochastik"], "there is no matrix 'stochastik' (did you mean 'stochastic'?)"),
        (
            ["run", "smoke", "--engine", "corre"],
            "'corre' is no engine (known: core, core-float16, core-bfloat16, reference, huggingface, mlx-lm, mlx-audio",
        ),
        (["run", "smoke", "--engine", "none.py:make"], "none.py cannot be imported: FileNotFoundError"),
        (
            ["run", "smoke", "--engine", "json:loadz"],
            "json has no factory 'loadz' (expected a callable without arguments)",
        ),
        (
            ["run", "smoke", "--engine", "tests/miniatures.py:make_generator"],
            "gave a Generator (expected an object whose info",
        ),
        (["run", "smoke", "--weights", "nowhere"], "nowhere does not exist (give a folder with t3_cfg.safetensors"),
        (
            ["run", "smoke", "--engine", "reference", "--weights", "x"],
            "--weights goes with the core, not with 'reference'",
        ),
        (["replay", "smoke"], "'smoke' is no case (expected matrix/cell or matrix/cell/check)"),
        (
            ["replay", "smoke/temperature:0.9"],
            "has no cell 'temperature:0.9' (the first one is 'temperature:0.0+cfg_weight:0.0')",
        ),
        (
            ["replay", "smoke/temperature:0.8+cfg_weight:0.5/alowed"],
            "there is no check 'alowed' (did you mean 'allowed'?)",
        ),
        (["replay", "none.json"], "none.json cannot be read: No such file or directory"),
        (["run", "x" * 300], "there is no matrix 'xxx"),
        (["run", "x" * 300 + ".toml"], "cannot be read: File name too long"),
        (["run", "smoke", "--weights", "x" * 300], "does not exist (give a folder with t3_cfg.safetensors"),
        (["run", "smoke", "--engine", "tests.nothing:make"], "there is no module 'tests.nothing' (give module:factory"),
    ],
)
def test_misuse_is_one_line_with_exit_code_2(tmp_path, arguments, expected):
    out = ["--out", tmp_path / "out"] if arguments[0] == "run" else []
    assert_one_clear_line(sampler(*arguments, *out), expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('prompts = [""]', "the text '' is empty (give at least one word)"),
        (f'prompts = ["{"so long " * 200}"]', "the text has 1601 tokens (finch takes 1024; split the text)"),
        ('language = "sv"', "generation.requests = 2 (there are 0 prompts)"),
        ('prompts = ["Hej."]\nlanguage = "sv"', "finch does not speak 'sv' (languages: en, de, fr, es, it)"),
        ("max_new_tokens = 5000", "max_new_tokens = 5000 (expected 1 to 4100, as many as finch has speech positions)"),
    ],
)
def test_a_text_or_length_that_the_model_cannot_take(tmp_path, change, expected):
    """Seen before the first cell runs and before anything is written."""
    settings = {"requests": "2", "max_new_tokens": "400"} if "prompts" not in change else {"max_new_tokens": "400"}
    settings.pop(change.split(" = ")[0], None)
    lines = [*(f"{name} = {value}" for name, value in settings.items()), change]
    path = tmp_path / "texts.toml"
    path.write_text("why = 'texts'\n[generation]\n" + "\n".join(lines), encoding="utf-8")
    assert_one_clear_line(sampler("run", path, "--out", tmp_path / "out"), expected)
    assert not (tmp_path / "out").exists()


def test_own_texts(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("why = 'own'\n[generation]\nprompts = ['Come and see.', 'Why not?']\n", encoding="utf-8")
    result = sampler("run", path, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    stops = [verdict for verdict in read_run(tmp_path / "out" / "run.jsonl").verdicts if verdict.check == "stops"]
    assert stops[0].n == 2


def test_damaged_weights(quick, tmp_path):
    """NaN in a tensor, and a file that was cut off."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "conds.safetensors", "weights.safetensors"):
        (folder / name).write_bytes((finch.folder() / name).read_bytes())
    tensors = load_file(folder / "weights.safetensors")
    tensors["speech_head.weight"][3, 4] = float("nan")
    save_file(tensors, folder / "weights.safetensors")
    result = sampler("run", quick, "--weights", folder, "--out", tmp_path / "out")
    assert_one_clear_line(
        result, "weights.safetensors: 'speech_head.weight' has 1 of 393600 values that are NaN or infinite"
    )
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(content[: len(content) // 2])
    result = sampler("run", quick, "--weights", folder, "--out", tmp_path / "out")
    assert_one_clear_line(result, "weights.safetensors cannot be read")
    assert not (tmp_path / "out").exists()


def test_other_weights_are_run_and_named_in_the_line_to_reproduce(tmp_path):
    """A copy of Finch from a folder; a cap of 5 tokens makes `stops` fail, and the line repeats the folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "conds.safetensors", "weights.safetensors"):
        (folder / name).write_bytes((finch.folder() / name).read_bytes())
    path = tmp_path / "short.toml"
    path.write_text(QUICK.replace("400", "5"), encoding="utf-8")
    result = sampler("run", path, "--weights", folder, "--out", tmp_path / "out")
    assert result.returncode == 1
    failed = [verdict for verdict in read_run(tmp_path / "out" / "run.jsonl").verdicts if verdict.outcome == "failed"]
    assert [verdict.check for verdict in failed] == ["stops"]
    assert "request 0 hit its cap of 5 tokens" in failed[0].message
    expected = [
        "sampler",
        "replay",
        "short/base/stops",
        "--seed",
        "0",
        "--weights",
        folder,
        "--matrix",
        path,
        *threads(),
    ]
    assert failed[0].reproduce == shlex.join(map(str, expected))
    again = sampler(*failed[0].reproduce.split()[1:])
    assert again.returncode == 1
    assert failed[0].message in again.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(quick, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.jsonl.partial").symlink_to("/dev/full")
    assert_one_clear_line(sampler("run", quick, "--out", out), "run.jsonl cannot be written: No space left on device")
    assert list(out.iterdir()) == []


def test_an_output_folder_that_cannot_be(quick, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("", encoding="utf-8")
    assert_one_clear_line(sampler("run", quick, "--out", blocker / "out"), "cannot be written: Not a directory")
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        assert_one_clear_line(sampler("run", quick, "--out", locked / "out"), "cannot be written: Permission denied")


def test_an_earlier_run_survives_one_that_fails(quick, tmp_path):
    out = tmp_path / "out"
    assert sampler("run", quick, "--out", out).returncode == 0
    before = (out / "run.jsonl").read_bytes()
    assert sampler("run", quick, "--out", out, "--engine", "nothing").returncode == 2
    assert (out / "run.jsonl").read_bytes() == before


def test_a_folder_named_like_a_matrix_is_no_matrix(tmp_path):
    (tmp_path / "smoke").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "sampler", "list", "smoke"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.startswith("smoke/temperature:0.0+cfg_weight:0.0  temperature=0.0 ")


def test_what_looks_like_markup_is_printed_as_it_is(quick, tmp_path):
    result = sampler("run", quick, "--out", tmp_path / "o[b]")
    assert result.returncode == 0, result.stderr
    assert "o[b]/run.jsonl" in result.stdout


def test_a_line_to_reproduce_is_quoted_for_the_shell(tmp_path):
    folder = tmp_path / "two words"
    folder.mkdir()
    path = folder / "short one.toml"
    path.write_text(QUICK.replace("400", "5"), encoding="utf-8")
    result = sampler("run", path, "--out", folder / "out")
    line = next(line for line in result.stdout.splitlines() if "Reproduce with: " in line)
    arguments = shlex.split(line.split("Reproduce with: ")[1])
    assert arguments == ["sampler", "replay", "short one/base/stops", "--seed", "0", "--matrix", str(path), *threads()]
    assert sampler(*arguments[1:]).returncode == 1


@pytest.mark.skipif(ctypes.util.find_library("openblas") is None, reason="there is no OpenBLAS on this system")
def test_replay_takes_the_threads_of_the_run(tmp_path):
    """Whatever the environment says now; a BLAS with one thread says so."""
    case = "smoke/temperature:0.8+cfg_weight:0.5/allowed"
    assert ", 2 threads (" in sampler("replay", case, "--threads", "2").stdout
    assert ", 1 thread (" in sampler("replay", case, "--threads", "1").stdout
    result = sampler("replay", case, "--threads", "2", SAMPLER_BLAS="none")
    assert_one_clear_line(result, "2 threads (bundled with MLX runs on 1; leave --threads out)")


def test_the_version_is_that_of_the_package():
    result = sampler("--version")
    assert (result.returncode, result.stdout) == (0, f"sampler {version('sampler-suite')}\n")


def test_replay_of_what_cannot_be_looked_at_exits_with_3():
    case = "smoke/temperature:0.8+cfg_weight:0.5"
    assert sampler("replay", case, "--engine", "reference").returncode == 3


def test_doctor_says_what_matters():
    result = sampler("doctor")
    assert result.returncode == 0
    for name in ("sampler", "python", "mlx", "torch", "BLAS of MLX", "device"):
        assert re.search(rf"^{name}\s+\S", result.stdout, flags=re.MULTILINE), name
    assert re.search(r"^speed +\d+ billion float32 operations a second$", result.stdout, flags=re.MULTILINE)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX does not use a BLAS that could be chosen")
def test_doctor_names_the_slow_blas_and_the_way_out():
    result = sampler("doctor", SAMPLER_BLAS="none")
    assert re.search(r"^BLAS of MLX +bundled with MLX$", result.stdout, flags=re.MULTILINE)
    assert "hint: SAMPLER_BLAS=none" in result.stdout
    result = sampler("doctor", SAMPLER_BLAS="/nowhere/libblas.so")
    assert result.returncode == 0, "never fails for want of a BLAS"
    assert "hint: /nowhere/libblas.so could not be loaded" in result.stdout


def test_every_command_has_help_with_an_example():
    for command in ("run", "replay", "list", "report", "trace attention", "doctor"):
        result = sampler(*command.split(), "--help")
        assert result.returncode == 0
        assert f"Example: sampler {command}" in result.stdout


def test_a_run_file_without_its_footer_is_refused(quick, tmp_path):
    assert sampler("run", quick, "--out", tmp_path / "out").returncode == 0
    lines = (tmp_path / "out" / "run.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for content, expected in (
        (lines[:-1], "has no footer (the run was interrupted; run it again)"),
        ([*lines[:1], *lines[2:]], "has verdicts {'passed': 4}, its footer says {'passed': 5} (were lines removed?)"),
        (["[1]\n", *lines[1:]], "has a line that is no object"),
        (lines[1:], "has no header of the format sampler-run/2"),
        ([*lines[:2], lines[1], *lines[2:]], "has 2 verdicts of quick/base/allowed (were two runs joined?)"),
        ([*lines[:-1], lines[-1][:10]], "is no run"),
        ([lines[0], lines[1].replace('"passed"', '"fine"'), lines[-1]], "verdict 0.outcome"),
        ([lines[0], json.dumps({"kind": "note"}) + "\n", lines[-1]], "has a line of kind 'note' (expected verdicts)"),
        ([], "has no header"),
    ):
        path = tmp_path / "cut.jsonl"
        path.write_text("".join(content), encoding="utf-8")
        with pytest.raises(ReportError) as error:
            read_run(path)
        assert expected in str(error.value)
