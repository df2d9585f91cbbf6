"""The folder of a run: it holds one run whole, whatever moment a process dies at, and takes one run at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sampler.errors import OutputError
from sampler.results.store.folder import claimed, settle
from sampler.run.recorder import recorded
from tests.commands import ROOT, assert_one_clear_line, sampler, sampler_process
from tests.run_ends import contents, judged, write_run

NIGHTLY = pytest.mark.nightly("a process and a run after it for each of 60 operations")
MODES = ("ENOSPC", "EACCES", "interrupt")
TINY = "why = 'x'\n[generation]\nprompts = ['Come and see.']\nwidth = 1\nmax_new_tokens = 400\n"


def ends(folder: Path, mode: str, pictures: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.run_ends", folder, mode, pictures],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=900,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "mode", ["kill", *(pytest.param(mode, marks=NIGHTLY) for mode in ("ENOSPC", "EACCES", "interrupt"))]
)
@pytest.mark.parametrize("pictures", ["", pytest.param("PICTURES", marks=NIGHTLY)])
def test_a_run_that_breaks_at_any_file_operation_leaves_the_earlier_run_or_the_new_one(tmp_path, mode, pictures):
    found = ends(tmp_path, mode, pictures)
    assert len(found) > 40
    assert [one["at"] for one in found if one["problems"] or one["holds"] == "nothing"] == []
    after = [one["next"] for one in found if "next" in one]
    assert {(one["holds"], *one["problems"], *one["partial"]) for one in after} == {("new",)}
    assert {"old", "new"} == {one["holds"] for one in found}
    assert found[-1]["ended"] == "kept"
    broken = found[:-1]
    if mode == "kill":
        assert {one["ended"] for one in broken} == {"killed"}
    elif mode == "interrupt":
        assert {one["ended"] for one in broken} == {"KeyboardInterrupt"}
        said = {
            (one["holds"], note.rpartition("/")[0].replace(str(tmp_path), ""))
            for one in broken
            for note in one["notes"]
        }
        assert said == {("old", ""), ("new", "the run is complete in ")}
    else:
        assert {(one["ended"], one["holds"]) for one in broken} == {("OutputError", "old"), ("kept", "new")}
        assert not [one["at"] for one in broken if one["ended"] == "OutputError" and one["partial"]]


def test_without_an_earlier_run_nothing_is_kept_and_a_reader_says_so(tmp_path):
    def interrupt() -> None:
        with recorded(SimpleNamespace(), tmp_path / "a" / "out"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        interrupt()
    assert error.value.__notes__ == [f"nothing was kept in {tmp_path / 'a' / 'out'}"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run.jsonl.partial").write_text("{", encoding="utf-8")
    expected = "run.jsonl cannot be read: No such file or directory (a run into this folder goes on or was interrupted)"
    assert_one_clear_line(sampler("report", tmp_path), expected)


def test_a_reader_says_which_run_a_folder_holds(tmp_path):
    write_run(tmp_path, 1, attention=False)
    assert sampler("report", tmp_path).stderr == ""
    (tmp_path / "run.jsonl.partial").write_text("{", encoding="utf-8")
    result = sampler("report", tmp_path)
    assert result.returncode == 0
    assert f"{tmp_path} holds the run before one that did not come to its end" in result.stderr


def test_a_page_that_cannot_take_its_place_costs_the_page_alone(tmp_path):
    (tmp_path / "report.html").mkdir()
    (unsettled,) = write_run(tmp_path, 2, attention=False)
    assert "report.html cannot be written: Is a directory" in unsettled
    assert set(contents(tmp_path)) >= {"run.jsonl", "tokens.jsonl"}
    (tmp_path / "report.html").rmdir()
    write_run(tmp_path, 2, attention=False)
    assert judged(tmp_path, {})["problems"] == []


def test_of_two_runs_into_one_folder_the_second_is_refused_at_once(tmp_path):
    matrix, out = tmp_path / "tiny.toml", tmp_path / "out"
    matrix.write_text(TINY, encoding="utf-8")
    expected = f"{out} is in use: another run writes into it (wait for its end, or choose another folder with --out)"
    with claimed(out):
        start = time.perf_counter()
        assert_one_clear_line(sampler("run", matrix, "--out", out), expected)
        assert time.perf_counter() - start < 2, "before a model is loaded"
        assert_one_clear_line(sampler_process("run", matrix, "--out", out), expected)
        assert_one_clear_line(sampler("report", out), expected)
    assert not out.exists()


HOLD = """
import sys, time
from sampler.results.store.folder import OutputError, Path, claimed
for _ in range(int(sys.argv[2])):
    try:
        with claimed(Path(sys.argv[1])):
            print("has it", flush=True)
            time.sleep(600)
    except OutputError as error:
        print(error)
"""


def hold(folder: Path, tries: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, folder, str(tries)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_twenty_of_twenty_are_refused_in_threads_and_processes(tmp_path):
    refused: list[str] = []

    def enter() -> None:
        try:
            with claimed(tmp_path):
                refused.append("")
        except OutputError as error:
            refused.append(str(error))

    with claimed(tmp_path):
        threads = [threading.Thread(target=enter) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 20
        assert all("is in use" in each for each in refused)
        holders = [hold(tmp_path, 10) for _ in range(2)]
        assert "".join(each.communicate(timeout=120)[0] for each in holders).count("is in use") == 20


def test_the_lock_of_a_process_that_was_killed_does_not_hold(tmp_path):
    holder = hold(tmp_path / "out", 1)
    assert holder.stdout.readline() == "has it\n"
    with pytest.raises(OutputError, match="is in use"), claimed(tmp_path / "out"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with claimed(tmp_path / "out"):
        pass


def test_runs_that_race_for_a_new_folder_never_both_have_it(tmp_path):
    """Also where the folder goes away again because nothing was written."""
    inside, most, lock, refused = [0], [0], threading.Lock(), set()

    def enter() -> None:
        for _ in range(200):
            try:
                with claimed(tmp_path / "a" / "b"):
                    with lock:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    with lock:
                        inside[0] -= 1
            except OutputError as error:
                refused.add(str(error).partition(" is in use")[1])

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, refused) == ([1], {" is in use"})


def test_settling_leaves_a_whole_run_alone(tmp_path):
    write_run(tmp_path, 1, attention=False)
    before = contents(tmp_path)
    assert not settle(tmp_path)
    assert contents(tmp_path) == before
