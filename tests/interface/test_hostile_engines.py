"""Engines that break their process, their answers or what is around them: a verdict each, and no process is left.

Every kind at one level by day, at every level by night; under `sampler check` the level is asked alone, under
`sampler run` a matrix of one cell. The engine's processes are found by a variable of their environment.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path

import psutil
import pytest

from sampler.checks.verdict import Verdict, exit_code
from sampler.engines.isolation import Isolated
from sampler.engines.limits import Limits
from sampler.engines.load import load_engine
from sampler.results.store.run_file import read_run
from sampler.run.conformance import ConformanceRun
from tests.commands import ROOT, sampler
from tests.wrong_engines import hostile

FILE = Path(hostile.__file__)
MARK = "SAMPLER_TEST_OF_PROCESSES"
LIMITS = Limits(timeout=6.0, memory=0.6)
OPTIONS = ["--timeout", "6", "--memory", "0.6"]
MATRIX = """
why = "One cell of an engine that has nothing but a temperature."
[generation]
prompts = ["Yes.", "Come in."]
width = 2
max_new_tokens = 60
[knobs]
min_p = 0.0
repetition_penalty = 1.0
cfg_weight = 0.0
"""
CELLS = {"process": "process/temperature", "draw": "draw/nothing", "predict": "predict/itself"}
MANY = pytest.mark.nightly("some hundred engines, each in processes of its own; a dozen run by day")

BY_DAY = {
    ("process", "segfaults"), ("process", "answers_something_strange"), ("process", "exchanges_numpy"),
    ("draw", "answers_nan"), ("predict", "leaves_with_0"), ("generate", "leaves_with_0"), ("generate", "sys_exit"),
    ("generate", "computes_for_ever"), ("generate", "takes_memory"), ("generate", "leaves_daemons"),
    ("generate", "writes_into_all_descriptors"), ("generate", "raises_what_cannot_be_pickled"),
    ("generate", "draws_a_fraction"), ("generate", "draws_a_hundred_million"), ("generate", "changes_the_config"),
    ("generate", "exchanges_the_noise"), ("factory", "aborts"), ("info", "sys_exit"),
}  # fmt: skip


def cases(levels, kinds):
    return [
        pytest.param(level, kind, id=f"{kind}-{level}", marks=[] if (level, kind) in BY_DAY else MANY)
        for kind in kinds
        for level in levels
    ]


@pytest.fixture(autouse=True)
def no_process_is_left(monkeypatch):
    """Every process that a test starts has the mark; none of them is there after it."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    yield mark
    assert not marked(mark, seconds=0.5)


def marked(mark: str, seconds: float) -> list[psutil.Process]:
    """The processes with a mark that are still there after some seconds, except this one."""
    last = time.monotonic() + seconds
    while found := [process for process in psutil.process_iter() if has_mark(process, mark)]:
        if time.monotonic() > last:
            return found
        time.sleep(0.05)
    return []


def has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(MARK) == mark
    except psutil.Error:
        return False


def loaded(name: str) -> partial:
    return partial(load_engine, f"{FILE}:{name}", {})


@pytest.fixture
def matrix(tmp_path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(MATRIX, encoding="utf-8")
    return path


def test_the_right_engine_is_not_accused(matrix, tmp_path):
    client = Isolated(loaded("right"), LIMITS)
    for level, cell in CELLS.items():
        report = ConformanceRun(client, "right", (level,), only=cell).run()
        outcomes = {verdict.outcome for verdict in report.verdicts}
        assert outcomes <= {"passed", "skipped"}, report.verdicts
        assert "passed" in outcomes
    client.close()
    result = sampler("run", matrix, "--engine", f"{FILE}:right", "--out", tmp_path / "out", *OPTIONS)
    assert result.returncode == 0, result.stdout
    assert {verdict.outcome for verdict in of_cells(tmp_path / "out")} == {"passed"}


@pytest.mark.parametrize(("level", "kind"), cases(CELLS, hostile.KINDS))
def test_check_has_a_verdict(level, kind):
    client = Isolated(loaded(f"{kind}_in_{level}"), LIMITS)
    try:
        report = ConformanceRun(client, kind, (level,), only=CELLS[level]).run()
    finally:
        client.close()
    outcomes = {verdict.outcome for verdict in report.verdicts}
    if kind in hostile.LEAVES:
        assert outcomes <= {"passed", "skipped"}, report.verdicts
        assert "passed" in outcomes
        return
    assert exit_code(report.outcome) == 1, report.verdicts
    bad = [verdict for verdict in report.verdicts if verdict.bad]
    assert all(verdict.case.startswith(level) and verdict.message for verdict in bad)
    assert all(len(verdict.message) < 1000 and verdict.message.isprintable() for verdict in bad)


def of_cells(folder: Path) -> list[Verdict]:
    """The verdicts of a run without those about all cells together, for which two runs are too few."""
    return [verdict for verdict in read_run(folder / "run.jsonl").verdicts if verdict.id.cell != "all"]


RIGHT_IN_RUNS = {*hostile.LEAVES, *hostile.SPOILS}


@pytest.mark.parametrize(("level", "kind"), cases(["generate"], [*hostile.KINDS, *hostile.RUNS]))
def test_run_has_a_verdict(level, kind, matrix, tmp_path):
    name = f"{kind}_in_{level}"
    result = sampler("run", matrix, "--engine", f"{FILE}:{name}", "--out", tmp_path / "out", *OPTIONS)
    run, verdicts = read_run(tmp_path / "out" / "run.jsonl"), of_cells(tmp_path / "out")
    outcomes = {verdict.check: verdict.outcome for verdict in verdicts}
    if kind in RIGHT_IN_RUNS and result.returncode == 0:
        assert set(outcomes.values()) == {"passed"}, outcomes
        return
    assert kind not in hostile.LEAVES
    assert result.returncode == run.footer["exit_code"] == 1
    assert {"failed", "errored"} & set(outcomes.values())
    assert all(verdict.case.startswith("small/base/") for verdict in verdicts)
    assert "errored small/base/allowed" in result.stdout or "failed small/base/" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(("level", "kind"), cases(["info", "factory"], hostile.KINDS))
def test_an_engine_that_breaks_in_loading_is_one_line(level, kind, matrix, tmp_path):
    """It may also be loaded: what is left behind, or spoiled, is no answer of the engine."""
    name = f"{FILE}:{kind}_in_{level}"
    result = sampler("run", matrix, "--engine", name, "--out", tmp_path / "out", *OPTIONS)
    if kind in hostile.LEAVES or (kind in hostile.SPOILS and result.returncode in (0, 1)):
        assert (tmp_path / "out" / "run.jsonl").exists(), result.stderr
        return
    assert result.returncode == 2, result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


WAITING = f"""
import sys
from functools import partial
from sampler.engines.calls import Call
from sampler.engines.isolation import Isolated
from sampler.engines.load import load_engine
client = Isolated(partial(load_engine, {f"{FILE}:leaves_daemons_in_generate"!r}, {{}}))
print(client.ask(Call("generate", {{"requests": []}})).failure, flush=True)
sys.stdin.read() or (END)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=MANY),
        pytest.param(signal.SIGINT, None, marks=MANY),
        pytest.param("1 / 0", 1, marks=MANY),
        pytest.param("__import__('os')._exit(3)", 3, marks=MANY),
        pytest.param("None", 0, marks=MANY),
    ],
)
def test_its_processes_end_with_the_tool_however_that_ends(end, code, no_process_is_left):
    program = WAITING.replace("END", end if isinstance(end, str) else "None")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
    ) as tool:  # fmt: skip
        assert tool.stdout.readline() == "None\n"
        assert len(marked(no_process_is_left, 0)) >= 4, "the tool, the supervisor, the engine, and its daemons"
        if isinstance(end, str):
            tool.stdin.close()
        else:
            tool.send_signal(end)
        ended = tool.wait(30)
    assert ended == code or (code is None and ended != 0)
    assert not marked(no_process_is_left, 10)


WORKERS = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from sampler.run.executors import _end_with_the_tool

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), _end_with_the_tool) as pool:
        list(pool.map(time.sleep, [1, 1]))
        jobs = [pool.submit(time.sleep, 600) for _ in range(2)]
        print("started", flush=True)
"""


@MANY
def test_the_processes_of_jobs_end_with_the_tool(no_process_is_left, tmp_path):
    (tmp_path / "tool.py").write_text(WORKERS, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "tool.py")], stdout=subprocess.PIPE, env=environment, text=True
    ) as tool:
        assert tool.stdout.readline() == "started\n"
        assert len(marked(no_process_is_left, 0)) >= 3, "the tool and its workers"
        tool.kill()
    assert not marked(no_process_is_left, 30)
